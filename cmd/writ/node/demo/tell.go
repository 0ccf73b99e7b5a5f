package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Quorum is what the story needs of the quorum beside its API.
type Quorum interface {
	// Coordinator names the region that decides; empty while the nodes do not agree.
	Coordinator() string
	// StopRegion stops the node of a region.
	StopRegion(ctx context.Context, region string) error
}

// Stage is where the story is told.
type Stage struct {
	Out io.Writer
	// Dir takes the file of the storage.
	Dir     string
	Quorum  Quorum
	Regions []string
	// ReadyAfter is how long the quorum took to start.
	ReadyAfter time.Duration
	// Holder is the environment, and Rival the configuration, by which the two reach the quorum.
	Holder []string
	Rival  lease.Config
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

	storage *storage
	holder  *process
	rival   *lease.Client

	first, second fence.Token
	hold          *lease.Hold   // of the rival
	believedUntil clock.Instant // the paused holder believes at least until then
	pausedAt      clock.Instant
	resumedAt     clock.Instant
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
	t := &teller{Stage: stage, clock: clock.System()}
	t.began = t.clock.Now()
	t.say("A quorum of %d regions (%s) is ready after %v. %s decides at the moment.",
		len(t.Regions), strings.Join(t.Regions, ", "), t.ReadyAfter, t.Quorum.Coordinator())
	if t.storage, err = newStorage(filepath.Join(t.Dir, "ledger")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.storage.close()) }()
	if t.rival, err = lease.Dial(ctx, t.Rival); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.rival.Close()) }()
	if t.holder, err = startHolder(ctx, t.Holder, resource, t.storage.url(), ttl); err != nil {
		return err
	}
	defer t.holder.end(slack)
	t.say("The storage is a file that compares tokens: a stand-in for a guard.")

	good := true
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
			seen = strings.TrimPrefix(seen+"; ", "; ") + strings.Join(strings.Fields(err.Error()), " ")
		}
		t.say("   %s.", seen)
		t.results = append(t.results, result{s.name, s.promise, seen, good})
	}
	_, err = fmt.Fprintln(t.Out)
	err = errors.Join(err, writeTable(t.Out, t.results))
	if !good {
		return errors.Join(err, ErrBroken)
	}
	return err
}

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
