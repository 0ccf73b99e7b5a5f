package guard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
)

const (
	acked = writv1.GuardProof_GUARD_PROOF_ACKED
	cut   = writv1.GuardProof_GUARD_PROOF_CUT
	none  = writv1.GuardProof_GUARD_PROOF_UNSPECIFIED
)

// A guard that cannot reach the quorum when it starts refuses, and works as soon as it can.
func TestQuorumUnreachableAtStart(t *testing.T) {
	simulate(t, func(r *rig) {
		r.start()
		for range 3 {
			r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrUnavailable, fence.NotSeeded)
			r.pass(20 * time.Second)
		}
		if s := r.guard.Status(); s.Ready() || s.Connected || s.LinkError == nil || !strings.Contains(s.LinkError.Error(), "is down") {
			t.Errorf("status %+v", s)
		}
		r.startNodes()
		r.pass(3 * time.Second)
		r.admit("orders", tok(5)).Done(fence.Finished)
		if s := r.guard.Status(); !s.Ready() || !s.Connected || s.Issuer != issuer || s.LeaseLeft <= 0 || s.Endpoint == "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestFloorsComeFromTheQuorum(t *testing.T) {
	simulate(t, func(r *rig) {
		r.quorum.base = tok(10)
		r.quorum.floors = map[string]fence.Token{"orders": tok(20), "billing/eu": tok(7)}
		r.ready()
		r.refuse(fence.Write{Resource: "orders", Token: tok(19)}, fence.ErrStale)
		r.refuse(fence.Write{Resource: "billing/us", Token: tok(9)}, fence.ErrStale)
		r.refuse(fence.Write{Resource: "elsewhere", Token: tok(99)}, fence.ErrUnguarded)
		r.admit("orders", tok(20)).Done(fence.Finished)
		r.admit("billing/eu", tok(7)).Done(fence.Finished)
		r.admit("billing/us", tok(11)).Done(fence.Finished)
	})
}

func TestTokensThatAreNone(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		for _, token := range []fence.Token{0, -1, -1 << 63, 1 << 48, 1} {
			r.refuse(fence.Write{Resource: "orders", Token: token}, fence.ErrInvalidToken)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(5), Writ: "a.b.c"}, fence.ErrInvalidToken)
		r.refuse(fence.Write{Token: tok(5)}, fence.ErrUnguarded)
		r.refuse(fence.Write{Resource: strings.Repeat("r", 600), Token: tok(5)}, fence.ErrUnguarded)
	})
}

// A newer token goes only when it is durable and everything older has finished.
func TestNewerTokenWaitsForOlderWrites(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		first, second := r.admit("orders", tok(5)), r.admit("orders", tok(5))
		newer := r.ask(r.Context(), "orders", tok(6))
		r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrStale)
		r.pass(3 * time.Second)
		first.Done(fence.Finished)
		first.Done(fence.Finished) // does not count for the other one
		r.pass(3 * time.Second)
		if newer.done.Load() {
			t.Fatal("admitted beside an older write")
		}
		second.Done(fence.Finished)
		synctest.Wait()
		if !newer.done.Load() || newer.err != nil || newer.admission.Token() != tok(6) {
			t.Fatalf("%+v", newer)
		}
		// What broke counts for W.
		newest := r.ask(r.Context(), "orders", tok(7))
		newer.admission.Done(fence.Broken)
		newer.admission.Done(fence.Finished)
		r.pass(slack - time.Millisecond)
		if newest.done.Load() {
			t.Fatal("admitted before the broken write was waited out")
		}
		r.pass(2 * time.Millisecond)
		if !newest.done.Load() || newest.err != nil {
			t.Fatalf("%+v", newest)
		}
	})
}

func TestRaise(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		r.quorum.raise("billing/eu", tok(8))
		r.wantAck("billing/eu", tok(8), acked)
		a := r.admit("orders", tok(5))
		r.quorum.raise("orders", tok(9))
		r.wantAck("orders", 0, none)
		r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrStale)
		r.pass(time.Second)
		a.Done(fence.Finished)
		r.wantAck("orders", tok(9), acked)
	})
}

// A write that lasts too long is told to stop, and the raise says how it ended.
func TestCut(t *testing.T) {
	for name, asks := range map[string]bool{"asked for": true, "asked for too late": false} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(r *rig) {
				r.quorum.rules.Rules[0].DrainMs = 2000
				r.ready()
				a := r.admit("orders", tok(5))
				if asks && isClosed(a.Cut()) {
					t.Fatal("cut before a raise")
				}
				r.quorum.raise("orders", tok(9))
				r.pass(1900 * time.Millisecond)
				if asks && isClosed(a.Cut()) {
					t.Fatal("cut before its time")
				}
				r.pass(200 * time.Millisecond)
				if !isClosed(a.Cut()) {
					t.Fatal("not cut")
				}
				r.wantAck("orders", 0, none)
				a.Done(fence.Broken)
				r.pass(slack - time.Millisecond)
				r.wantAck("orders", 0, none)
				r.pass(2 * time.Millisecond)
				r.wantAck("orders", tok(9), cut)
			})
		})
	}
}

func TestWaitingIsGivenUp(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		a := r.admit("orders", tok(5))
		r.admit("billing/eu", tok(6)).Done(fence.Finished)
		ctx, cancel := context.WithCancelCause(r.Context())
		newer := r.ask(ctx, "orders", tok(6))
		cause := errors.New("client gone")
		cancel(cause)
		synctest.Wait()
		if !newer.done.Load() || !errors.Is(newer.err, cause) {
			t.Fatalf("%+v, want the cause", newer)
		}
		if s := r.guard.Status(); s.Parked != 0 || s.InFlight != 1 {
			t.Errorf("status %+v", s)
		}
		if _, err := r.guard.Admit(ctx, fence.Write{Resource: "billing/eu", Token: tok(6)}); !errors.Is(err, cause) {
			t.Errorf("admitted for somebody who is gone: %v", err)
		}
		a.Done(fence.Finished)
		r.admit("orders", tok(6)).Done(fence.Finished)
	})
}

func TestParkedTooLong(t *testing.T) {
	simulate(t, func(r *rig) {
		r.config.MaxParkTime = 5 * time.Second
		r.ready()
		a := r.admit("orders", tok(5))
		began := time.Now()
		r.refuse(fence.Write{Resource: "orders", Token: tok(6)}, fence.ErrUnavailable, fence.Draining)
		if waited := time.Since(began); waited < 5*time.Second || waited > 6*time.Second {
			t.Errorf("waited %v, want 5s", waited)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(6)}, fence.ErrUnavailable, fence.Draining)
		a.Done(fence.Finished)
		r.admit("orders", tok(6)).Done(fence.Finished)
	})
}

// Without the quorum, rules decide when the guard lease has run out; with it again, everything goes on.
func TestIsolation(t *testing.T) {
	for _, always := range []bool{false, true} {
		simulate(t, func(r *rig) {
			r.config.AlwaysClose = always
			r.ready()
			r.network.stopAll()
			r.pass(guardLease - 6*time.Second)
			r.admit("orders", tok(5)).Done(fence.Finished)
			r.pass(7 * time.Second)
			r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrUnavailable, fence.Isolated)
			if always {
				r.refuse(fence.Write{Resource: "open/x", Token: tok(5)}, fence.ErrUnavailable, fence.Isolated)
			} else {
				r.admit("open/x", tok(5)).Done(fence.Finished)
				r.admit("open/x", tok(6)).Done(fence.Finished)
				r.refuse(fence.Write{Resource: "open/x", Token: tok(5)}, fence.ErrStale)
			}
			r.startNodes()
			r.pass(3 * time.Second)
			r.admit("orders", tok(5)).Done(fence.Finished)
		})
	}
}

// The node dies, or stands still: the guard goes on at the next one without refusing anything.
func TestNextNode(t *testing.T) {
	t.Run("dies", func(t *testing.T) {
		simulate(t, func(r *rig) {
			r.ready()
			for i := range 6 {
				at := r.guard.Status().Endpoint
				r.network.stop(at)
				for range 20 {
					r.pass(time.Second)
					r.admit("orders", tok(uint64(5+i))).Done(fence.Finished)
				}
				if now := r.guard.Status().Endpoint; now == at || now == "" {
					t.Fatalf("still at %q", now)
				}
				r.network.start(at, r.quorum)
			}
			if n := len(r.quorum.enrols); n != 1 {
				t.Errorf("enrolled %d times", n)
			}
		})
	})
	t.Run("stands still", func(t *testing.T) {
		simulate(t, func(r *rig) {
			deaf := newQuorum()
			deaf.silent = true
			r.network.start("a:1", deaf)
			r.network.start("b:1", r.quorum)
			r.start()
			r.pass(guardLease)
			if s := r.guard.Status(); s.Endpoint != "b:1" || !s.Seeded {
				t.Errorf("status %+v", s)
			}
			r.admit("orders", tok(5)).Done(fence.Finished)
		})
	})
}

// A guard that the quorum has given up enrols again, and goes by what it is told then.
func TestGivenUp(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		r.admit("orders", tok(5)).Done(fence.Finished)
		r.quorum.do(func() {
			r.quorum.out = true
			r.quorum.floors["orders"] = tok(30)
		})
		r.pass(guardLease)
		if n := len(r.quorum.enrols); n != 2 {
			t.Fatalf("enrolled %d times", n)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrStale)
		r.admit("orders", tok(30)).Done(fence.Finished)
	})
}

// When the clocks disagree nothing is believed before the quorum has been heard again.
func TestSuspicion(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		contacts := r.quorum.contactCount()
		r.clock.jump.Add(int64(2 * time.Second))
		r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrUnavailable, fence.Isolated)
		synctest.Wait()
		if n := r.quorum.contactCount(); n <= contacts {
			t.Fatalf("%d contacts, as before", n)
		}
		r.admit("orders", tok(5)).Done(fence.Finished)

		// It is noticed without any write as well.
		r.quorum.do(func() { r.quorum.silent = true })
		r.clock.jump.Add(int64(-time.Hour))
		r.pass(1100 * time.Millisecond)
		if s := r.guard.Status(); s.LeaseLeft != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestGrants(t *testing.T) {
	simulate(t, func(r *rig) {
		r.config.Stamps = []string{"billing/*"}
		r.quorum.grants = []*writv1.GuardGrant{
			{Resource: "billing/eu", Token: uint64(tok(5)), Region: "eu"},
			{Resource: "billing/us", Token: uint64(tok(6)), Region: "us"},
			{Resource: "billing/none", Token: 0, Region: "eu"},
		}
		r.ready()
		if token, ok := r.guard.Grant("billing/eu"); !ok || token != tok(5) {
			t.Errorf("%v %v", token, ok)
		}
		for _, resource := range []string{"billing/us", "billing/none", "billing/other"} {
			if token, ok := r.guard.Grant(resource); ok {
				t.Errorf("%s: %s", resource, token)
			}
		}
		r.obstacle(r.guard.NoGrant("billing/us"), fence.NoGrant)
		r.quorum.tell(&writv1.GuardResponse{Say: &writv1.GuardResponse_Grants{Grants: &writv1.GuardGrants{
			Grants: []*writv1.GuardGrant{{Resource: "billing/eu"}, {Resource: "billing/us", Token: uint64(tok(9)), Region: "eu"}},
		}}})
		synctest.Wait()
		if token, ok := r.guard.Grant("billing/us"); !ok || token != tok(9) {
			t.Errorf("%v %v", token, ok)
		}
		if _, ok := r.guard.Grant("billing/eu"); ok {
			t.Error("still granted")
		}
	})
}

// Floors are told in pages over the stream, as they are at the moment, while writes go on.
func TestFloorsAreTold(t *testing.T) {
	simulate(t, func(r *rig) {
		for i := range 2100 {
			r.quorum.floors[fmt.Sprintf("billing/%04d", i)] = tok(uint64(20 + i))
		}
		r.quorum.floors["orders"] = tok(7)
		r.ready()
		if e := r.quorum.enrols[0]; !e.GetTellsFloors() {
			t.Errorf("the guard does not say that it tells floors: %v", e)
		}
		under, err := r.guard.Admit(t.Context(), fence.Write{Resource: "billing/1000", Token: tok(1020)})
		if err != nil {
			t.Fatal(err)
		}
		var floors []*writv1.GuardKeptFloor
		for id, after := uint64(900), ""; ; id++ {
			r.quorum.tell(&writv1.GuardResponse{Id: id, Say: &writv1.GuardResponse_Floors{Floors: &writv1.GuardFloorsAsk{Prefix: "billing/", After: after, Limit: 1000}}})
			synctest.Wait()
			told := r.quorum.pages[len(r.quorum.pages)-1]
			if told.GetId() != id || told.GetGuard() != "g1" {
				t.Fatalf("the ask %d was answered with %v", id, told)
			}
			floors = append(floors, told.GetFloors().GetFloors()...)
			if after = told.GetFloors().GetNext(); after == "" {
				break
			}
		}
		under.Done(fence.Finished)
		if len(floors) != 2100 || len(r.quorum.pages) != 3 {
			t.Fatalf("%d floors in %d pages", len(floors), len(r.quorum.pages))
		}
		for i, f := range floors {
			inFlight := uint64(0)
			if i == 1000 {
				inFlight = 1
			}
			if want := fmt.Sprintf("billing/%04d", i); f.GetResource() != want || f.GetToken() != uint64(tok(uint64(20+i))) || f.GetInFlight() != inFlight {
				t.Fatalf("told %v, want %s", f, want)
			}
		}
	})
}

func TestProbes(t *testing.T) {
	simulate(t, func(r *rig) {
		r.quorum.floors["orders"] = tok(20)
		r.ready()
		probe := func(p *writv1.GuardProbe) *writv1.GuardProbed {
			t.Helper()
			r.quorum.tell(&writv1.GuardResponse{Id: 77, Say: &writv1.GuardResponse_Probe{Probe: p}})
			r.pass(time.Second)
			if len(r.quorum.probed) == 0 {
				t.Fatal("no verdict")
			}
			return r.quorum.probed[len(r.quorum.probed)-1]
		}
		if v := probe(&writv1.GuardProbe{Resource: "orders", Token: uint64(tok(3))}); !v.GetRefused() || !strings.Contains(v.GetDetail(), "stale") {
			t.Errorf("verdict %v", v)
		}
		if v := probe(&writv1.GuardProbe{Resource: "orders", Token: uint64(tok(20))}); v.GetRefused() {
			t.Errorf("verdict %v of a canary that is not stale", v)
		}
		if s := r.guard.Status(); s.InFlight != 0 {
			t.Errorf("a canary is under way: %+v", s)
		}
		r.guard.SetProbe(func(ctx context.Context, p *writv1.GuardProbe) (bool, string) {
			return guard.IsCanary(ctx), p.GetWrit() + strings.Repeat("x", 5000)
		})
		if v := probe(&writv1.GuardProbe{Resource: "orders", Writ: "w"}); !v.GetRefused() || len(v.GetDetail()) != 1024 {
			t.Errorf("verdict %v", v)
		}
	})
}
