package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/slots"
	"github.com/writ-io/writ/jepsen/wait"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

const (
	// Variable of the environment makes a program one with cron jobs, see [Main]; it holds the [Config], as JSON.
	Variable = "WRIT_JEPSEN_SLOTS"
	// slotWork is how long the work of a slot takes at most, and slotPause how long until it is tried again.
	slotWork, slotPause = 60 * time.Millisecond, 50 * time.Millisecond
)

// Config is what such a program is told.
type Config struct {
	Name          string // unique, also among the restarts of a process
	Region        string
	Endpoints     []string
	CA, Cert, Key string
	TTL           time.Duration
	DSN           string
	Jobs          []slots.Job
	Seed          uint64
}

// worker runs jobs. The work of a slot does not look whether it still may: once it has the token it
// presents it until the database refuses it, which is what the fence is there for.
type worker struct {
	config Config
	pool   *pgxpool.Pool
	fenced *pgfence.Pool

	goOn chan struct{} // a slot that waits between its rows goes on; closed when all do

	mu    sync.Mutex
	rng   *rand.Rand    // guarded by mu
	hold  string        // guarded by mu; the job whose next slot waits
	count int           // guarded by mu
	out   *json.Encoder // guarded by mu
}

// Main makes this program the one that its environment tells of, and returns the code to exit with.
func Main() int {
	w := &worker{goOn: make(chan struct{}, 1), out: json.NewEncoder(os.Stdout)}
	err := json.Unmarshal([]byte(os.Getenv(Variable)), &w.config)
	if err == nil {
		err = w.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slots:", err)
		return 1
	}
	return 0
}

func (w *worker) run() error {
	c := w.config
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.rng = rand.New(rand.NewPCG(c.Seed, 1))
	var err error
	if w.pool, err = pgxpool.New(ctx, c.DSN); err != nil {
		return err
	}
	defer w.pool.Close()
	if w.fenced, err = pgfence.NewPool(w.pool, pgfence.Config{}); err != nil {
		return err
	}
	go func() {
		defer cancel()
		w.obey()
	}()
	client := w.dial(ctx)
	if client == nil {
		return nil
	}
	defer func() { _ = client.Close() }()
	single, err := singleton.New(client, singleton.Config{
		TTL: c.TTL, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Hooks: singleton.Hooks{Started: func(t singleton.Term) {
			w.say(writer.Said{Kind: writer.Granted, Token: t.Token, Element: string(t.Resource)})
		}},
	})
	if err != nil {
		return err
	}
	failed := make([]error, len(c.Jobs))
	var running sync.WaitGroup
	for i, job := range c.Jobs {
		running.Go(func() {
			defer cancel()
			err := single.Cron(ctx, job.Name, slots.Spec, func(ctx context.Context, t singleton.Tick) error { return w.tick(ctx, job, t) },
				singleton.WithPolicy(cron.Policy{
					CatchUp: cron.CatchUpAll, Max: cron.MaxBacklog, Window: slots.Window, Overlap: cron.OverlapBufferOne,
					MaxAttempts: cron.MaxMaxAttempts,
				}))
			if ctx.Err() == nil {
				failed[i] = fmt.Errorf("%s is not run any more: %w", job.Name, err)
			}
		})
	}
	running.Wait()
	return errors.Join(failed...)
}

// dial connects as soon as there is somebody to connect to; nil if ctx ends before.
func (w *worker) dial(ctx context.Context) *lease.Client {
	c := w.config
	for ctx.Err() == nil {
		client, err := lease.Dial(ctx, lease.Config{
			Endpoints: c.Endpoints, CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key, Instance: c.Name, Region: c.Region,
			AttemptTimeout: time.Second, CallTimeout: 5 * time.Second,
		})
		if err == nil {
			return client
		}
		fmt.Fprintln(os.Stderr, "dial:", err)
	}
	return nil
}

// obey carries out commands until there are no more.
func (w *worker) obey() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, job, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case writer.Hold:
			select {
			case <-w.goOn: // of an earlier time, when nothing waited
			default:
			}
			w.setHold(job)
		case writer.Go:
			w.setHold("")
			select {
			case w.goOn <- struct{}{}:
			default: // it was told already
			}
		}
	}
	close(w.goOn)
}

func (w *worker) setHold(job string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = job
}

// held tells, once, whether a slot of a job is to wait.
func (w *worker) held(job string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hold != job {
		return false
	}
	w.hold = ""
	return true
}

func (w *worker) say(s writer.Said) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Writer = w.config.Name
	if err := w.out.Encode(s); err != nil {
		panic(err) // what nobody hears of must not happen
	}
}

// draw returns a name for a run, and how long it takes.
func (w *worker) draw() (run string, work time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	return fmt.Sprintf("%s#%d", w.config.Name, w.count), time.Duration(w.rng.Int64N(int64(slotWork)))
}

// tick runs a slot.
func (w *worker) tick(ctx context.Context, job slots.Job, t singleton.Tick) error {
	term, ok := singleton.FromContext(ctx)
	if !ok {
		return singleton.ErrNoTerm
	}
	run, work := w.draw()
	row := slots.Effect{Kind: slots.Began, ID: t.ID, Run: run, Token: term.Token, Attempt: t.Attempt}
	written, _, err := w.write(ctx, job, term, row)
	if err != nil || !written {
		return err // or the slot has had its effect
	}
	if w.held(job.Name) {
		w.say(writer.Said{Kind: writer.Read, Token: term.Token, Element: t.ID})
		<-w.goOn
	}
	wait.For(context.WithoutCancel(ctx), work)
	row.Kind = slots.Ended
	w.say(writer.Said{Kind: writer.Put, Token: term.Token, Element: t.ID})
	_, tries, err := w.write(ctx, job, term, row)
	done := writer.Said{Kind: writer.Done, Token: term.Token, Element: t.ID, Outcome: appends.Acked}
	switch stale := errors.Is(err, fence.ErrStale); {
	case stale && tries == 1:
		done.Outcome, done.Detail = appends.Refused, fence.ReasonStaleToken
	case stale: // an earlier try may have been committed
		done.Outcome, done.Detail = appends.Unknown, fence.ReasonStaleToken
	case err != nil:
		done.Outcome, done.Detail = appends.Unknown, "failed"
	}
	w.say(done)
	return err
}

// write writes a row until that succeeds, or is refused for good; while it fails otherwise, for as long as ctx lasts. It
// tells whether the row is the run's own, since that of the beginning is not written if the slot has had its effect, and how
// often it has tried.
func (w *worker) write(ctx context.Context, job slots.Job, term singleton.Term, row slots.Effect) (written bool, tries int, err error) {
	own := context.WithoutCancel(ctx)
	for try := 0; ; try++ {
		do := func(tx pgx.Tx) error {
			written, err = row.Insert(own, tx, job.Table, try > 0)
			return err
		}
		if job.Fenced {
			err = w.fenced.Run(own, term.Write(), pgx.TxOptions{}, do)
		} else {
			err = pgx.BeginFunc(own, w.pool, do)
		}
		if err == nil || errors.Is(err, fence.ErrStale) {
			return written, try + 1, err
		}
		fmt.Fprintln(os.Stderr, "write:", err)
		if !wait.For(ctx, slotPause) {
			return false, try + 1, err
		}
	}
}
