package sim

import (
	"errors"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
)

// watcher follows resources through one node after the other.
type watcher struct {
	run     *run
	spec    plan.Watcher
	process *world.Process
	dice    *world.Dice
	nodes   []*node
	tour    int
	judge   *judge.Watch
	token   string // to resume behind; empty: none
	resumed bool   // the stream was asked to go on behind a token, and has told nothing yet
	stream  *stream
	heard   time.Duration // when something came last
	napping bool

	// told hears what is told, if somebody does; partial: a state was told in part.
	told    func(lease.WatchEvent)
	partial bool
}

// stream is one watch at one node: the node tells, and the watcher hears it in order or not at all.
type stream struct {
	watcher *watcher
	node    *node
	at      quorum.Resume // the node's side: what has been sent
	stop    func()
	sent    uint64                       // numbers events
	got     uint64                       // the last one that was heard
	early   map[uint64]quorum.WatchEvent // overtook one that is still on its way, or lost
	begun   bool
	anew    bool // its history has ended; the state of another one is to be told
	broken  bool
}

func newWatcher(r *run, spec plan.Watcher) *watcher {
	w := &watcher{run: r, spec: spec, process: r.world.NewProcess(spec.Name, spec.Region, 0), dice: r.world.Dice("watcher " + spec.Name)}
	w.nodes = r.nearest(w.process)
	w.judge = r.judge.Watch(spec.Name, spec.Prefix)
	return w
}

// newFollower makes a watcher that is a part of a process, which begins it in each life.
func newFollower(r *run, p *world.Process, prefix string, told func(lease.WatchEvent)) *watcher {
	name := p.Name + " following " + prefix
	w := &watcher{run: r, spec: plan.Watcher{Name: name, Region: p.Region, Prefix: prefix}, process: p, told: told}
	w.nodes = r.nearest(p)
	w.judge = r.judge.Watch(name, prefix)
	w.connect()
	w.listen()
	return w
}

func (w *watcher) start() {
	if w.process.Up() {
		return
	}
	w.process.Start()
	w.token = ""
	w.connect()
	w.wander()
	w.listen()
}

func (w *watcher) crash() {
	w.leave()
	w.process.Crash()
}

// wander changes the node now and then, at times after a nap that may be longer than history is kept.
func (w *watcher) wander() {
	w.process.After(w.dice.About(max(w.spec.Stay, time.Second)), func() {
		if w.run.healing {
			return
		}
		if w.dice.Chance(150) {
			w.leave()
			w.napping = true
			w.process.After(w.dice.Between(time.Second, 2*compactEvery), func() {
				w.wake()
				w.wander()
			})
			return
		}
		w.reconnect()
		w.wander()
	})
}

// listen leaves a node that has gone silent.
func (w *watcher) listen() {
	w.process.After(time.Second, func() {
		s, silent := w.stream, w.run.world.Now()-w.heard
		if !w.napping && (s == nil || s.broken || silent > 3*watchProgress || len(s.early) > 0 && silent > time.Second) {
			w.reconnect()
		}
		w.listen()
	})
}

// wake ends a nap.
func (w *watcher) wake() {
	if w.napping {
		w.napping = false
		w.reconnect()
	}
}

func (w *watcher) leave() {
	if w.stream != nil {
		w.stream.broken = true
		if w.stream.stop != nil {
			w.stream.stop()
		}
		w.stream = nil
	}
}

func (w *watcher) reconnect() {
	w.leave()
	w.tour++
	w.connect()
}

// connect asks a node to tell what comes behind the token, or everything.
func (w *watcher) connect() {
	n := w.nodes[w.tour%len(w.nodes)]
	s := &stream{watcher: w, node: n}
	w.stream, w.heard = s, w.run.world.Now()
	token := w.token
	w.resumed = token != ""
	if w.partial {
		w.partial = false
		w.told(lease.WatchEvent{Kind: lease.EventResync})
	}
	w.run.net.Send(w.process, n.process, func() { n.watch(s, token) })
}

// watchProgress is how often an idle stream is told that it lives.
const watchProgress = 2 * time.Second

// watch begins to tell a stream, as quorum.Service.Watch does.
func (n *node) watch(s *stream, token string) {
	if s.begun { // the packet came twice
		return
	}
	s.begun = true
	n.streams = append(n.streams, s)
	n.fresh(func(ok bool) {
		if !ok || s.broken {
			s.broken = true
			return
		}
		at, err := quorum.ParseResume(token)
		switch {
		case token == "":
			n.tellState(s, false)
		case err != nil:
			n.run.violation("S10", "a watcher was given an unusable token: "+err.Error())
		case at.Continues(n.image.Identity(), n.image.Revision()):
			n.run.mark(MarkWatchResumed)
			s.at = at
			n.follow(s)
		default:
			n.tellState(s, true)
		}
	})
	n.idle(s)
}

func (n *node) idle(s *stream) {
	n.process.After(watchProgress, func() {
		if !s.broken {
			s.send(quorum.WatchEvent{Kind: quorum.WatchProgress})
			n.idle(s)
		}
	})
}

// tellState tells the present state, and goes on from there.
func (n *node) tellState(s *stream, resync bool) {
	if resync {
		n.run.mark(MarkWatchResync)
	}
	at, err := quorum.TellState(n.image, s.watcher.spec.Prefix, resync, func(ev quorum.WatchEvent) error {
		s.send(ev)
		return nil
	})
	if err != nil {
		n.run.violation("S10", err.Error())
		return
	}
	s.at = at
	n.follow(s)
}

// follow tells every change behind where the stream is.
func (n *node) follow(s *stream) {
	s.stop = n.member.Watch(s.at.From(), func(c quorum.Change) {
		if s.broken || s.anew {
			return
		}
		events, err := quorum.Tell(c, s.watcher.spec.Prefix, s.at)
		for _, ev := range events {
			s.send(ev)
		}
		switch {
		case err != nil && quorum.BeginsAnew(err):
			s.anew = true
			n.process.After(0, func() { n.again(s) })
		case err != nil:
			n.run.violation("S10", err.Error())
		default:
			s.at = s.at.After(c)
		}
	}, func(err error) {
		if errors.Is(err, quorum.ErrCompacted) && !s.anew {
			s.anew = true
			n.process.After(0, func() { n.again(s) })
			return
		}
		s.broken = true
	})
}

// again begins a stream anew whose history has ended.
func (n *node) again(s *stream) {
	if s.broken {
		return
	}
	if s.stop != nil {
		s.stop()
	}
	n.fresh(func(ok bool) {
		if !ok {
			s.broken = true
			return
		}
		s.anew = false
		n.tellState(s, true)
	})
}

// send carries an event to the watcher, which hears events in order. One that is lost stops the stream, until the watcher
// leaves it.
func (s *stream) send(ev quorum.WatchEvent) {
	s.sent++
	number, w := s.sent, s.watcher
	w.run.net.Send(s.node.process, w.process, func() {
		if w.stream != s || s.broken || number <= s.got {
			return
		}
		if number != s.got+1 {
			if s.early == nil {
				s.early = make(map[uint64]quorum.WatchEvent)
			}
			s.early[number] = ev
			return
		}
		for ok := true; ok && w.stream == s; ev, ok = s.early[s.got+1] {
			s.got++
			delete(s.early, s.got)
			w.hear(ev)
		}
	})
}

func (w *watcher) hear(ev quorum.WatchEvent) {
	w.heard = w.run.world.Now()
	switch ev.Kind {
	case quorum.WatchSynced:
		if ev.Resume == "" {
			return // the quorum has no incarnation yet: its first one begins the state anew
		}
		at, err := quorum.ParseResume(ev.Resume)
		if err != nil {
			w.run.violation("S10", err.Error())
			return
		}
		w.judge.Synced(at.Revision)
	case quorum.WatchChanged, quorum.WatchRemoved:
		w.judge.Told(ev)
	case quorum.WatchState, quorum.WatchResync, quorum.WatchProgress:
	}
	if ev.Kind == quorum.WatchProgress {
		return
	}
	if w.resumed && (ev.Kind == quorum.WatchState || ev.Kind == quorum.WatchSynced) {
		w.run.violation("S10", w.spec.Name+" resumed behind a token, and was told a whole state without a word that the history in between is missing")
	}
	w.resumed = false
	if ev.Resume != "" {
		w.token = ev.Resume
	}
	if w.told != nil {
		w.partial = ev.Kind == quorum.WatchState || w.partial && ev.Kind != quorum.WatchSynced
		w.told(lease.WatchEvent{Kind: watchKinds[ev.Kind], Info: ev.Lease, ResumeToken: ev.Resume})
	}
}

// watchKinds are the kinds of events as lease.Client hears of them.
var watchKinds = map[quorum.WatchKind]lease.EventKind{
	quorum.WatchState: lease.EventState, quorum.WatchSynced: lease.EventSynced, quorum.WatchChanged: lease.EventChanged,
	quorum.WatchRemoved: lease.EventRemoved, quorum.WatchResync: lease.EventResync,
}
