package region

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// journey brings a promotion from its plan to an end. Whatever stops it is lifted as operators would.
type journey struct {
	mode  writv1.PromotionMode
	limit *writv1.Loss
	// setUp makes the trouble that leads through the state; interfere acts whenever the state has been reached.
	setUp     func(w *world)
	interfere func(w *world, id string)
	end       writv1.PromotionState
}

func silentAgent(region string, kind writv1.HookKind) func(*world) {
	return func(w *world) { w.agents[region].silent[kind] = true }
}

// journeys lead through every state that does not end a promotion.
var journeys = map[writv1.PromotionState]journey{
	proposed:  {mode: modeSwitchover, end: done},
	approving: {mode: modeSwitchover, end: done},
	preflight: {mode: modeSwitchover, setUp: func(w *world) { w.agents["us"].health = writv1.Health_HEALTH_FAILED }, end: done,
		interfere: func(w *world, id string) {
			if w.promotions[id].Stuck {
				w.agents["us"].health = writv1.Health_HEALTH_OK
				w.pass(2 * time.Second)
				w.must("ops", &writv1.ResumeRequest{Id: id})
			}
		}},
	draining:  {mode: modeSwitchover, end: done},
	fencing:   {mode: modeSwitchover, end: done},
	granted:   {mode: modeSwitchover, end: done},
	verifying: {mode: modeSwitchover, end: done},
	tail:      {mode: modeFailover, setUp: func(w *world) { w.agents["us"].lag = 30 * time.Second }, limit: &writv1.Loss{Bytes: new(uint64)}, end: done},
	degraded:  {mode: modeFailover, limit: &writv1.Loss{}, end: done},
	reconciled: {mode: modeFailover, limit: &writv1.Loss{}, setUp: silentAgent("eu", writv1.HookKind_HOOK_KIND_REINSTATE), end: done,
		interfere: func(w *world, id string) {
			if w.promotions[id].Stuck {
				w.agents["eu"].silent[writv1.HookKind_HOOK_KIND_REINSTATE] = false
				w.must("ops", &writv1.ResumeRequest{Id: id})
			}
		}},
	undraining: {mode: modeSwitchover, setUp: func(w *world) { w.agents["us"].position = 0 }, end: cancelled},
	rollingBack: {mode: modeSwitchover, setUp: silentAgent("us", writv1.HookKind_HOOK_KIND_PROMOTE), end: rolledBack,
		interfere: func(w *world, id string) {
			if w.state(id) == granted {
				w.must("ops", &writv1.AbortRequest{Id: id})
			}
		}},
}

// carry lets rounds pass until the promotion has ended, and tells the transitions that it made.
func (w *world) carry(id string, j journey, each func()) []string {
	var moves []string
	for range 400 {
		if PromotionEnded(w.state(id)) {
			return moves
		}
		each()
		p := w.promotions[id]
		switch {
		case p.State == approving:
			if j.mode != modeSwitchover {
				_ = w.sign(id)
			}
			_, _ = w.ask("ops", &writv1.ExecuteRequest{Id: id})
		case p.State == degraded && p.Settlement == "":
			_, _ = w.ask("ops", &writv1.ReinstateRequest{Id: id, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED})
			w.agreeAll(id)
		case p.State == tail:
			w.agreeAll(id)
		case j.interfere != nil:
			j.interfere(w, id)
		}
		if w.state(id) == p.State {
			w.now = w.now.Add(250 * time.Millisecond)
		}
		w.round()
		for _, move := range w.moves {
			moves = append(moves, strings.TrimPrefix(move, id+" "))
		}
	}
	w.t.Fatalf("it does not end: %s", w.tell())
	return nil
}

// agreeAll has what waits for signatures signed and executed.
func (w *world) agreeAll(id string) {
	for op, rec := range w.operations {
		if rec.Promotion == id && rec.State == writv1.OperationState_OPERATION_STATE_PENDING && w.sign(op) == nil {
			_, _ = w.ask("ops", &writv1.ExecuteOperationRequest{Id: op})
			return
		}
	}
}

// TestCoordinatorLostIn has another coordinator take over in every round in which a promotion is in the state, and says that
// it comes to the same end.
func TestCoordinatorLostIn(t *testing.T) {
	for state := proposed; state <= rollingBack; state++ {
		j, ok := journeys[state]
		if !ok {
			if !PromotionEnded(state) {
				t.Errorf("no journey leads through %s", stateName(state))
			}
			continue
		}
		t.Run(stateName(state), func(t *testing.T) {
			run := func(lose bool) (*world, string, int) {
				w := newOrders(t, nil)
				if j.setUp != nil {
					j.setUp(w)
				}
				w.pass(2 * time.Second)
				p, err := w.plan(j.mode, "us", j.limit)
				if err != nil {
					t.Fatal(err)
				}
				losses := 0
				w.carry(p.Id, j, func() {
					if w.state(p.Id) == state && losses < 3 {
						losses++
						if lose {
							before := slices.Clone(w.promotions[p.Id].Hooks)
							w.takeover()
							w.round()
							if after := w.promotions[p.Id]; after.State == state && len(after.Hooks) < len(before) {
								t.Fatalf("hooks were forgotten: %v, %v", before, after.Hooks)
							}
						}
					}
				})
				return w, p.Id, losses
			}
			want, id, passed := run(false)
			got, _, lost := run(true)
			if passed == 0 || lost == 0 {
				t.Fatalf("the journey does not lead through %s: %v", stateName(state), want.taken)
			}
			if got.state(id) != j.end || want.state(id) != j.end {
				t.Errorf("it ends in %s, and without a takeover in %s, want %s: %s", stateName(got.state(id)), stateName(want.state(id)), stateName(j.end), got.tell())
			}
			if a, b := got.groups["orders"], want.groups["orders"]; a.Primary != b.Primary || a.State != b.State || !slices.Equal(a.Quarantined, b.Quarantined) {
				t.Errorf("the group is %v, and without a takeover %v", a, b)
			}
			// Each hook was done once, under the same step: what is asked for again is not run again.
			if a, b := steps(got, id), steps(want, id); a != b {
				t.Errorf("hooks: %s\nwithout a takeover: %s", a, b)
			}
		})
	}
}

// steps is what agents did for a promotion, in order of their regions.
func steps(w *world, id string) string {
	var all []string
	for _, region := range []string{"ap", "eu", "us"} {
		for _, did := range w.agents[region].did {
			if strings.HasPrefix(did, id+"/") {
				all = append(all, region+" "+did)
			}
		}
	}
	return fmt.Sprint(all)
}
