package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/lease"
)

// raiseSamples is how many resources are acquired on each side in a round.
const raiseSamples = 300

// raises compares acquiring a resource for the first time with and without three guards. Unguarded, that is one commit;
// guarded it is a commit, the raise, and another commit.
func raises(ctx context.Context, o options) (rows []row, err error) {
	c, s, err := open(ctx, o, "writ", steady, 1)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer s.close()
	client := s.(*writSide).client
	stop, err := startGuards(ctx, o, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var plain, guarded []time.Duration
	for round := range o.rounds {
		for i := range raiseSamples {
			for prefix, into := range map[string]*[]time.Duration{"plain": &plain, "guarded": &guarded} {
				began := time.Now()
				hold, err := client.Acquire(ctx, fmt.Sprintf("%s/%d-%d", prefix, round, i), lease.AcquireOptions{TTL: ttl})
				if err != nil {
					return nil, fmt.Errorf("%s: %w", prefix, err)
				}
				*into = append(*into, time.Since(began))
				if err := hold.Release(ctx); err != nil {
					return nil, err
				}
			}
		}
	}
	one, with := median(plain), median(guarded)
	raise := with - 2*one
	return []row{{
		"raise of three guards (acquire " + with.Round(10*time.Microsecond).String() + " with, one commit without)", "",
		raise.Round(10*time.Microsecond).String() + " against " + one.Round(10*time.Microsecond).String(),
		fmt.Sprintf("%.1f×", float64(raise)/float64(one)), "≤ 3×",
	}}, nil
}

// startGuards enrols three guards of everything under guarded/, and waits until a grant there rests on all of them.
func startGuards(ctx context.Context, o options, c *cluster) (stop func() error, err error) {
	conn, err := grpc.NewClient("passthrough:///"+c.client[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	fences := writv1.NewFenceServiceClient(conn)
	_, err = fences.SetGuarding(ctx, &writv1.SetGuardingRequest{
		Rule: &writv1.GuardingRule{Prefix: "guarded/", Isolation: writv1.Isolation_ISOLATION_CLOSE}, Reason: "benchmark",
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.dir, "guards-")
	if err != nil {
		return nil, err
	}
	var guards []*guard.Guard
	stop = func() error {
		var all error
		for _, g := range guards {
			all = errors.Join(all, g.Close(context.WithoutCancel(ctx)))
		}
		return all
	}
	for i, region := range regions {
		g, err := guard.New(guard.Config{
			Name: "g-" + region, Region: region, Form: "bench", Covers: []string{"guarded/*"}, Slack: time.Second,
			Store: filepath.Join(dir, region), Endpoints: []string{c.client[i]}, Insecure: true,
		})
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		guards = append(guards, g)
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		list, err := fences.ListGuards(ctx, &writv1.ListGuardsRequest{})
		if err == nil && len(list.GetGuards()) == len(regions) {
			tick.Stop()
			return stop, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return nil, errors.Join(context.Cause(ctx), stop())
		}
	}
}
