package lease_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// tenureWorld is the world of guards with a tenure in it, which regions are given in turn.
type tenureWorld struct {
	*guardWorld
	group string // that has claimed it; empty: none
	held  string // the region that has it
	token fence.Token
}

const tenureName = lease.Resource("a")

// keep commits what the methods for tenures changed, and holds what they say about it against the world.
func (w *tenureWorld) keep() {
	w.step(lease.Gone{})
	got := w.table.Tenure(tenureName)
	if got.Group != w.group || got.Held != (w.held != "") || got.Region != w.held || (w.group != "" && got.Token < w.token) {
		w.t.Fatalf("the tenure is %+v, want %q's with %q at %v or above", got, w.group, w.held, w.token)
	}
	if rec, ok := w.records[tenureName]; ok && (rec.TenureGroup != w.group || (w.group != "" && rec.Held != (w.held != ""))) {
		w.t.Fatalf("stored is %+v, want %q's with %q", rec, w.group, w.held)
	}
}

// grant gives the tenure to a region, if it may be, and holds that against what any guard may still admit.
func (w *tenureWorld) grant(region string) {
	ready := w.table.Tenure(tenureName).Ready()
	token, ok := w.table.GrantTenure(lease.Moment{Now: w.now}, tenureName, region)
	if ok != ready {
		w.t.Fatalf("granted: %t, though ready: %t", ok, ready)
	}
	if !ok {
		return
	}
	if token <= w.token || token <= w.granted[tenureName] {
		w.t.Fatalf("granted under %v after %v", token, max(w.token, w.granted[tenureName]))
	}
	w.held, w.token, w.granted[tenureName] = region, token, token
	w.grants++
	answered := map[string]bool{}
	for _, p := range w.table.Tenure(tenureName).Proofs {
		answered[p.Guard] = p.How == lease.ProofAttested
		if p.How == lease.Unproven {
			w.t.Fatalf("granted under %v without the proof of %s", token, p.Guard)
		}
	}
	for _, p := range w.processes {
		if at := p.harmless(string(tenureName), token); at > w.now && !answered[p.name] && !p.answered {
			w.t.Fatalf("%s has the tenure under %v at %v, but guard %s (session %s, floor %v, dead %t) may let an older write through until %v",
				region, token, w.now, p.name, p.session, p.floor(string(tenureName)), p.dead, at)
		}
	}
}

// A tenure is granted only when no guard, whatever has happened to it, can let an older write through any more, unless people
// have answered for it; nothing but its group ends it, and no rule lets its guards go on without contact.
func TestTenuresArePropertyProved(t *testing.T) {
	total := 0
	rapid.Check(t, func(t *rapid.T) {
		w := &tenureWorld{guardWorld: newGuardWorld(t)}
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
		moment := func() lease.Moment { return lease.Moment{Now: w.now} }
		who := lease.Caller{Principal: "app", Instance: "1"}
		t.Repeat(map[string]func(*rapid.T){
			"contact": func(*rapid.T) { w.contact(one(w.living())) },
			"enrol":   func(*rapid.T) { w.enrol(one(w.living())) },
			"acks of all": func(*rapid.T) {
				for _, p := range w.living() {
					w.contact(p)
					w.acks(p)
				}
			},
			"dies": func(*rapid.T) { w.die(one(w.living())) },
			"claim": func(*rapid.T) {
				err := w.table.ClaimTenure(moment(), tenureName, "pay")
				if w.group != "" && err != nil {
					w.t.Fatalf("claimed again: %v", err)
				}
				if err == nil {
					w.group = "pay"
				}
				w.keep()
			},
			"drop": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
					w.table.DropTenure(moment(), tenureName)
					w.group, w.held, w.token = "", "", 0 // it may be forgotten from now on
					w.keep()
				}
			},
			"fence": func(*rapid.T) {
				before := w.table.Tenure(tenureName).Fencing
				token := w.table.FenceTenure(moment(), tenureName)
				if (w.group == "") != (token == 0) || (before != 0 && token != before) {
					w.t.Fatalf("fenced to %v, of group %q, before it was %v", token, w.group, before)
				}
				w.held = ""
				w.keep()
			},
			"grant": func(t *rapid.T) {
				w.grant(rapid.SampledFrom([]string{"eu", "us"}).Draw(t, "region"))
				w.keep()
			},
			"attest": func(*rapid.T) {
				awaits := w.table.Tenure(tenureName).Awaits
				if len(awaits) > 0 && !w.table.AttestTenure(moment(), tenureName, awaits[0].Guard) {
					w.t.Fatalf("%s is awaited, and was not attested", awaits[0].Guard)
				}
				w.keep()
			},
			"answer": func(t *rapid.T) {
				awaits := w.table.Tenure(tenureName).Awaits
				if len(awaits) == 0 {
					return
				}
				g, ok := w.table.CoveringGuard(awaits[0].Guard)
				by := lease.Attestation{Guard: g.Name, Session: rapid.SampledFrom([]string{g.Session, "another"}).Draw(t, "session")}
				done := w.table.AttestGuard(moment(), by)
				if !ok || len(g.Tenures) != 1 || done != (g.Out && by.Session == g.Session) {
					w.t.Fatalf("people's word for %+v counts: %t", g, done)
				}
				if _, listed := w.table.CoveringGuard(g.Name); listed == done {
					w.t.Fatalf("%s is on the list: %t", g.Name, listed)
				}
				for _, p := range w.processes { // a coordinator that takes over has no proof of it: it does not find the guard
					p.answered = p.answered || done && p.name == g.Name
				}
				w.keep()
			},
			"as a lease": func(t *rapid.T) {
				ref := lease.Ref{Resource: tenureName, Token: w.token}
				for _, c := range []lease.Command{
					lease.Acquire{Caller: who, Resource: tenureName, RequestID: "r", TTL: 15 * time.Second},
					lease.Release{Caller: who, Ref: ref}, lease.ForceRelease{Caller: who, Ref: ref, Reason: "test", Now: true},
					lease.CancelAcquire{Caller: who, Resource: tenureName, RequestID: "r"}, lease.Checkpoint{Caller: who, Ref: ref},
				} {
					if r := w.call(c, 0); w.group != "" && (r.Err == nil || r.Err.Reason != lease.ReasonDenied) {
						w.t.Fatalf("%T of a tenure: %+v, want DENIED", c, r)
					}
				}
				w.keep()
			},
			"rule": func(t *rapid.T) {
				isolation := rapid.SampledFrom([]writv1.Isolation{writv1.Isolation_ISOLATION_CLOSE, writv1.Isolation_ISOLATION_OPEN}).Draw(t, "isolation")
				prefix := rapid.SampledFrom([]string{"", "a"}).Draw(t, "prefix")
				w.call(lease.SetGuarding{Caller: who, Rule: &writv1.GuardingRule{Prefix: prefix, Exact: prefix == "a" && rapid.Bool().Draw(t, "exact"), Isolation: isolation}, Remove: rapid.Bool().Draw(t, "remove")}, 0)
				if best := slices.MaxFunc(append(w.rules.GetRules(), nil), longerPrefix); w.group != "" && best.GetIsolation() != writv1.Isolation_ISOLATION_CLOSE {
					w.t.Fatalf("the rules are %v, and leave the tenure open", w.rules)
				}
				w.keep()
			},
			"takeover": func(*rapid.T) {
				w.takeover()
				w.keep()
			},
			"time": func(t *rapid.T) {
				end := w.now.Add(time.Duration(rapid.SampledFrom([]int{100, 1000, 5000, 11000, 400_000}).Draw(t, "ms")) * time.Millisecond)
				for due := w.table.NextDue(); due <= end && due != clock.Never; due = w.table.NextDue() {
					w.now = max(w.now, due)
					w.step(lease.Tick{MaxWrites: 1000, MaxBytes: 1 << 20})
				}
				w.now = end
				w.keep()
			},
		})
		total += w.grants
	})
	if total == 0 {
		t.Error("no tenure was ever granted")
	}
}

func longerPrefix(a, b *writv1.GuardingRule) int {
	switch {
	case a == nil:
		return -1
	case b == nil:
		return 1
	case a.Exact != b.Exact:
		if a.Exact {
			return 1
		}
		return -1
	}
	return len(a.Prefix) - len(b.Prefix)
}
