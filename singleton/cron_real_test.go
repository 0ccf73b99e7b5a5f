package singleton_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ/node"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
	"github.com/writ-io/writ/singleton"
)

// realQuorum starts three nodes with embedded etcd in this process, and returns where they answer.
func realQuorum(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 3
	members := map[string]string{}
	for i := range size {
		members[fmt.Sprintf("n%d", i)] = "http://" + freeport.Address(t)
	}
	var endpoints []string
	started := make(chan error, size)
	for name, peer := range members {
		cfg := node.Config{
			Name: name, Region: "r-" + name, Cluster: "test", DataDir: filepath.Join(dir, name), Insecure: true, PolicyFile: policy,
			API: node.Address{Listen: freeport.Address(t)}, HTTP: node.Address{Listen: freeport.Address(t)},
			Peer: node.Address{Listen: peer[len("http://"):]}, Bootstrap: node.Bootstrap{Members: members},
			Heartbeat: pace.Heartbeat, Election: pace.Election,
		}
		endpoints = append(endpoints, cfg.API.Listen)
		go func() {
			n, err := node.Start(t.Context(), cfg, node.Options{Version: "test"})
			if err == nil {
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					defer cancel()
					_ = n.Stop(ctx)
				})
			}
			started <- err
		}()
	}
	for range size {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
	return endpoints
}

// On a real quorum, a slot whose holder dies runs again elsewhere, under the same id, once the lease has run out.
func TestCronFailsOverOnARealQuorum(t *testing.T) {
	const ttl = 10 * time.Second
	endpoints := realQuorum(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ticks := make(chan singleton.Tick, 10)
	dead := make(chan struct{})
	var clients []*lease.Client
	var ended []chan error
	for range 2 {
		client, err := lease.Dial(ctx, lease.Config{Endpoints: endpoints, Insecure: true, DialTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		s, err := singleton.New(client, singleton.Config{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			done <- s.Cron(ctx, "night/bill", "@every 5s", func(ctx context.Context, tick singleton.Tick) error {
				ticks <- tick
				if tick.Attempt == 1 {
					<-dead // as a process that is gone: it does not return, so that nothing is released
				}
				return nil
			})
		}()
		clients, ended = append(clients, client), append(ended, done)
	}
	first := <-ticks
	info, err := clients[0].Get(ctx, "night/bill", lease.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holder := 0
	if clients[1].Instance() == info.Holder.Instance {
		holder = 1
	}
	killed := time.Now()
	_ = clients[holder].Close()
	second := <-ticks
	t.Logf("run again %v after the holder died, with a TTL of %v", time.Since(killed), ttl)
	if second.ID != first.ID || second.Attempt != 2 || !second.Slot.Equal(first.Slot) {
		t.Errorf("after %+v came %+v", first, second)
	}
	if took := time.Since(killed); took < ttl/2 {
		t.Errorf("run again %v after the holder died, when its lease had not run out", took)
	}
	close(dead)
	cancel()
	for _, done := range ended {
		if err := <-done; err == nil {
			t.Error("Cron returned without an error")
		}
	}
	_ = clients[1-holder].Close()
}
