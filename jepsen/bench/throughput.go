package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// cycles measures acquire and release of distinct keys by 1 to 256 clients. The sides take short turns, so that both are
// measured on the same machine: this one's speed changes by two within seconds.
func cycles(ctx context.Context, o options) ([]row, error) {
	works := []struct {
		clients int
		floor   string
	}{{1, "≥ 1.3× (aim 1.5×)"}, {16, "≥ 2.2× (aim 2.5×)"}, {64, "≥ 3.3× (aim 4×)"}, {256, "≥ 3.5× (aim 5×)"}}
	if o.clients > 0 {
		works = works[:1]
		works[0].clients, works[0].floor = o.clients, ""
	}
	benches := map[string]bench{}
	for _, kind := range o.kinds() {
		c, s, err := open(ctx, o, kind, steady, works[len(works)-1].clients)
		if err != nil {
			return nil, err
		}
		defer c.stop()
		defer s.close()
		benches[kind] = bench{c, s}
	}
	var rows []row
	for _, w := range works {
		turns := map[string][]turn{}
		for n := range cycleTurns * o.rounds {
			for i := range o.kinds() {
				kind := o.kinds()[(n+i)%len(o.kinds())]
				t, err := benches[kind].cycles(ctx, w.clients, o.duration)
				if err != nil {
					return nil, fmt.Errorf("%s, %d clients: %w", kind, w.clients, err)
				}
				turns[kind] = append(turns[kind], t)
			}
		}
		ratio := ""
		if o.side == "" {
			ratio = fmt.Sprintf("%.2f×", medianRatio(turns["writ"], turns["etcd"], turn.rate))
		}
		rows = append(rows, row{
			work: fmt.Sprintf("acquire + release, %d clients", w.clients), peer: tell(turns["etcd"]), writ: tell(turns["writ"]), ratio: ratio, floor: w.floor,
		})
	}
	return rows, nil
}

// cycleTurns is how many turns a side has in a round.
const cycleTurns = 8

// medianRatio is the median of what of was measured by the side of, as a ratio to by, turn by turn.
func medianRatio[T any](of, by []T, what func(T) float64) float64 {
	var ratios []float64
	for i := range of {
		ratios = append(ratios, what(of[i])/what(by[i]))
	}
	return median(ratios)
}

// bench is a side with its servers.
type bench struct {
	cluster *cluster
	side    side
}

// turn is what came of a turn: so many cycles, and what they cost the servers and this process together.
type turn struct {
	cycles   int64
	took     time.Duration
	cpuTotal time.Duration
}

func (t turn) rate() float64 { return float64(t.cycles) / t.took.Seconds() }

// tell tells the median rate of turns, and what a cycle cost in all of them.
func tell(turns []turn) string {
	if len(turns) == 0 {
		return ""
	}
	var rates []float64
	var all turn
	for _, t := range turns {
		rates = append(rates, t.rate())
		all.cycles += t.cycles
		all.cpuTotal += t.cpuTotal
	}
	return fmt.Sprintf("%.0f cycles/s, %d µs CPU each", median(rates), all.cpuTotal.Microseconds()/max(all.cycles, 1))
}

// cycles runs a number of clients, each on a key of its own, for a fifth of d to get going and then for d.
func (b bench) cycles(ctx context.Context, clients int, d time.Duration) (t turn, err error) {
	var count atomic.Int64
	var wg sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, clients)
	for i := range clients {
		wg.Go(func() {
			for stop.Err() == nil {
				unlock, err := b.side.lock(ctx, i, fmt.Sprintf("cycle-%d", i))
				if err == nil {
					err = unlock(ctx)
				}
				if err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
		})
	}
	time.Sleep(d / 5)
	from := count.Load()
	t.cpuTotal, t.took, err = watchCPU(ctx, b.cluster, d)
	t.cycles = count.Load() - from
	cancel()
	wg.Wait()
	close(errs)
	return t, errors.Join(err, <-errs)
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
			writ: writ.Round(10 * time.Microsecond).String(), ratio: fmt.Sprintf("%.1f× faster", medianRatio(times["etcd"], times["writ"], time.Duration.Seconds)), floor: w.floor,
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

// contendTurns is how many turns a side has in a round.
const contendTurns = 3

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
	for n := range contendTurns * o.rounds {
		for i := range kinds {
			kind := kinds[(n+i)%len(kinds)]
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
		ratio: fmt.Sprintf("%.1f× faster", medianRatio(times["etcd"], times["writ"], time.Duration.Seconds)), floor: "≥ 3.5× faster (aim 4.5×)",
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
