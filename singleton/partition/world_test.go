package partition

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// world is a group whose machines are stepped by hand. Its quorum is a history of who holds what; a member sees a prefix of
// it, and what members ask for and are answered waits until the test lets it happen.
type world struct {
	t       fataler
	draw    *rapid.T // of the random world
	names   Names
	config  MachineConfig
	now     clock.Instant
	history []lease.WatchEvent
	holders map[string]*actor // by resource
	queues  map[string][]*actor
	actors  []*actor
	moved   int // grants of partitions
}

// actor is a member: its machine and what is on its way to and from it.
type actor struct {
	id      string
	homes   []string
	machine *Machine
	seen    int  // how much of the history it has seen
	gone    bool // it crashed: its leases run out
	frozen  bool // paused, or cut off
	done    bool
	// stubborn: its functions return only when their context has ended.
	stubborn bool
	wake     clock.Instant
	inbox    []Event
	// asks are requests on their way to the quorum, in order.
	asks []request
	// running are functions by partition: false until their context has ended or they were told to finish.
	running map[int]bool
	started map[int]bool // not released since
	workers map[int]*worker
}

// worker is one asking for a partition and what comes of it. The member has one for each partition, the newest.
type worker struct {
	granted, released bool
	lost              bool // its lease is over
	over              bool // it has said the last
}

type request struct {
	resource string
	kind     string // ask, cancel, release
	index    int    // of the partition; -1 for the member's own
	worker   *worker
}

// fataler is what rapid and testing have in common.
type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

func newWorld(t fataler, partitions int, homes []string) *world {
	names, err := NewNames("g")
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, names: names, now: 1, holders: make(map[string]*actor), queues: make(map[string][]*actor),
		config: MachineConfig{Names: names, Partitions: partitions, Homes: homes, Grace: 10 * time.Second, Retry: time.Second, Settle: time.Second, Pending: 3},
	}
}

// join starts one more member. A region is the letter before the dash of its name.
func (w *world) join(id string) *actor { return w.joinWith(id, w.config.Homes) }

// joinWith starts one whose program names other homes.
func (w *world) joinWith(id string, homes []string) *actor {
	cfg := w.config
	cfg.Self, cfg.Homes = id, homes
	machine, err := NewMachine(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	a := &actor{id: id, homes: homes, machine: machine, running: make(map[int]bool), started: make(map[int]bool), workers: make(map[int]*worker)}
	w.actors = append(w.actors, a)
	a.inbox = append(a.inbox, Watched{lease.WatchEvent{Kind: lease.EventResync}})
	w.resync(a)
	return a
}

// resync makes a member forget what it saw and see the present state, from which what is free has been removed.
func (w *world) resync(a *actor) {
	a.inbox = append(a.inbox, Watched{lease.WatchEvent{Kind: lease.EventResync}})
	latest := make(map[lease.Resource]lease.WatchEvent)
	for _, e := range w.history {
		latest[e.Info.Resource] = e
	}
	for _, resource := range sortedNames(latest) {
		if e := latest[resource]; e.Info.State == lease.Held {
			e.Kind = lease.EventState
			a.inbox = append(a.inbox, Watched{e})
		}
	}
	a.seen = len(w.history)
	a.inbox = append(a.inbox, Watched{lease.WatchEvent{Kind: lease.EventSynced}})
}

func sortedNames(m map[lease.Resource]lease.WatchEvent) []lease.Resource {
	var names []lease.Resource
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// hold commits who holds a resource; nil frees it, and hands it to whoever waits.
func (w *world) hold(resource string, a *actor) {
	before := w.holders[resource]
	info := lease.Info{Resource: lease.Resource(resource), State: lease.Held}
	if a == nil {
		info.State, a = lease.Free, before
		delete(w.holders, resource)
	} else {
		w.holders[resource] = a
	}
	region, _, _ := strings.Cut(a.id, "-")
	info.Holder = lease.Holder{Principal: "p", Instance: a.id, Region: region}
	info.Metadata, _ = Metadata(region, a.homes)
	w.history = append(w.history, lease.WatchEvent{Kind: lease.EventChanged, Info: info})
	if info.State == lease.Held {
		if w.names.Prefix()+"p/" == resource[:len(resource)-nameDigits] {
			w.moved++
		}
		if index, ok := w.names.partition(resource); ok {
			a.workers[index].granted = true
		}
		w.tell(a, w.granted(resource))
	} else if queue := w.queues[resource]; len(queue) > 0 {
		w.queues[resource] = queue[1:]
		w.hold(resource, queue[0])
	}
}

func (w *world) granted(resource string) Event {
	if index, ok := w.names.partition(resource); ok {
		return Granted{index}
	}
	return Joined{}
}

func (w *world) refused(r request) Event {
	if r.index >= 0 {
		return Refused{r.index}
	}
	return Excluded{}
}

func (w *world) tell(a *actor, e Event) {
	if !a.gone {
		a.inbox = append(a.inbox, e)
	}
}

// step steps a member with the first n events that wait for it, and n more of what it has not seen.
func (w *world) step(a *actor, n, sight int) Effects {
	events := slices.Clone(a.inbox[:min(n, len(a.inbox))])
	a.inbox = a.inbox[len(events):]
	if len(a.inbox) == 0 { // what was in it may be a state from before
		for ; sight > 0 && a.seen < len(w.history); sight-- {
			events = append(events, Watched{w.history[a.seen]})
			a.seen++
		}
	}
	own, err := w.names.Member(a.id)
	if err != nil {
		w.t.Fatal(err)
	}
	out := a.machine.Step(w.now, events...)
	a.wake = out.Wake
	if out.Join {
		a.asks = append(a.asks, request{resource: own, kind: "ask", index: -1})
	}
	if out.Quit {
		a.asks = append(a.asks, request{resource: own, kind: "cancel", index: -1})
	}
	for _, index := range out.Cancel {
		w.request(a, "cancel", index)
	}
	for _, index := range out.Start {
		if _, twice := a.running[index]; twice {
			w.t.Fatalf("%s starts %d twice", a.id, index)
		}
		if !a.workers[index].granted {
			w.t.Fatalf("%s starts %d, which it was not granted", a.id, index)
		}
		a.started[index] = true
		if !a.workers[index].over {
			a.running[index] = false
		}
	}
	for _, e := range events {
		if lost, ok := e.(Lost); ok && a.started[lost.Index] {
			if _, runs := a.running[lost.Index]; runs {
				a.running[lost.Index] = true // its context has ended
			}
		}
	}
	for i, index := range slices.Concat(out.Revoke, out.End) {
		if !a.started[index] {
			w.t.Fatalf("%s ends %d, which was not started", a.id, index)
		}
		if _, runs := a.running[index]; runs { // or its return is on its way
			a.running[index] = a.running[index] || !a.stubborn || i >= len(out.Revoke)
		}
	}
	for _, index := range out.Release {
		if _, runs := a.running[index]; runs {
			w.t.Fatalf("%s releases %d while it runs", a.id, index)
		}
		if a.workers[index].released {
			w.t.Fatalf("%s releases %d twice", a.id, index)
		}
		delete(a.started, index)
		a.workers[index].released = true
		w.request(a, "release", index)
	}
	for _, index := range out.Ask {
		if !w.mayAsk(a, index) {
			w.t.Fatalf("%s asks for %d, which it has not seen free", a.id, index)
		}
		a.workers[index] = &worker{}
		w.request(a, "ask", index)
	}
	a.done = a.done || out.Done
	return out
}

// request sends what is asked for a partition on its way.
func (w *world) request(a *actor, kind string, index int) {
	a.asks = append(a.asks, request{w.names.Partition(index), kind, index, a.workers[index]})
}

// mayAsk says whether a member has seen a partition free.
func (w *world) mayAsk(a *actor, index int) bool { return a.machine.Holder(index) == "" }

// ask lets the quorum take a member's first request in.
func (w *world) ask(a *actor) {
	r := a.asks[0]
	a.asks = a.asks[1:]
	place := slices.Index(w.queues[r.resource], a)
	switch {
	case r.kind == "ask" && w.holders[r.resource] == nil:
		w.hold(r.resource, a)
	case r.kind == "ask":
		w.queues[r.resource] = append(w.queues[r.resource], a)
	case r.kind == "cancel" && place >= 0:
		w.queues[r.resource] = slices.Delete(slices.Clone(w.queues[r.resource]), place, place+1)
		w.tell(a, w.refused(r))
	case r.kind == "cancel" && r.index >= 0:
		// It was granted, or refused, before; the answer is on its way.
	case r.index >= 0 && r.worker.over:
		// A lease that was lost needs no release.
	default: // a release, or the end of a membership
		if w.holders[r.resource] == a {
			w.hold(r.resource, nil)
		}
		if r.index >= 0 {
			r.worker.over = true
			w.tell(a, Released{r.index})
		} else {
			w.tell(a, Excluded{})
		}
	}
}

// expire ends a lease that its holder could not renew.
func (w *world) expire(resource string) {
	a := w.holders[resource]
	if index, ok := w.names.partition(resource); ok {
		w.lose(a, index)
	} else {
		w.tell(a, Excluded{})
	}
	w.hold(resource, nil)
}

// lose ends the lease of a worker. It waits for its function alone, and says the last of it without having been told to
// release.
func (w *world) lose(a *actor, index int) {
	k := a.workers[index]
	k.lost = true
	w.tell(a, Lost{index})
	if _, runs := a.running[index]; runs {
		return
	}
	k.over = true
	if !a.started[index] && !k.released { // its function will not be called
		w.tell(a, Returned{index})
	}
	w.tell(a, Released{index})
}

// finish lets a function return.
func (w *world) finish(a *actor, index int) {
	delete(a.running, index)
	w.tell(a, Returned{index})
	if k := a.workers[index]; k.lost {
		k.over = true
		w.tell(a, Released{index})
	}
}

// leases are what an actor holds, in order.
func (w *world) leases(a *actor) []string {
	var names []string
	for name, holder := range w.holders {
		if holder == a {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// runs are the partitions that an actor works on, in order.
func (a *actor) runs() []int {
	var indices []int
	for index := range a.running {
		indices = append(indices, index)
	}
	slices.Sort(indices)
	return indices
}

// ready are the members that can do something.
func (w *world) ready() []*actor {
	var ready []*actor
	for _, a := range w.actors {
		if !a.gone && !a.done && !a.frozen {
			ready = append(ready, a)
		}
	}
	return ready
}

// crash ends a process. Its leases run out later.
func (w *world) crash(a *actor) {
	a.gone, a.inbox, a.running = true, nil, make(map[int]bool)
	a.asks = nil
	for resource, queue := range w.queues { // dead waiters are dropped
		w.queues[resource] = slices.DeleteFunc(slices.Clone(queue), func(b *actor) bool { return a == b })
	}
}

// random lets one thing happen that need not wait for anything.
func (w *world) random() {
	ready := w.ready()
	if len(ready) == 0 {
		return
	}
	a := ready[rapid.IntRange(0, len(ready)-1).Draw(w.draw, "member")]
	switch rapid.IntRange(0, 3).Draw(w.draw, "what") {
	case 0, 1:
		w.step(a, rapid.IntRange(0, 3).Draw(w.draw, "answers"), rapid.IntRange(0, 4).Draw(w.draw, "sight"))
	case 2:
		if len(a.asks) > 0 {
			w.ask(a)
		}
	case 3:
		if runs := a.runs(); len(runs) > 0 {
			if index := rapid.SampledFrom(runs).Draw(w.draw, "function"); a.running[index] {
				w.finish(a, index)
			}
		}
	}
}

// rest lets everything happen that can, fairly, until nothing can any more. Leases of those who are gone run out.
func (w *world) rest() {
	for range 10_000 {
		quiet := true
		for _, a := range w.actors {
			if a.gone || a.frozen {
				for _, resource := range w.leases(a) {
					w.expire(resource)
					quiet = false
				}
				continue
			}
			for len(a.asks) > 0 {
				w.ask(a)
				quiet = false
			}
			for _, index := range a.runs() {
				if a.running[index] {
					w.finish(a, index)
					quiet = false
				}
			}
			if len(a.inbox) > 0 || a.seen < len(w.history) || a.wake != 0 {
				w.step(a, len(a.inbox), len(w.history))
				quiet = false
			}
			if len(a.asks) > 0 {
				quiet = false
			}
		}
		if quiet {
			return
		}
		w.now = w.now.Add(100 * time.Millisecond)
	}
	w.t.Fatal("it does not come to rest")
}

// check holds the world at rest to what is promised.
func (w *world) check() {
	counts := make(map[string]int)
	for _, a := range w.actors {
		if !a.gone && !a.frozen && !a.done {
			counts[a.id] = 0
		}
	}
	if len(counts) == 0 {
		return
	}
	for p := range w.config.Partitions {
		holder := w.holders[w.names.Partition(p)]
		if holder == nil {
			w.t.Fatalf("nobody holds %d", p)
		}
		counts[holder.id]++
		if _, runs := holder.running[p]; !runs && !holder.machine.parts[p].idle {
			w.t.Fatalf("%s holds %d and does not work on it", holder.id, p)
		}
		for _, a := range w.ready() {
			if got := a.machine.Target(p); got != holder.id {
				w.t.Fatalf("%s would give %d to %q, and %s holds it", a.id, p, got, holder.id)
			}
			if _, runs := a.running[p]; runs && a != holder {
				w.t.Fatalf("%s works on %d, which %s holds", a.id, p, holder.id)
			}
		}
	}
	least, most := w.config.Partitions, 0
	for _, n := range counts {
		least, most = min(least, n), max(most, n)
	}
	if most-least > 1 {
		w.t.Fatalf("%v is not balanced within one", counts)
	}
}

// String tells who holds what.
func (w *world) String() string {
	held := map[string][]string{"nobody": nil}
	for p := range w.config.Partitions {
		id := "nobody"
		if a := w.holders[w.names.Partition(p)]; a != nil {
			id = a.id
		}
		held[id] = append(held[id], strconv.Itoa(p))
	}
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(held)) {
		if len(held[id]) > 0 {
			lines = append(lines, id+": "+strings.Join(held[id], " "))
		}
	}
	return strings.Join(lines, "; ")
}
