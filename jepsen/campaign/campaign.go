//go:build linux

package campaign

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/nemesis"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/wait"
	"github.com/writ-io/writ/jepsen/workload"
)

// RoundTime is how long the faults of a round last.
const RoundTime = 20 * time.Second

const (
	// patience bounds every wait for what must happen: starts, and ends of processes that are killed, on a busy disk.
	patience = 2 * time.Minute
	look     = 50 * time.Millisecond
)

// Config says what to run. Dir is mandatory, and so are the programs, which Build builds.
type Config struct {
	// Dir is where the records go.
	Dir string
	// Time is for how long faults happen in all; a round more is not begun when it is over.
	Time      time.Duration
	Seed      uint64
	Workloads []workload.Kind
	Nemeses   []nemesis.Kind
	// Always are nemeses that do harm in every round, beside those that are drawn from Nemeses.
	Always   []nemesis.Kind
	Controls []Control
	// Matrix is how far the regions of the run are from each other; those of controls are in one place.
	Matrix lab.Matrix
	// Writ and Guard are the programs, Etcd and ForgetfulGuard those of controls alone, see package cluster.
	Writ, Guard, Etcd, ForgetfulGuard string
	// Previous are the programs of the previous release, which nodes and guards are started as then.
	Previous lab.Release
	// Command is what was typed, for the record.
	Command []string
	// Progress is told what goes on, for people. Nil: nobody is.
	Progress io.Writer
}

// Validate names the first field that cannot be.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("campaign: Dir is missing: name a directory for the record")
	case c.Time < time.Second || c.Time > 24*time.Hour:
		return fmt.Errorf("campaign: Time is %v: give from 1s to 24h", c.Time)
	case len(c.Workloads) == 0:
		return errors.New("campaign: Workloads is empty: name at least one")
	}
	for _, p := range c.programs() {
		if *p.path(&c) == "" {
			return fmt.Errorf("campaign: %s is missing: give the path of the program, or have it built", p.field)
		}
	}
	return nil
}

// Run carries out the controls and the run. An error says that there is no record to judge; what else goes wrong is in the
// record. When ctx ends, so does the run, and its record says that it was interrupted.
func Run(ctx context.Context, config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	if config.Progress == nil {
		config.Progress = io.Discard
	}
	if _, err := os.Stat(filepath.Join(config.Dir, record.RunFile)); err == nil {
		return fmt.Errorf("campaign: %s holds a run already: name another directory", config.Dir)
	}
	leftOut := make(map[string]string)
	config.Nemeses = supported(config, leftOut)
	for _, control := range config.Controls {
		if ctx.Err() != nil {
			break
		}
		if control.harm != nil && control.harm.Supported != nil {
			if err := control.harm.Supported(); err != nil {
				config.leaveOut(leftOut, control.Name, err)
				continue
			}
		}
		if err := config.control(ctx, control); err != nil {
			return fmt.Errorf("campaign: control %s: %w", control.Name, err)
		}
	}
	parts := lab.Config{
		Writ: config.Writ, Guard: config.Guard, Previous: config.Previous, Writers: 2, Clients: []string{workload.Client}, Matrix: config.Matrix,
	}
	for _, k := range config.Workloads {
		if k.Needs != nil {
			k.Needs(&parts)
		}
	}
	for _, k := range slices.Concat(config.Always, config.Nemeses) {
		if k.Needs != nil {
			k.Needs(&parts)
		}
	}
	s := &stage{config: config, dir: config.Dir}
	return s.perform(ctx, record.Run{
		Name: "run", Controls: Controls.Names(config.Controls), LeftOut: leftOut, FaultsMS: config.Time.Milliseconds(), Workloads: workload.Kinds.Names(config.Workloads), Nemeses: nemesis.Kinds.Names(slices.Concat(config.Always, config.Nemeses)),
	}, parts, func(ctx context.Context) error { return s.rounds(ctx, RoundTime, nil) })
}

// supported are the nemeses that this machine can have. The others are left out.
func supported(config Config, leftOut map[string]string) (kinds []nemesis.Kind) {
	for _, k := range config.Nemeses {
		var err error
		if k.Previous && config.Previous.Writ == "" {
			err = errors.New("there is no previous release")
		} else if k.Supported != nil {
			err = k.Supported()
		}
		if err != nil {
			config.leaveOut(leftOut, k.Name, err)
			continue
		}
		kinds = append(kinds, k)
	}
	return kinds
}

// leaveOut notes what is left out, and says so.
func (c Config) leaveOut(leftOut map[string]string, name string, why error) {
	leftOut[name] = why.Error()
	_, _ = fmt.Fprintf(c.Progress, "%s is left out: %v\n", name, why)
}

// stage is a lab with its record.
type stage struct {
	config Config
	dir    string
	lab    *lab.Lab
	record *record.Writer
	field  *nemesis.Field
	turn   int // of the swarms
	local  bool
}

// perform builds the lab, has the play played, and takes everything down.
func (s *stage) perform(ctx context.Context, run record.Run, config lab.Config, play func(context.Context) error) (err error) {
	run.Seed, run.Began, run.Command, run.Versions = s.config.Seed, time.Now().UTC(), s.config.Command, versions(s.config)
	run.Matrix, run.Pace = config.Matrix.Name, config.Matrix.Pace
	run.Topology, run.Problems = (&lab.Lab{Config: config}).Parties(), []record.Problem{}
	if s.record, err = record.Create(s.dir, run); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.record.Close()) }()
	config.Dir, config.Seed = filepath.Join(s.dir, "work"), s.config.Seed
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return err
	}
	b := book.New()
	workload.Listen(b, workload.Appends, s.record)
	workload.Attend(config, s.record)
	starting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.say("%s: starting the lab", run.Name)
	if s.lab, err = lab.Start(starting, config, b); err != nil {
		return err
	}
	s.field = &nemesis.Field{Lab: s.lab, Log: s.record, Paused: func(span time.Duration) { workload.Paused(s.record, span) }}
	failed := play(ctx)
	if ctx.Err() != nil {
		s.record.Problem(record.Problem{Text: "interrupted"})
	} else if failed != nil {
		s.record.Problem(record.Problem{Text: failed.Error()})
	}
	s.lab.Dismiss() // also those that no workload is about, for what they were told from now on the audit log would not know
	if s.lab.Nodes != nil {
		s.keepAudit(ctx)
	}
	for _, b := range []*book.Book{b, config.TableWriters, config.Services, config.Pair} {
		if b == nil {
			continue
		}
		if err := b.Err(); err != nil {
			s.record.Problem(record.Problem{Text: err.Error()})
		}
	}
	if err := s.lab.Check(); err != nil {
		s.record.Problem(record.Problem{Broken: true, Text: err.Error()})
	}
	return errors.Join(s.lab.Close(), s.keepLogs())
}

// keepAudit exports the audit log into the record.
func (s *stage) keepAudit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := s.lab.ExportAudit(ctx, filepath.Join(s.dir, record.AuditFile)); err != nil {
		s.record.Problem(record.Problem{Text: err.Error()})
	}
}

// keepLogs moves the logs into the record and removes what else the lab has left.
func (s *stage) keepLogs() error {
	for _, path := range s.lab.Logs() {
		if err := os.Rename(path, filepath.Join(s.record.Logs(), filepath.Base(path))); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.lab.Config.Dir)
}

func (s *stage) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.config.Progress, format+"\n", args...)
}

// rounds has the workloads at work, in rounds of faults that last for a while each, until their time is over or enough, which is
// asked after each of them, says so; nil never does.
func (s *stage) rounds(ctx context.Context, each time.Duration, enough func() (bool, error)) (err error) {
	for _, k := range s.config.Workloads {
		for _, op := range k.Reads {
			s.record.Reads(k.Name, op)
		}
	}
	world := workload.World{Lab: s.lab, Record: s.record, Seed: s.config.Seed, Local: s.local}
	var works []workload.Workload
	for _, k := range s.config.Workloads {
		w, err := k.Start(world)
		if err != nil {
			return err
		}
		works = append(works, w)
	}
	left, done := s.config.Time, false
	for left > 0 && !done && ctx.Err() == nil && err == nil {
		span := min(left, each)
		left -= span
		if err = s.round(ctx, works, span); err == nil && enough != nil {
			done, err = enough()
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for i, w := range works {
		// Nothing does harm any more, so what does not come to its end now has not recovered.
		if failed := w.Close(closing); failed != nil {
			s.record.Problem(record.Problem{Broken: ctx.Err() == nil, Text: fmt.Sprintf("the end of %s: %v", s.config.Workloads[i].Name, failed)})
		}
	}
	return err
}

// round has faults for a while, heals them, and waits until work goes on.
func (s *stage) round(ctx context.Context, works []workload.Workload, span time.Duration) error {
	swarm := s.swarm()
	number := s.record.Round(nemesis.Kinds.Names(swarm))
	s.say("round %d: %v of %v", number, span, nemesis.Kinds.Names(swarm))
	working, rest := context.WithCancel(ctx)
	defer rest()
	var running sync.WaitGroup
	failures := make([]error, len(works))
	for i, w := range works {
		running.Go(func() { failures[i] = w.Run(working, number) })
	}
	harming, heal := context.WithTimeout(ctx, span)
	err := s.field.Run(harming, swarm, s.config.Seed+uint64(number))
	heal()
	if err != nil {
		s.record.Problem(record.Problem{Broken: true, Text: err.Error()})
	}
	if err == nil {
		err = s.healed(ctx)
	}
	rest()
	running.Wait()
	s.countGoroutines(ctx)
	return errors.Join(append(failures, err)...)
}

// countGoroutines notes how many goroutines processes have when little is asked of them. One that does not answer is left to the
// next round.
func (s *stage) countGoroutines(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	counts, err := s.lab.Goroutines(ctx)
	if err != nil {
		return
	}
	for _, party := range slices.Sorted(maps.Keys(counts)) {
		s.record.Goroutines(party, counts[party])
	}
}

// swarm draws who does harm in the next round.
func (s *stage) swarm() []nemesis.Kind {
	s.turn++
	return slices.Concat(s.config.Always, nemesis.Swarm(s.config.Seed, s.config.Nemeses, s.turn))
}

// healed waits until every workload has succeeded or its bound is over, and until every process serves again. Faults are over
// when processes run and reach each other, however long they need then.
func (s *stage) healed(ctx context.Context) error {
	s.lab.Net.Heal()
	since := s.record.Healed()
	ready, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := errors.Join(s.lab.Nodes.AwaitReady(ready), s.lab.AwaitGuards(ready)); err != nil {
		s.record.Problem(record.Problem{Broken: true, Text: err.Error()})
		return err
	}
	for _, k := range s.config.Workloads {
		for s.record.Succeeded(k.Name) < since && s.record.Now() < since+k.Bound+look && ctx.Err() == nil {
			wait.For(ctx, look)
		}
	}
	return nil
}

// versions are those of what is run. Programs are named by their hashes, which nobody can forget to change.
func versions(config Config) map[string]string {
	v := map[string]string{"go": runtime.Version(), "system": runtime.GOOS + "/" + runtime.GOARCH}
	if data, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		v["kernel"] = string(data[:max(0, len(data)-1)])
	}
	for name, path := range map[string]string{"writ": config.Writ, "writ-guard": config.Guard, "etcd": config.Etcd, "forgetful writ-guard": config.ForgetfulGuard,
		"previous writ": config.Previous.Writ, "previous writ-guard": config.Previous.Guard} {
		if data, err := os.ReadFile(path); err == nil {
			v[name] = fmt.Sprintf("sha256:%x", sha256.Sum256(data))
		}
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "go.etcd.io/etcd/client/v3", "github.com/anishathalye/porcupine":
			v[d.Path] = d.Version
		}
	}
	for _, set := range info.Settings {
		if set.Key == "vcs.revision" || set.Key == "vcs.modified" {
			v[set.Key] = set.Value
		}
	}
	return v
}
