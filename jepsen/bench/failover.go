package main

import (
	"context"
	"errors"
	"fmt"

	"runtime"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// failovers kills the deciding process with SIGKILL and measures until something new is granted.
func failovers(ctx context.Context, o options) ([]row, error) {
	times := map[string][]time.Duration{}
	for _, kind := range kinds {
		c, s, err := open(ctx, o, kind, quick, 1)
		if err != nil {
			return nil, err
		}
		defer c.stop()
		defer s.close()
		for n := range 7 {
			d, err := failover(ctx, c, s, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kind, err)
			}
			times[kind] = append(times[kind], d)
		}
	}
	etcd, writ := median(times["etcd"]), median(times["writ"])
	return []row{{
		work: "coordinator killed with kill -9, heartbeat 50 ms, election 500 ms: first new grant, median of 7",
		peer: etcd.Round(time.Millisecond).String(), writ: writ.Round(time.Millisecond).String(),
		ratio: fmt.Sprintf("%.2f× of etcd's time", float64(writ)/float64(etcd)), floor: "no later than etcd, ≤ 1.0 s",
	}}, nil
}

func failover(ctx context.Context, c *cluster, s side, n int) (time.Duration, error) {
	leader, err := c.leader(ctx, s)
	if err != nil {
		return 0, err
	}
	// Somebody is at work when it happens, as in life.
	unlock, err := s.lock(ctx, 0, fmt.Sprintf("before-%d", n))
	if err != nil {
		return 0, err
	}
	if err := unlock(ctx); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := c.kill(leader); err != nil {
		return 0, err
	}
	for try := 0; ; try++ {
		unlock, err = s.lock(ctx, 0, fmt.Sprintf("after-%d-%d", n, try))
		if err == nil {
			break
		}
		if ctx.Err() != nil || time.Since(start) > 30*time.Second {
			return 0, err
		}
	}
	took := time.Since(start)
	if err := unlock(ctx); err != nil {
		return 0, err
	}
	if err := c.start(leader); err != nil {
		return 0, err
	}
	return took, c.rejoined(ctx, s, leader)
}

// leader is the index of the process that decides.
func (c *cluster) leader(ctx context.Context, s side) (int, error) {
	if w, ok := s.(*writSide); ok {
		return c.coordinator(ctx, w)
	}
	client := s.(*etcdSide).client
	for i := range 3 {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		st, err := client.Status(ctx, c.client[i])
		cancel()
		if err == nil && st.Leader == st.Header.MemberId {
			return i, nil
		}
	}
	return 0, errors.New("no leader")
}

// status asks one Writ node.
func (c *cluster) status(ctx context.Context, i int) (*writv1.StatusResponse, error) {
	conn, err := grpc.NewClient(c.client[i], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return writv1.NewClusterServiceClient(conn).Status(ctx, &writv1.StatusRequest{})
}

func (c *cluster) coordinator(ctx context.Context, _ *writSide) (int, error) {
	for range 100 {
		for i := range 3 {
			st, err := c.status(ctx, i)
			if err != nil || !st.Ready {
				continue
			}
			for j, name := range regions {
				if name == st.Coordinator {
					return j, nil
				}
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, errors.New("no coordinator")
}

// rejoined waits until the restarted process takes part again.
func (c *cluster) rejoined(ctx context.Context, s side, i int) error {
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if e, ok := s.(*etcdSide); ok {
			sctx, cancel := context.WithTimeout(ctx, time.Second)
			st, err := e.client.Status(sctx, c.client[i])
			cancel()
			if err == nil && st.Leader != 0 {
				// The session is etcd's to keep: a lock needs a leader that has loaded its leases.
				return waitFor(ctx, e.client)
			}
		} else if st, err := c.status(ctx, i); err == nil && st.Ready {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("process %d did not rejoin", i)
}

func waitFor(ctx context.Context, client *clientv3.Client) error {
	_, err := client.Get(ctx, "ready")
	return err
}

// heap is what was in use of a Writ process's heap when it was last collected, in bytes: the least of a few seconds.
func (c *cluster) heap(ctx context.Context, i int) (float64, error) {
	least := 0.0
	for range 30 {
		v, err := c.metric(ctx, i, "go_gc_heap_live_bytes")
		if err != nil {
			return 0, err
		}
		if least == 0 || v < least {
			least = v
		}
		time.Sleep(200 * time.Millisecond)
	}
	return least, nil
}

// takeover kills the coordinator that keeps many leases and measures until the next one grants.
func (c *cluster) takeover(ctx context.Context, w *writSide, leader int) (time.Duration, error) {
	start := time.Now()
	if err := c.kill(leader); err != nil {
		return 0, err
	}
	unlock, err := w.lock(ctx, 0, "takeover")
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	if err := unlock(ctx); err != nil {
		return 0, err
	}
	if err := c.start(leader); err != nil {
		return 0, err
	}
	return took, c.rejoined(ctx, w, leader)
}

// massExpiry lets all leases of the client run out and measures from the last deadline until none is held.
func massExpiry(ctx context.Context, c *cluster, w *writSide) (time.Duration, error) {
	if err := w.client.Close(); err != nil {
		return 0, err
	}
	// The last renewal was no later than this, so the last deadline is a TTL from here.
	deadline := time.Now().Add(ttl)
	leader, err := c.coordinator(ctx, w)
	if err != nil {
		return 0, err
	}
	for {
		st, err := c.status(ctx, leader)
		if err != nil {
			return 0, err
		}
		if st.Leases == 0 {
			return max(time.Since(deadline), 0), nil
		}
		if time.Since(deadline) > time.Minute {
			return 0, fmt.Errorf("%d leases are still held a minute after their deadline", st.Leases)
		}
		runtime.Gosched()
		time.Sleep(5 * time.Millisecond)
	}
}

// deadHolder kills holders (processes of this program's own binary are not needed: a client that stops renewing is as
// dead) and measures when the waiter holds.
func deadHolder(ctx context.Context, c *cluster) (time.Duration, error) {
	var times []time.Duration
	waiter, err := lease.Dial(ctx, lease.Config{Endpoints: c.client[:], Insecure: true, Region: "us"})
	if err != nil {
		return 0, err
	}
	defer func() { _ = waiter.Close() }()
	for n := range 20 {
		holder, err := lease.Dial(ctx, lease.Config{Endpoints: c.client[:], Insecure: true, Region: "eu"})
		if err != nil {
			return 0, err
		}
		name := fmt.Sprintf("dead/%d", n)
		hold, err := holder.Acquire(ctx, name, lease.AcquireOptions{TTL: time.Second})
		if err != nil {
			return 0, err
		}
		var at atomic.Int64
		done := make(chan error, 1)
		go func() {
			h, err := waiter.Acquire(ctx, name, lease.AcquireOptions{TTL: time.Second})
			at.Store(time.Now().UnixNano())
			if err == nil {
				err = h.Release(ctx)
			}
			done <- err
		}()
		if err := hold.Verify(ctx); err != nil {
			return 0, err
		}
		killed := time.Now()
		if err := holder.Close(); err != nil {
			return 0, err
		}
		if err := <-done; err != nil {
			return 0, err
		}
		times = append(times, time.Unix(0, at.Load()).Sub(killed))
	}
	return median(times), nil
}
