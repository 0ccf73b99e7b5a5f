package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/writ-io/writ/lease"
)

// hold acquires n leases with one client, 256 at a time.
func (s *writSide) hold(ctx context.Context, n int, d time.Duration, prefix string) ([]*lease.Hold, error) {
	holds := make([]*lease.Hold, n)
	errs := make(chan error, 256)
	var wg sync.WaitGroup
	for w := range 256 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += 256 {
				h, err := s.client.Acquire(ctx, fmt.Sprintf("%s/%d", prefix, i), lease.AcquireOptions{TTL: d})
				if err != nil {
					errs <- err
					return
				}
				holds[i] = h
			}
		}()
	}
	wg.Wait()
	close(errs)
	return holds, <-errs
}

func lost(holds []*lease.Hold) int {
	n := 0
	for _, h := range holds {
		if !h.Valid() {
			n++
		}
	}
	return n
}

// renewals measures what 50,000 leases cost that one process keeps.
func renewals(ctx context.Context, o options) ([]row, error) {
	const leases = 50_000
	c, s, err := open(ctx, o, "writ", steady, 1)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer s.close()
	holds, err := s.(*writSide).hold(ctx, leases, ttl, "renew")
	if err != nil {
		return nil, err
	}
	used, d, err := watchCPU(ctx, c, 30*time.Second)
	if err != nil {
		return nil, err
	}
	return []row{{
		work: fmt.Sprintf("%d leases at TTL %v kept by one process", leases, ttl), peer: "—",
		writ:  fmt.Sprintf("%d lost, %.1f %% of one core, servers and client together", lost(holds), 100*used.Seconds()/d.Seconds()),
		ratio: "—", floor: "none lost, ≤ 5 %",
	}}, nil
}

// watchCPU is the processor time that the servers and this process use while d passes.
func watchCPU(ctx context.Context, c *cluster, d time.Duration) (used, took time.Duration, err error) {
	total := func() (time.Duration, error) {
		servers, err := c.cpu()
		own, err2 := processCPU(os.Getpid())
		return servers + own, errors.Join(err, err2)
	}
	before, err := total()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	after, err := total()
	return after - before, time.Since(start), err
}

// scale measures what many leases do to one quorum.
func scale(ctx context.Context, o options) ([]row, error) {
	c, s, err := open(ctx, o, "writ", steady, 1)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer s.close()
	w := s.(*writSide)
	leader, err := c.coordinator(ctx, w)
	if err != nil {
		return nil, err
	}
	before, err := c.heap(ctx, leader)
	if err != nil {
		return nil, err
	}
	holds, err := w.hold(ctx, o.leases, ttl, "scale")
	if err != nil {
		return nil, err
	}
	used, took, err := watchCPU(ctx, c, time.Minute)
	if err != nil {
		return nil, err
	}
	after, err := c.heap(ctx, leader)
	if err != nil {
		return nil, err
	}
	rows := []row{
		{fmt.Sprintf("%d live leases for a minute", o.leases), "—", fmt.Sprintf("%d lost, %.1f %% of one core", lost(holds), 100*used.Seconds()/took.Seconds()), "—", "none lost"},
		{"coordinator heap per lease", "—", fmt.Sprintf("%.0f B", (after-before)/float64(o.leases)), "—", "≤ 1 KiB"},
	}
	takeover, err := c.takeover(ctx, w, leader)
	if err != nil {
		return nil, err
	}
	rows = append(rows, row{fmt.Sprintf("takeover with %d leases", o.leases), "—", fmt.Sprintf("%v, %d lost", takeover.Round(time.Millisecond), lost(holds)), "—", "≤ election (1 s) + 1 s"})
	freed, err := massExpiry(ctx, c, w)
	if err != nil {
		return nil, err
	}
	rows = append(rows, row{fmt.Sprintf("%d leases expire at once", o.leases), "—", fmt.Sprintf("all free after %v", freed.Round(time.Millisecond)), "—", "≤ 3 s"})
	waiter, err := deadHolder(ctx, c)
	if err != nil {
		return nil, err
	}
	return append(rows, row{"killed holder, TTL 1 s: its waiter holds after (median of 20)", "—", waiter.Round(time.Millisecond).String(), "—", "≤ TTL + 150 ms"}), nil
}
