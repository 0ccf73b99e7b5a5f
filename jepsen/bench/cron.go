package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

// cronMinutes is for how long the jobs are watched: each has so many slots.
const cronMinutes = 2

// crons measures what many jobs cost that one process runs, and how soon another runs what a dead one left.
func crons(ctx context.Context, o options) ([]row, error) {
	c, s, err := open(ctx, o, "writ", steady, 1)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer s.close()
	many, err := manyJobs(ctx, c, s.(*writSide), o.jobs)
	if err != nil {
		return nil, err
	}
	dead, err := deadJob(ctx, c)
	if err != nil {
		return nil, err
	}
	return append(many, dead), nil
}

// manyJobs runs jobs at one-minute schedules, spread over the minute, in this process.
func manyJobs(ctx context.Context, c *cluster, w *writSide, jobs int) ([]row, error) {
	var terms atomic.Int64
	single, err := singleton.New(w.client, singleton.Config{TTL: ttl, Hooks: singleton.Hooks{Started: func(singleton.Term) { terms.Add(1) }}})
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(ctx)
	var ticks, again atomic.Int64
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range jobs {
		running.Go(func() {
			err := single.Cron(own, fmt.Sprintf("jobs/%d", i), "* * * * *", func(_ context.Context, t singleton.Tick) error {
				ticks.Add(1)
				again.Add(int64(t.Attempt - 1))
				return nil
			}, singleton.WithPolicy(cron.Policy{Jitter: 59 * time.Second}))
			if own.Err() == nil {
				fmt.Fprintf(os.Stderr, "job %d: %v\n", i, err)
			}
		})
	}
	for n := 0; n < jobs; { // until all are held
		if n = 0; ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for _, err := range w.client.List(ctx, lease.ListOptions{Prefix: "jobs/", HeldOnly: true, PageSize: 1000}) {
			if err != nil {
				return nil, err
			}
			n++
		}
	}
	// The slots of the minute that has begun are due within the next one.
	wait := time.Until(time.Now().Truncate(time.Minute).Add(2 * time.Minute))
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	before := ticks.Load()
	servers, err := c.cpu()
	if err != nil {
		return nil, err
	}
	client, err := processCPU(os.Getpid())
	if err != nil {
		return nil, err
	}
	used, took, err := watchCPU(ctx, c, cronMinutes*time.Minute)
	if err != nil {
		return nil, err
	}
	clientAfter, err := processCPU(os.Getpid())
	if err != nil {
		return nil, err
	}
	serversAfter, err := c.cpu()
	if err != nil {
		return nil, err
	}
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
	return []row{{
		work: fmt.Sprintf("%d jobs at one-minute schedules in one process, for %d minutes", jobs, cronMinutes), peer: "—",
		writ: fmt.Sprintf("%d ticks in %d terms, %d of them again; the process %.1f %% of one core, the servers %.1f %%, together %.1f %%",
			ticks.Load()-before, terms.Load(), again.Load(), percent(clientAfter-client), percent(serversAfter-servers), percent(used)),
		ratio: "—", floor: "the process ≤ 5 %",
	}}, nil
}

// deadJob measures from when a holder dies to when another process runs its slot again, with a TTL of a second.
func deadJob(ctx context.Context, c *cluster) (row, error) {
	const short = time.Second
	var times []time.Duration
	for n := range 10 {
		took, err := deadJobOnce(ctx, c, fmt.Sprintf("dead-job/%d", n), short)
		if err != nil {
			return row{}, err
		}
		times = append(times, took)
	}
	var worst time.Duration
	for _, t := range times {
		worst = max(worst, t)
	}
	return row{
		work: "killed holder of a job, TTL 1 s: its slot runs again elsewhere after (median of 10)", peer: "—",
		writ:  fmt.Sprintf("%v, the longest %v", median(times).Round(time.Millisecond), worst.Round(time.Millisecond)),
		ratio: "—", floor: "≤ TTL + 200 ms",
	}, nil
}

func deadJobOnce(ctx context.Context, c *cluster, job string, short time.Duration) (time.Duration, error) {
	var processes [2]*lease.Client
	for i := range processes {
		client, err := lease.Dial(ctx, lease.Config{Endpoints: c.client[:], Insecure: true})
		if err != nil {
			return 0, err
		}
		defer func() { _ = client.Close() }()
		processes[i] = client
	}
	own, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	began, again := make(chan time.Time, 1), make(chan time.Time, 10)
	dead := make(chan struct{})
	defer close(dead)
	work := func(_ context.Context, t singleton.Tick) error {
		if t.Attempt > 1 {
			again <- time.Now()
			return nil
		}
		select {
		case began <- time.Now():
		default:
		}
		<-dead // as a process that is gone: it does not return, so that nothing is released
		return nil
	}
	for _, client := range processes {
		single, err := singleton.New(client, singleton.Config{TTL: short})
		if err != nil {
			return 0, err
		}
		running.Go(func() { _ = single.Cron(own, job, "@every 2s", work) })
		for info := (lease.Info{}); info.State != lease.Held; { // the first process is the holder
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			info, _ = client.Get(ctx, job, lease.GetOptions{}) // NOT_FOUND, until it has asked
		}
	}
	<-began
	killed := time.Now()
	if err := processes[0].Close(); err != nil {
		return 0, err
	}
	select {
	case at := <-again:
		return at.Sub(killed), nil
	case <-time.After(30 * time.Second):
		return 0, fmt.Errorf("%s was not run again", job)
	}
}
