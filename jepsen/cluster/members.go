//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// askLimit bounds a request for a change of the members.
const askLimit = 5 * time.Second

// Replace takes node i, which is down, out of the quorum, and admits it anew without its data, as an operator does when a disk is
// lost. It waits until the node can serve and every one counts it as a member with a vote, at most until ctx ends. An error says
// that the quorum's members are not what was asked for, or that they could not be asked.
func (c *Cluster) Replace(ctx context.Context, i int) error {
	name := Regions[i]
	err := c.change(ctx, i, func(ctx context.Context, client writv1.ClusterServiceClient) error {
		_, err := client.MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: name})
		if errors.Is(lease.FromError(err), lease.ErrNotFound) {
			return nil // by an earlier request
		}
		return err
	})
	if err == nil {
		others := slices.DeleteFunc(slices.Clone(Regions[:]), func(other string) bool { return other == name })
		err = c.awaitMembers(ctx, others, others)
	}
	if err != nil {
		return fmt.Errorf("cluster: remove %s: %w", name, err)
	}
	if err := c.forget(i); err != nil {
		return err
	}
	scheme := "http"
	if c.config.Secure {
		scheme = "https"
	}
	url := scheme + "://" + net.JoinHostPort(c.address(i), peerPort)
	err = c.change(ctx, i, func(ctx context.Context, client writv1.ClusterServiceClient) error {
		_, err := client.MemberAdd(ctx, &writv1.MemberAddRequest{Name: name, PeerUrl: url})
		if errors.Is(lease.FromError(err), lease.ErrConflict) && strings.Contains(err.Error(), " exists ") {
			return nil // by an earlier request
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cluster: add %s: %w", name, err)
	}
	if err := c.Restart(i); err != nil {
		return err
	}
	if err := c.awaitJoined(ctx, i); err != nil {
		return err
	}
	return c.awaitMembers(ctx, Regions[:], Regions[:])
}

// awaitJoined starts node i again where it ends before it has joined, since it may find nobody.
func (c *Cluster) awaitJoined(ctx context.Context, i int) error {
	for {
		err := c.AwaitNode(ctx, i)
		if err == nil || ctx.Err() != nil {
			return err
		}
		c.mu.Lock()
		c.nodes[i] = node{}
		c.mu.Unlock()
		if err := c.Restart(i); err != nil {
			return err
		}
	}
}

// forget removes the data of node i, and has it join when it is started.
func (c *Cluster) forget(i int) error {
	data := c.path(Regions[i])
	entries, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(data, e.Name())))
	}
	if err != nil {
		return err
	}
	joining := strings.Replace(c.nodeConfig(i), "bootstrap:\n", "bootstrap:\n  join: true\n", 1)
	return os.WriteFile(c.path(Regions[i]+".yaml"), []byte(joining), 0o600)
}

// change asks another node than i for a change of the members until one says that it is made.
func (c *Cluster) change(ctx context.Context, i int, ask func(context.Context, writv1.ClusterServiceClient) error) error {
	turn, last := 0, error(nil)
	err := until(ctx, func(ctx context.Context) (bool, error) {
		turn++
		asking, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		last = ask(asking, writv1.NewClusterServiceClient(c.conns[(i+1+turn%(Size-1))%Size]))
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// awaitMembers waits until nodes know the members that are wanted and no others.
func (c *Cluster) awaitMembers(ctx context.Context, nodes, want []string) error {
	want = slices.Sorted(slices.Values(want))
	var known map[string][]string
	err := until(ctx, func(ctx context.Context) (bool, error) {
		known = make(map[string][]string)
		same := true
		for _, node := range nodes {
			known[node] = c.members(ctx, slices.Index(Regions[:], node))
			same = same && slices.Equal(known[node], want)
		}
		return same, nil
	})
	if err != nil {
		return fmt.Errorf("the members are not %v, but by node: %v: %w", want, known, err)
	}
	return nil
}

// members are the names of the members with a vote that node j knows, sorted; nil if it does not answer.
func (c *Cluster) members(ctx context.Context, j int) (names []string) {
	status, err := c.Status(ctx, j)
	if err != nil {
		return nil
	}
	for _, n := range status.GetNodes() {
		if !n.GetLearner() {
			names = append(names, n.GetName())
		}
	}
	slices.Sort(names)
	return names
}
