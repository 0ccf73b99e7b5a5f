//go:build linux

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/writ-io/writ/jepsen/cluster"
)

const (
	etcdPort     = "2379"
	etcdPeerPort = "2380"
)

func (l *Lab) etcdEndpoints() (endpoints []string) {
	for _, region := range cluster.Regions {
		endpoints = append(endpoints, l.Net.Address(region)+":"+etcdPort)
	}
	return endpoints
}

// startEtcd starts three members, and waits until they serve.
func (l *Lab) startEtcd(ctx context.Context) error {
	var members []string
	for _, region := range cluster.Regions {
		members = append(members, fmt.Sprintf("%s=http://%s:%s", region, l.Net.Address(region), etcdPeerPort))
	}
	for _, region := range cluster.Regions {
		client := "http://" + l.Net.Address(region) + ":" + etcdPort
		peer := "http://" + l.Net.Address(region) + ":" + etcdPeerPort
		err := l.start(&cluster.Program{Name: region, Command: func() (*exec.Cmd, error) {
			return l.Net.Command(region, l.Config.Etcd,
				"--name", region, "--data-dir", filepath.Join(l.Config.Dir, region), "--log-level", "warn",
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", strings.Join(members, ","), "--heartbeat-interval", "50", "--election-timeout", "500"), nil
		}})
		if err != nil {
			return err
		}
	}
	return l.awaitEtcd(ctx)
}

func (l *Lab) awaitEtcd(ctx context.Context) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: l.etcdEndpoints(), Context: ctx, DialOptions: []grpc.DialOption{grpc.WithContextDialer(l.Net.Dial(Observer))},
	})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	// A linearizable read: the members have elected a leader.
	if _, err := client.Get(ctx, "/"); err != nil {
		return fmt.Errorf("lab: etcd does not serve: %w", err)
	}
	return nil
}
