package lease_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

const (
	guardG = 10 * time.Second
	guardW = 2 * time.Second
)

// guardProcess is one process that is a guard, as honest as the worst allowed one: it admits whatever it may, until the last
// instant, and what it has admitted takes as long as it may.
type guardProcess struct {
	name, session, store string
	version              uint64
	seeded, dead, left   bool
	answered             bool          // people have answered for it since it enrolled, for all raises to come
	until                clock.Instant // by its guard lease
	quietFrom            clock.Instant // nothing of its predecessors is under way; it acknowledges nothing before
	diedAt               clock.Instant
	base                 fence.Token
	floors               map[string]fence.Token
	drainedAt            map[string]clock.Instant // by when what is below the floor has finished
	rules                *writv1.GuardingRecord
	covers               []string
}

func (p *guardProcess) floor(resource string) fence.Token { return max(p.base, p.floors[resource]) }

func (p *guardProcess) closes(resource string) bool {
	return ruleFor(p.rules, resource).GetIsolation() == writv1.Isolation_ISOLATION_CLOSE
}

// ruleFor is the rule of a resource, nil if it has none: an exact one, or else the one with the longest prefix.
func ruleFor(rules *writv1.GuardingRecord, resource string) *writv1.GuardingRule {
	var best *writv1.GuardingRule
	for _, r := range rules.GetRules() {
		switch {
		case r.Exact && r.Prefix == resource:
			return r
		case !r.Exact && strings.HasPrefix(resource, r.Prefix) && len(r.Prefix) >= len(best.GetPrefix()):
			best = r
		}
	}
	return best
}

// harmless is when nothing below token is admitted, or under way, through p any more; never if that cannot be said.
func (p *guardProcess) harmless(resource string, token fence.Token) clock.Instant {
	covered := slices.ContainsFunc(p.covers, func(c string) bool { return lease.Covers(c, lease.Resource(resource)) })
	switch {
	case !p.seeded || !covered:
		return 0
	case p.left:
		return 0
	case p.floor(resource) >= token:
		return p.drainedAt[resource]
	}
	end := clock.Never // of its admitting
	if p.dead {
		end = p.diedAt
	}
	if p.closes(resource) {
		end = min(end, p.until)
	}
	if end == clock.Never {
		return end
	}
	return end.Add(guardW)
}

type guardWorld struct {
	t         *rapid.T
	table     *lease.Table
	now       clock.Instant
	next      uint64
	lastCall  lease.CallID
	records   map[lease.Resource]lease.Record
	guards    map[string]*writv1.GuardRecord
	rules     *writv1.GuardingRecord
	processes []*guardProcess
	count     int
	granted   map[lease.Resource]fence.Token
	grants    int
}

func newGuardWorld(t *rapid.T) *guardWorld {
	w := &guardWorld{
		t: t, now: clock.Instant(time.Hour), next: 1, records: map[lease.Resource]lease.Record{}, guards: map[string]*writv1.GuardRecord{},
		granted: map[lease.Resource]fence.Token{},
	}
	w.takeover()
	w.rule(writv1.Isolation_ISOLATION_CLOSE, false)
	return w
}

func (w *guardWorld) moment() lease.Moment {
	return lease.Moment{Now: w.now, Wall: time.UnixMilli(1e9)}
}

// takeover loads what was stored into another coordinator's table.
func (w *guardWorld) takeover() {
	w.table = lease.NewTable(lease.TableConfig{GuardLease: guardG, Retention: 30 * time.Second}, 1)
	w.next += 1000
	w.table.Allow(w.next, w.next+100_000)
	var guards []*writv1.GuardRecord
	for _, name := range slices.Sorted(maps.Keys(w.guards)) {
		guards = append(guards, w.guards[name])
	}
	w.table.LoadGuards(w.moment(), guards, w.rules)
	for _, name := range slices.Sorted(maps.Keys(w.records)) {
		w.table.Load(w.moment(), w.records[name], nil)
	}
}

func (w *guardWorld) step(ev lease.TableEvent) []lease.Reply {
	replies := slices.Clone(w.table.Step(w.moment(), ev).Replies)
	if _, tick := ev.(lease.Tick); !tick {
		replies = append(replies, w.table.Step(w.moment(), lease.Tick{MaxWrites: 1000, MaxBytes: 1 << 20}).Replies...)
	}
	w.table.Dirty(func(c lease.Change) {
		if c.Record == nil {
			delete(w.records, c.Resource)
			return
		}
		stored, err := c.Record.AppendBinary(nil)
		if err != nil || len(stored) != c.Record.Size() {
			w.t.Fatalf("record of %d bytes, %d announced, %v", len(stored), c.Record.Size(), err)
		}
		var rec lease.Record
		if err := rec.UnmarshalBinary(stored); err != nil {
			w.t.Fatal(err)
		}
		w.next = max(w.next, rec.Token.Sequence(), rec.Fencing.Sequence())
		w.records[c.Resource] = rec
	})
	if rules := w.table.DirtyGuards(func(c lease.GuardChange) {
		if w.guards[c.Name] = proto.CloneOf(c.Record); c.Record == nil {
			delete(w.guards, c.Name)
		}
	}); rules != nil {
		w.rules = proto.CloneOf(rules)
	}
	for _, r := range replies {
		if g, ok := r.Value.(*lease.Grant); ok {
			w.judge(g)
		}
	}
	return replies
}

// judge holds a grant against everything that any process may still do.
func (w *guardWorld) judge(g *lease.Grant) {
	if last := w.granted[g.Resource]; g.Token < last {
		w.t.Fatalf("%s is granted under %v after %v", g.Resource, g.Token, last)
	} else if g.Token == last {
		return // a replay
	}
	w.granted[g.Resource] = g.Token
	w.grants++
	if !g.Guarded {
		return // nobody has promised anything
	}
	unproven := map[string]bool{}
	for _, p := range w.records[g.Resource].Proofs {
		unproven[p.Guard] = p.How == lease.Unproven || p.How == lease.ProofAttested
	}
	for _, p := range w.processes {
		if at := p.harmless(string(g.Resource), g.Token); at > w.now && !unproven[p.name] && !p.answered {
			w.t.Fatalf("%s is granted under %v at %v, but guard %s (session %s, floor %v, dead %t) may let an older write through until %v\nproofs %v",
				g.Resource, g.Token, w.now, p.name, p.session, p.floor(string(g.Resource)), p.dead, at, w.records[g.Resource].Proofs)
		}
	}
}

func (w *guardWorld) call(command lease.Command, late time.Duration) lease.Reply {
	w.lastCall++
	for _, r := range w.step(lease.Request{ID: w.lastCall, Intake: w.now.Add(-late), Command: command}) {
		if r.ID == w.lastCall {
			return r
		}
	}
	return lease.Reply{}
}

func (w *guardWorld) rule(isolation writv1.Isolation, unproven bool) {
	w.call(lease.SetGuarding{Caller: lease.Caller{Principal: "admin"}, Rule: &writv1.GuardingRule{Isolation: isolation, AllowUnproven: unproven}}, 0)
}

// say lets a process ask the coordinator something; the answer may be lost.
func (w *guardWorld) say(p *guardProcess, req *writv1.GuardRequest) *writv1.GuardResponse {
	late := time.Duration(rapid.IntRange(0, 800).Draw(w.t, "late ms")) * time.Millisecond
	req.Id, req.Guard, req.Session = 1, p.name, p.session
	if req.GetEnrol() != nil {
		w.count++
		req.Session = fmt.Sprintf("%s.%d", p.session, w.count)
	}
	sent := w.now.Add(-late - time.Duration(rapid.IntRange(0, 500).Draw(w.t, "under way ms"))*time.Millisecond)
	reply := w.call(lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: req}, late)
	if reply.Err != nil || rapid.IntRange(0, 4).Draw(w.t, "lost") == 0 {
		return nil
	}
	say, _ := reply.Value.(*writv1.GuardResponse)
	if e := say.GetEnrolled(); e != nil {
		p.session = req.Session
		w.seed(p, sent, e)
	}
	if c := say.GetContacted(); c != nil && p.seeded {
		w.raise(p, c.Raises)
		p.until = max(p.until, sent.Add(c.Lease.AsDuration()))
		if c.Rules != nil {
			p.rules = c.Rules
		}
	}
	return say
}

func (w *guardWorld) seed(p *guardProcess, sent clock.Instant, e *writv1.GuardEnrolled) {
	if p.answered { // also for what it admitted before
		p.answered, p.seeded = false, false
		clear(p.drainedAt)
	}
	w.raise(p, e.Floors)
	if base := fence.Token(e.Base); base > p.base {
		p.base = base
	}
	p.seeded, p.rules = true, e.Rules
	p.until = max(p.until, sent.Add(e.Lease.AsDuration()))
}

// raise lifts floors; what is older takes up to W from then on.
func (w *guardWorld) raise(p *guardProcess, floors []*writv1.GuardFloor) {
	for _, f := range floors {
		if token := fence.Token(f.Token); token > p.floor(f.Resource) {
			p.floors[f.Resource] = token
			p.version++
			if p.seeded { // and may have admitted something
				last := w.now
				if p.closes(f.Resource) {
					last = min(last, p.until)
				}
				p.drainedAt[f.Resource] = last.Add(time.Duration(rapid.IntRange(0, 2000).Draw(w.t, "drain ms")) * time.Millisecond)
			}
		}
	}
}

func (w *guardWorld) start(name, store string, floors map[string]fence.Token, base fence.Token, version uint64, quiet clock.Instant) {
	w.count++
	covers := [][]string{{"*"}, {"a", "b"}, {"a"}}[rapid.IntRange(0, 2).Draw(w.t, "covers")]
	w.processes = append(w.processes, &guardProcess{
		name: name, session: fmt.Sprintf("s%d", w.count), store: store, version: version, base: base, floors: maps.Clone(floors),
		drainedAt: map[string]clock.Instant{}, quietFrom: quiet, covers: covers,
	})
}

func (w *guardWorld) enrol(p *guardProcess) {
	w.say(p, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{
		Covers: p.covers, Store: p.store, Version: p.version, Slack: durationpb.New(guardW),
	}}})
}

func (w *guardWorld) living() []*guardProcess {
	return slices.DeleteFunc(slices.Clone(w.processes), func(p *guardProcess) bool { return p.dead || p.left })
}

// acks tells what has drained.
func (w *guardWorld) acks(p *guardProcess) {
	acks := &writv1.GuardAcks{Version: p.version}
	for _, resource := range slices.Sorted(maps.Keys(p.floors)) {
		if p.drainedAt[resource] <= w.now && p.quietFrom <= w.now {
			acks.Acks = append(acks.Acks, &writv1.GuardAck{Resource: resource, Token: uint64(p.floors[resource]), Proof: writv1.GuardProof_GUARD_PROOF_ACKED})
		}
	}
	w.say(p, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Acks{Acks: acks}})
}

// die ends a process, and begins another one with its floors, or without.
func (w *guardWorld) die(p *guardProcess) {
	p.dead, p.diedAt = true, w.now
	switch rapid.SampledFrom([]string{"restarts", "loses its floors", "stays away"}).Draw(w.t, "then") {
	case "restarts":
		w.start(p.name, p.store, p.floors, p.base, p.version, w.now.Add(guardW))
	case "loses its floors":
		w.start(p.name, fmt.Sprintf("store%d", w.count), map[string]fence.Token{}, 0, 0, 0)
	}
}

// A guarded resource is granted only when no guard, whatever has happened to it, can let an older write through any more.
func TestGuardedGrantsArePropertyProved(t *testing.T) {
	total := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newGuardWorld(t)
		for i := range rapid.IntRange(1, 3).Draw(t, "guards") {
			w.start(fmt.Sprintf("g%d", i), fmt.Sprintf("disk%d", i), map[string]fence.Token{}, 0, 0, 0)
			w.enrol(w.processes[i])
		}
		one := func(ps []*guardProcess) *guardProcess {
			if len(ps) == 0 {
				t.Skip("no process")
			}
			return ps[rapid.IntRange(0, len(ps)-1).Draw(t, "process")]
		}
		resource := rapid.SampledFrom([]lease.Resource{"a", "b"})
		who := lease.Caller{Principal: "app", Instance: "1"}
		t.Repeat(map[string]func(*rapid.T){
			"enrol":   func(*rapid.T) { w.enrol(one(w.living())) },
			"contact": func(*rapid.T) { w.contact(one(w.living())) },
			"acks":    func(*rapid.T) { w.acks(one(w.living())) },
			"acks of all": func(*rapid.T) {
				for _, p := range w.living() {
					w.contact(p)
					w.acks(p)
				}
			},
			"told": func(*rapid.T) {
				p := one(w.living())
				for _, name := range slices.Sorted(maps.Keys(w.records)) {
					if token := w.records[name].Fencing; token != 0 && p.seeded {
						w.raise(p, []*writv1.GuardFloor{{Resource: string(name), Token: uint64(token)}})
					}
				}
			},
			"dies": func(*rapid.T) { w.die(one(w.living())) },
			"copy with other floors": func(*rapid.T) {
				p := one(w.living())
				w.start(p.name, fmt.Sprintf("store%d", w.count), map[string]fence.Token{}, 0, 0, 0)
			},
			"leaves": func(*rapid.T) {
				p := one(w.living())
				for _, at := range p.drainedAt {
					if at > w.now {
						return
					}
				}
				if p.quietFrom > w.now {
					return
				}
				p.left = true
				w.say(p, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Leave{Leave: &writv1.GuardLeave{Version: p.version}}})
			},
			"acquire": func(t *rapid.T) {
				w.lastCall++
				wait := time.Duration(rapid.IntRange(0, 1).Draw(t, "wait")) * 5 * time.Second
				w.step(lease.Request{ID: w.lastCall, Intake: w.now, Command: lease.Acquire{
					Caller: who, Resource: resource.Draw(t, "resource"), RequestID: fmt.Sprint("r", rapid.IntRange(0, 30).Draw(t, "request")), TTL: 15 * time.Second, Wait: wait,
				}})
			},
			"release": func(t *rapid.T) {
				name := resource.Draw(t, "resource")
				w.call(lease.Release{Caller: who, Ref: lease.Ref{Resource: name, Token: w.granted[name]}}, 0)
			},
			"force now": func(t *rapid.T) {
				w.call(lease.ForceRelease{Caller: who, Ref: lease.Ref{Resource: resource.Draw(t, "resource")}, Reason: "test", Now: true}, 0)
			},
			"rule": func(t *rapid.T) {
				open := rapid.Bool().Draw(t, "open")
				isolation := writv1.Isolation_ISOLATION_CLOSE
				if open {
					isolation = writv1.Isolation_ISOLATION_OPEN
				}
				w.rule(isolation, open && rapid.Bool().Draw(t, "unproven"))
			},
			"takeover": func(*rapid.T) { w.takeover() },
			"time": func(t *rapid.T) {
				end := w.now.Add(time.Duration(rapid.SampledFrom([]int{100, 1000, 2500, 5000, 9000, 11000, 13000}).Draw(t, "ms")) * time.Millisecond)
				for due := w.table.NextDue(); due <= end && due != clock.Never; due = w.table.NextDue() {
					w.now = max(w.now, due)
					w.step(lease.Tick{MaxWrites: 1000, MaxBytes: 1 << 20})
				}
				w.now = end
			},
		})
		total += w.grants
	})
	if total == 0 {
		t.Error("nothing was ever granted")
	}
}

func (w *guardWorld) contact(p *guardProcess) {
	w.say(p, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{RulesVersion: p.rules.GetVersion(), Version: p.version}}})
}
