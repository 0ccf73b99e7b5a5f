package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// cycles measures acquire and release of distinct keys by 1 to 256 clients. Each side is measured while nothing of the other
// runs, round by round in turn.
func cycles(ctx context.Context, o options) ([]row, error) {
	works := []struct {
		clients int
		floor   string
	}{{1, "≥ 1.3× (aim 1.5×)"}, {16, "≥ 2.2× (aim 2.5×)"}, {64, "≥ 3.3× (aim 4×)"}, {256, "≥ 3.5× (aim 5×)"}}
	if o.clients > 0 {
		works = works[:1]
		works[0].clients, works[0].floor = o.clients, ""
	}
	type measured struct {
		rate float64
		cost time.Duration
	}
	results := map[string][][]measured{} // by kind, round and work
	for range o.rounds {
		for _, kind := range o.kinds() {
			var round []measured
			err := alone(ctx, o, kind, works[len(works)-1].clients, func(c *cluster, s side) error {
				for _, w := range works {
					rate, cost, err := cycleRate(ctx, c, s, w.clients, o.duration)
					if err != nil {
						return fmt.Errorf("%s, %d clients: %w", kind, w.clients, err)
					}
					round = append(round, measured{rate, cost})
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			results[kind] = append(results[kind], round)
		}
	}
	var rows []row
	for i, w := range works {
		text := func(kind string) string {
			var rates []float64
			var costs []time.Duration
			for _, round := range results[kind] {
				rates, costs = append(rates, round[i].rate), append(costs, round[i].cost)
			}
			if len(rates) == 0 {
				return ""
			}
			return fmt.Sprintf("%.0f cycles/s, %d µs CPU each", median(rates), median(costs).Microseconds())
		}
		var ratios []float64
		for n := range min(len(results["etcd"]), len(results["writ"])) {
			ratios = append(ratios, results["writ"][n][i].rate/results["etcd"][n][i].rate)
		}
		ratio := ""
		if len(ratios) > 0 {
			ratio = fmt.Sprintf("%.2f×", median(ratios))
		}
		rows = append(rows, row{
			work: fmt.Sprintf("acquire + release, %d clients", w.clients), peer: text("etcd"), writ: text("writ"), ratio: ratio, floor: w.floor,
		})
	}
	return rows, nil
}

// alone runs a measurement on a cluster that it starts and stops.
func alone(ctx context.Context, o options, kind string, workers int, measure func(*cluster, side) error) error {
	c, s, err := open(ctx, o, kind, steady, workers)
	if err != nil {
		return err
	}
	defer c.stop()
	defer s.close()
	return measure(c, s)
}

// cycleRate is the cycles per second of a number of clients, each on a key of its own, and the processor time that one
// costs the servers and this process together.
func cycleRate(ctx context.Context, c *cluster, s side, clients int, d time.Duration) (rate float64, cost time.Duration, err error) {
	warm := d / 4
	var count atomic.Int64
	var wg sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, clients)
	for i := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for stop.Err() == nil {
				unlock, err := s.lock(ctx, i, fmt.Sprintf("cycle-%d", i))
				if err == nil {
					err = unlock(ctx)
				}
				if err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
		}()
	}
	time.Sleep(warm)
	from, start := count.Load(), time.Now()
	used, _, err := watchCPU(ctx, c, d)
	if cycles := count.Load() - from; cycles > 0 {
		rate, cost = float64(cycles)/time.Since(start).Seconds(), used/time.Duration(cycles)
	}
	cancel()
	wg.Wait()
	close(errs)
	return rate, cost, errors.Join(err, <-errs)
}

// handoffs measures from the release to the grant of the one that waits.
func handoffs(ctx context.Context, o options) ([]row, error) {
	sides := map[string]side{}
	for _, kind := range kinds {
		c, s, err := open(ctx, o, kind, steady, 2)
		if err != nil {
			return nil, err
		}
		defer c.stop()
		defer s.close()
		sides[kind] = s
	}
	var rows []row
	for _, w := range []struct {
		held  time.Duration
		floor string
	}{{160 * time.Millisecond, "≥ 2.5× faster"}, {30 * time.Millisecond, "≥ 20× faster"}} {
		times := map[string][]time.Duration{}
		for n := range 21 {
			for _, kind := range kinds {
				d, err := handoff(ctx, sides[kind], fmt.Sprintf("handoff-%v-%d", w.held, n), w.held)
				if err != nil {
					return nil, err
				}
				times[kind] = append(times[kind], d)
			}
		}
		etcd, writ := median(times["etcd"]), median(times["writ"])
		rows = append(rows, row{
			work: fmt.Sprintf("hand-off to one waiter, held %v, p50", w.held), peer: etcd.Round(10 * time.Microsecond).String(),
			writ: writ.Round(10 * time.Microsecond).String(), ratio: fmt.Sprintf("%.1f× faster", float64(etcd)/float64(writ)), floor: w.floor,
		})
	}
	return rows, nil
}

func handoff(ctx context.Context, s side, key string, held time.Duration) (time.Duration, error) {
	unlock, err := s.lock(ctx, 0, key)
	if err != nil {
		return 0, err
	}
	type got struct {
		at     time.Time
		unlock func(context.Context) error
		err    error
	}
	waiter := make(chan got, 1)
	go func() {
		u, err := s.lock(ctx, 1, key)
		waiter <- got{time.Now(), u, err}
	}()
	time.Sleep(held)
	released := time.Now()
	if err := unlock(ctx); err != nil {
		return 0, err
	}
	g := <-waiter
	if g.err != nil {
		return 0, g.err
	}
	return g.at.Sub(released), g.unlock(ctx)
}

// contenders measures how long 500 clients take to hold one key once each.
func contenders(ctx context.Context, o options) ([]row, error) {
	const clients = 500
	times := map[string][]time.Duration{}
	sides := map[string]side{}
	for _, kind := range kinds {
		c, s, err := open(ctx, o, kind, steady, clients)
		if err != nil {
			return nil, err
		}
		defer c.stop()
		defer s.close()
		sides[kind] = s
	}
	for n := range o.rounds {
		for _, kind := range kinds {
			d, err := contend(ctx, sides[kind], clients, fmt.Sprintf("contended-%d", n))
			if err != nil {
				return nil, err
			}
			times[kind] = append(times[kind], d)
		}
	}
	etcd, writ := median(times["etcd"]), median(times["writ"])
	return []row{{
		work: fmt.Sprintf("%d contenders, each holds once", clients), peer: etcd.Round(time.Millisecond).String(), writ: writ.Round(time.Millisecond).String(),
		ratio: fmt.Sprintf("%.1f× faster", float64(etcd)/float64(writ)), floor: "≥ 3.5× faster (aim 4.5×)",
	}}, nil
}

func contend(ctx context.Context, s side, clients int, key string) (time.Duration, error) {
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	start := time.Now()
	for i := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			unlock, err := s.lock(ctx, i, key)
			if err == nil {
				err = unlock(ctx)
			}
			if err != nil {
				errs <- err
			}
		}()
	}
	wg.Wait()
	d := time.Since(start)
	close(errs)
	return d, <-errs
}
