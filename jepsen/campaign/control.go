//go:build linux

package campaign

import (
	"cmp"
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/choice"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/nemesis"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// Control is a run that breaks a promise on purpose: it must be found invalid.
type Control struct {
	Name string
	// Doc is a sentence for people.
	Doc string
	// program is what it needs beside Writ and Guard; nil: nothing.
	program *program
	build   func(Config) lab.Config
	// breaks is what has to be found invalid; the zero value: the writes of [workload.Appends].
	breaks record.Check
	// harm is done in rounds of the workload; nil: aimed strikes again and again, "hold-writer" if empty. Either until that has shown.
	harm  *nemesis.Kind
	aimed string
	// local has the clients read nodes' own state.
	local bool
}

// controlTime bounds the faults of a control. What it shows takes seconds. controlRound is how long a round of one lasts.
const controlTime, controlRound = 90 * time.Second, 5 * time.Second

// Controls are all controls.
var Controls = choice.Set[Control]{
	All:  controls,
	Tell: func(c Control) (name, doc string) { return c.Name, c.Doc },
}

var controls = []Control{
	{
		Name: "unguarded", Doc: "the guards let everything pass: a writer that was paused writes late",
		build: func(c Config) lab.Config {
			return lab.Config{Writ: c.Writ, Guard: c.Guard, Unguarded: true, Writers: 2}
		},
	},
	{
		Name: "etcd-mutex", Doc: "writers lock by etcd's concurrency.Mutex, and nothing fences the store: one that was paused writes late",
		program: &etcd,
		build:   func(c Config) lab.Config { return lab.Config{Etcd: c.Etcd, Writers: 2} },
	},
	{
		Name: "floors-in-memory", Doc: "guards keep their floors in memory alone: one that was started again lets a writer that was paused write late",
		aimed:   "zombie-forgotten",
		program: &forgetfulGuard,
		build: func(c Config) lab.Config {
			return lab.Config{Writ: c.Writ, Guard: c.ForgetfulGuard, Writers: 2}
		},
	},
	{
		Name: "unfenced-singletons", Doc: "PostgreSQL compares no tokens: a process that was paused in the middle of a slot doubles its effect",
		breaks: record.Check{Workload: workload.Singletons, Check: "every slot once"},
		build: func(c Config) lab.Config {
			return lab.Config{Writ: c.Writ, Guard: c.Guard, Unfenced: true, Services: book.New()}
		},
	},
	{
		Name: "serialisable-reads", Doc: "clients take what a node knows for what is: reads that are answered from a node's own state are old at times",
		breaks: record.Check{Workload: "register", Check: "linearizable"}, harm: &nemesis.Stale, local: true,
		build: func(c Config) lab.Config {
			return lab.Config{Writ: c.Writ, Guard: c.Guard, Clients: []string{workload.Client}}
		},
	},
	{
		Name: "no-fsync", Doc: "the disks of all nodes acknowledge what they do not keep, and lose their power at once: so do the witnesses that would notice one of them",
		breaks: record.Check{Workload: "counter", Check: "nothing lost"}, harm: &nemesis.Lies,
		build: func(c Config) lab.Config {
			return lab.Config{Writ: c.Writ, Guard: c.Guard, Disks: true, Clients: []string{workload.Client}}
		},
	},
}

// program is one of a run.
type program struct {
	field string // of Config
	path  func(*Config) *string
	build func(ctx context.Context, dir string) (path string, err error)
}

var (
	writ           = program{"Writ", func(c *Config) *string { return &c.Writ }, cluster.Build}
	guard          = program{"Guard", func(c *Config) *string { return &c.Guard }, cluster.BuildGuard}
	etcd           = program{"Etcd", func(c *Config) *string { return &c.Etcd }, cluster.BuildEtcd}
	forgetfulGuard = program{"ForgetfulGuard", func(c *Config) *string { return &c.ForgetfulGuard }, cluster.BuildForgetfulGuard}
)

// programs are those that the run and its controls need.
func (c *Config) programs() []program {
	all := []program{writ, guard}
	for _, control := range c.Controls {
		if control.program != nil {
			all = append(all, *control.program)
		}
	}
	return all
}

// Build builds the programs that are needed and have no path yet into dir.
func (c *Config) Build(ctx context.Context, dir string) error {
	for _, p := range c.programs() {
		path := p.path(c)
		if *path != "" {
			continue
		}
		var err error
		if *path, err = p.build(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// control runs one.
func (c Config) control(ctx context.Context, control Control) error {
	kinds, err := nemesis.Kinds.Named(cmp.Or(control.aimed, "hold-writer"))
	if err != nil {
		return err
	}
	if control.harm != nil {
		kinds = []nemesis.Kind{*control.harm}
	}
	breaks := cmp.Or(control.breaks, record.Check{Workload: workload.Appends, Check: "S2 and S3"})
	works, err := workload.Kinds.Named(breaks.Workload)
	if err != nil {
		return err
	}
	s := &stage{config: c, dir: filepath.Join(c.Dir, record.ControlsDir, control.Name)}
	run := record.Run{
		Name: control.Name, Control: true, Breaks: &breaks, FaultsMS: controlTime.Milliseconds(), Workloads: workload.Kinds.Names(works), Nemeses: nemesis.Kinds.Names(kinds),
	}
	if control.harm == nil {
		return s.perform(ctx, run, control.build(c), func(ctx context.Context) error { return s.hold(ctx, works[0], kinds[0]) })
	}
	s.local, s.config.Workloads, s.config.Always, s.config.Nemeses, s.config.Time = control.local, works, kinds, nil, controlTime
	return s.perform(ctx, run, control.build(c), func(ctx context.Context) error {
		return s.rounds(ctx, controlRound, func() (bool, error) { return s.found(works[0], breaks) })
	})
}

// found tells whether what a control breaks shows in the record of the rounds so far.
func (s *stage) found(work workload.Kind, breaks record.Check) (bool, error) {
	h, err := record.Read(s.dir)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(work.Check(h), func(j verdict.Judgement) bool {
		return j.Check == breaks.Check && j.Verdict == verdict.Invalid
	}), nil
}

// hold has a nemesis strike, which has a writer stand still between reading and writing until it has lost its lock, again and
// again until that shows.
func (s *stage) hold(ctx context.Context, work workload.Kind, holding nemesis.Kind) error {
	w, err := work.Start(workload.World{Lab: s.lab, Record: s.record, Seed: s.config.Seed})
	if err != nil {
		return err
	}
	s.record.Round([]string{holding.Name})
	harming, cancel := context.WithTimeout(ctx, controlTime)
	defer cancel()
	rng := rand.New(rand.NewPCG(s.config.Seed, 0))
	for harming.Err() == nil {
		if caught, err := s.caught(ctx, w); err != nil {
			return err
		} else if caught {
			break
		}
		if err := s.field.Strike(harming, holding, rng); err != nil {
			return err
		}
	}
	s.record.Healed()
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer stop()
	return w.Close(closing)
}

// caught tells whether what was seen so far breaks a promise.
func (s *stage) caught(ctx context.Context, w workload.Workload) (bool, error) {
	if c, ok := w.(workload.Catcher); ok {
		return c.Caught(ctx)
	}
	return s.lab.Book.Judge() != nil, nil
}
