package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence/pgprograms"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Quorum is what the story needs of the quorum beside its API.
type Quorum interface {
	// Coordinator names the region that decides; empty while the nodes do not agree.
	Coordinator() string
	// Protect has every grant of a resource under the prefix proved by its guards, which refuse without the quorum.
	Protect(ctx context.Context, prefix string) error
	// StopRegion stops the node of a region.
	StopRegion(ctx context.Context, region string) error
}

// Stage is where the story is told.
type Stage struct {
	Out io.Writer
	// Dir takes the files of storage and guard.
	Dir    string
	Quorum Quorum
	// Regions are in the order of the endpoints below.
	Regions []string
	// Database is one that was started for this story; nil: none is wanted.
	Database *Database
	// ReadyAfter is how long the quorum took to start.
	ReadyAfter time.Duration
	// Holder is the environment, and the others are the configurations, by which they reach the quorum.
	Holder       []string
	Rival, Guard lease.Config
}

const (
	resource = "demo/ledger"
	ttl      = 3 * time.Second
	// limit bounds the story.
	limit = 2 * time.Minute
	// slack is what a step may take beyond what it has to wait for.
	slack = 10 * time.Second
	// noticed is how soon a holder knows, once it runs again, that its lease is lost.
	noticed = time.Second
)

// ErrBroken says that a step did not go as promised.
var ErrBroken = errors.New("not everything went as promised")

// teller is a story under way.
type teller struct {
	Stage
	clock   clock.Clock
	began   clock.Instant
	results []result

	store  *store
	front  *front
	dsn    string // of the database; empty: there is none
	holder *process
	rival  *lease.Client
	writer *writer // the rival's

	first, second fence.Token
	hold          *lease.Hold   // of the rival
	taken         []string      // lines
	late          outcome       // of the holder's write after its pause
	believedUntil clock.Instant // the paused holder believes at least until then
	pausedAt      clock.Instant
	resumedAt     clock.Instant
}

func newTeller(stage Stage) *teller {
	t := &teller{Stage: stage, clock: clock.System()}
	t.began = t.clock.Now()
	return t
}

// step is one promise: run does what it says and answers what was seen, with an error if that is not what was promised.
type step struct {
	name, promise string
	run           func(context.Context) (seen string, err error)
}

// Tell tells the story. The error is ErrBroken if a step did not go as promised; the table then shows which.
func Tell(ctx context.Context, stage Stage) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the demo took longer than %v", limit))
	defer cancel()
	t := newTeller(stage)
	t.say("A quorum of %d regions (%s) is ready after %v. %s decides at the moment.",
		len(t.Regions), strings.Join(t.Regions, ", "), t.ReadyAfter, t.Quorum.Coordinator())
	defer func() {
		if closeErr := t.close(); err == nil {
			err = closeErr
		}
	}()
	if err := t.setUp(ctx); err != nil {
		return err
	}
	good := t.play(ctx)
	_, err = fmt.Fprintln(t.Out)
	err = errors.Join(err, writeTable(t.Out, t.results))
	if !good {
		return errors.Join(err, ErrBroken)
	}
	return err
}

// setUp makes the storage, the guard before it, and those who write.
func (t *teller) setUp(ctx context.Context) (err error) {
	if t.store, err = newStore(filepath.Join(t.Dir, "ledger")); err != nil {
		return err
	}
	if err := t.Quorum.Protect(ctx, resource); err != nil {
		return err
	}
	// It begins at the node that is going to be stopped.
	if t.front, err = newFront(t.Dir, t.store.url(), startingAt(t.Guard, t.Regions, t.Quorum.Coordinator())); err != nil {
		return err
	}
	settled := t.clock.Now().Add(guardSlack)
	if err := t.awaitGuard(ctx); err != nil {
		return err
	}
	t.say("The storage is a file behind HTTP that knows nothing of tokens. Before it stands the guard %s, enrolled at %s.",
		guardName, t.region(t.front.node()))
	if err := t.setUpDatabase(ctx); err != nil {
		return err
	}
	// A guard with a new file does not know that there was none before it, and counts W for what that may have let through.
	if err := t.pass(ctx, settled); err != nil {
		return err
	}
	if t.rival, err = lease.Dial(ctx, t.Rival); err != nil {
		return err
	}
	if t.writer, err = newWriter(ctx, "rival", t.front.url(), t.dsn); err != nil {
		return err
	}
	holder, err := startHolder(ctx, t.Holder, t.front.url(), t.dsn)
	if err == nil {
		t.holder = holder
	}
	return err
}

// awaitGuard waits until the quorum has told the guard what it has to know.
func (t *teller) awaitGuard(ctx context.Context) error {
	ctx, done := context.WithTimeoutCause(ctx, slack, fmt.Errorf("it took longer than %v", slack))
	defer done()
	if err := t.await(ctx, "the guard", func() bool { return t.front.why() == nil }); err != nil {
		return errors.Join(err, t.front.why())
	}
	return nil
}

// setUpDatabase sees whether there is one. The story can be told without.
func (t *teller) setUpDatabase(ctx context.Context) error {
	if t.Database == nil {
		t.say("PostgreSQL is left out.")
		return nil
	}
	switch err := t.Database.ready(ctx); {
	case err == nil:
		t.dsn = t.Database.dsn(databaseRole)
		t.say("The same lines go into a table of PostgreSQL %s, which a trigger protects.", t.Database.version)
	case ctx.Err() != nil:
		return err
	case errors.Is(err, pgprograms.ErrMissing):
		t.say("PostgreSQL is not installed here (15 or newer): the story goes on without.")
	default:
		t.say("PostgreSQL does not start: %s. The story goes on without.", oneLine(err))
	}
	return nil
}

// close ends what setUp has made, the writers first.
func (t *teller) close() error {
	var all error
	if t.holder != nil {
		t.holder.end(slack)
	}
	if t.writer != nil {
		t.writer.close(context.Background())
	}
	if t.rival != nil {
		all = errors.Join(all, t.rival.Close())
	}
	if t.front != nil {
		all = errors.Join(all, t.front.close())
	}
	if t.store != nil {
		all = errors.Join(all, t.store.close())
	}
	return all
}

// play takes one step after the other, until one does not go as promised.
func (t *teller) play(ctx context.Context) (good bool) {
	good = true
	for i, s := range t.steps() {
		if !good {
			t.results = append(t.results, result{s.name, s.promise, "not reached", false})
			continue
		}
		t.say("%d. %s.", i+1, s.name)
		stepCtx, done := context.WithTimeoutCause(ctx, ttl+slack, fmt.Errorf("it took longer than %v", ttl+slack))
		seen, err := s.run(stepCtx)
		done()
		if good = err == nil; !good {
			seen = strings.TrimPrefix(seen+"; ", "; ") + oneLine(err)
		}
		t.say("   %s.", seen)
		t.results = append(t.results, result{s.name, s.promise, seen, good})
	}
	return good
}

// hasRows says whether there is a database.
func (t *teller) hasRows() bool { return t.dsn != "" }

// region is that of an endpoint; empty: of none.
func (t *teller) region(endpoint string) string {
	if i := slices.Index(t.Guard.Endpoints, endpoint); i >= 0 && i < len(t.Regions) {
		return t.Regions[i]
	}
	return ""
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// say prints a line with the time since the story began.
func (t *teller) say(format string, args ...any) {
	at := t.clock.Now().Sub(t.began).Seconds()
	_, _ = fmt.Fprintf(t.Out, "%6.2f s  %s\n", at, fmt.Sprintf(format, args...)) // a reader that has gone misses it
}

// round makes a measured duration readable.
func round(d time.Duration) time.Duration {
	if d < 100*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
