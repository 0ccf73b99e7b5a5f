//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/wait"
)

// startQuorum starts nodes and guards, and waits until these are enrolled.
func (l *Lab) startQuorum(ctx context.Context) error {
	if err := l.startNodes(ctx); err != nil {
		return err
	}
	if !l.Config.Unguarded {
		if err := l.protect(ctx); err != nil {
			return err
		}
	}
	for i := range l.Guards {
		if err := l.addGuard(i); err != nil {
			return err
		}
	}
	return l.AwaitGuards(ctx)
}

func (l *Lab) startNodes(ctx context.Context) error {
	addresses := make([]string, cluster.Size)
	for i, name := range cluster.Regions {
		addresses[i] = l.Net.Address(name)
	}
	config := cluster.Config{
		Binary: l.Config.first().Writ, Dir: l.Config.Dir, Secure: true, GuardLease: GuardLease, Addresses: addresses,
		Heartbeat: l.Config.Matrix.heartbeat, Election: l.Config.Matrix.election,
		Command: func(i int, path string, args ...string) *exec.Cmd {
			return l.Net.Command(cluster.Regions[i], path, args...)
		},
		Dialer:     l.Net.Dial(Observer),
		Identities: map[string][]string{auditor: {"audit"}},
	}
	var err error
	if l.Config.Pair != nil {
		if l.Pair, err = l.newPair(&config); err != nil {
			return err
		}
	}
	l.Nodes, err = cluster.Start(ctx, config)
	return err
}

func (l *Lab) addGuard(i int) error {
	path := filepath.Join(l.Config.Dir, Guard(i)+".yaml")
	if err := os.WriteFile(path, []byte(l.guardConfig(i)), 0o600); err != nil {
		return err
	}
	l.Guards[i] = &cluster.Program{Name: Guard(i), Command: func() (*exec.Cmd, error) {
		return l.Net.Command(Guard(i), l.guardProgram(i), "--config", path), nil
	}}
	return l.start(l.Guards[i])
}

func (l *Lab) guardConfig(i int) string {
	client := l.Nodes.Client()
	route := "  - {path: " + store.Path + ", resource: " + store.Resource + ", upstream: store, forward_writ: true}\n"
	if l.Config.Unguarded {
		route = "  - {path: " + store.Path + ", unguarded: pass, upstream: store}\n" +
			"  - {path: /other, resource: other, upstream: store}\n" // a guard has to guard something
	}
	var b strings.Builder
	region, pairUpstream, pairRoute := "eu", "", ""
	if l.Config.Pair != nil {
		region = cluster.Regions[i]
		pairUpstream, pairRoute = l.pairSections()
	}
	fmt.Fprintf(&b, "name: %s\nregion: %s\ndata_dir: %s\nslack: %v\n", Guard(i), region, Guard(i), Slack)
	fmt.Fprintf(&b, "quorum: {endpoints: [%s], ca: %q, cert: %q, key: %q}\n",
		strings.Join(client.Endpoints, ", "), client.CAFile, client.CertFile, client.KeyFile)
	fmt.Fprintf(&b, "listeners:\n  - {name: main, listen: %q}\n", l.Net.Address(Guard(i))+":"+GuardPort)
	patience := "" // of the last one, slow writes are too slow
	if i == GuardCount-1 {
		patience = ", response_timeout: 500ms"
	}
	fmt.Fprintf(&b, "upstreams:\n  - {name: store, url: %q, dial_timeout: 1s%s}\n", "http://"+l.storeAddress(), patience)
	b.WriteString(pairUpstream)
	fmt.Fprintf(&b, "routes:\n%sadmin: {listen: %q}\nlimits: {linger: 5s, max_park_time: 2s}\nlog: {level: info}\n", route+pairRoute, GuardAdmin)
	return b.String()
}

// protect has the resource guarded.
func (l *Lab) protect(ctx context.Context) error {
	conn, err := l.Conn(0)
	if err != nil {
		return err
	}
	_, err = writv1.NewFenceServiceClient(conn).SetGuarding(ctx, &writv1.SetGuardingRequest{
		Rule:   &writv1.GuardingRule{Prefix: store.Resource, Isolation: writv1.Isolation_ISOLATION_CLOSE, DrainMs: DrainTime.Milliseconds()},
		Reason: "test",
	})
	return err
}

// AwaitGuards waits until every guard is enrolled, at most until ctx ends.
func (l *Lab) AwaitGuards(ctx context.Context) error {
	conn, err := l.Conn(0)
	if err != nil {
		return err
	}
	client := writv1.NewFenceServiceClient(conn)
	for {
		response, err := client.ListGuards(ctx, &writv1.ListGuardsRequest{})
		enrolled := 0
		for _, g := range response.GetGuards() {
			if g.GetState() == writv1.GuardState_GUARD_STATE_ENROLLED {
				enrolled++
			}
		}
		if enrolled == len(l.Guards) {
			return nil
		}
		if !wait.For(ctx, 50*time.Millisecond) {
			return fmt.Errorf("lab: %d guards are enrolled: %w", enrolled, err)
		}
	}
}

// Settle waits until a new grant is made, before which every older write is over, at most until ctx ends, and returns its
// token.
func (l *Lab) Settle(ctx context.Context) (fence.Token, error) {
	conn, err := l.Conn(0)
	if err != nil {
		return 0, err
	}
	client := writv1.NewLeaseServiceClient(conn)
	for {
		response, err := client.Acquire(ctx, &writv1.AcquireRequest{
			Resource: store.Resource, Ttl: durationpb.New(time.Minute), RequestId: "settle", Instance: "observer",
		})
		if token := response.GetGrant().GetToken(); token != 0 {
			return fence.Token(token), nil
		}
		if !wait.For(ctx, 100*time.Millisecond) {
			return 0, fmt.Errorf("lab: no grant after the faults: %w", err)
		}
	}
}
