package region

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock/bubble"
)

// walker takes arbitrary steps in a world, and judges it after every round.
type walker struct {
	*world
	r *rand.Rand
	// granted is which region got each token, by what the table stored.
	granted map[fence.Token]string
	newest  fence.Token
	log     []string
}

func newWalker(t testing.TB, r *rand.Rand) *walker {
	w := &walker{world: newOrders(t, walkSpec(r)), r: r, granted: map[fence.Token]string{}}
	w.judge = w.judged
	return w
}

// walkSpec draws a group: hooks may be missing or optional, and regions may have no agents.
func walkSpec(r *rand.Rand) func(*writv1.GroupSpec) {
	return func(s *writv1.GroupSpec) {
		s.Hooks = slices.DeleteFunc(s.Hooks, func(h *writv1.Hook) bool {
			h.Optional = h.Kind != writv1.HookKind_HOOK_KIND_VERIFY && r.IntN(8) == 0
			return r.IntN(6) == 0
		})
		if r.IntN(4) == 0 {
			s.Shift = []uint32{10, 100}
		}
		if r.IntN(8) == 0 {
			s.Hooks = nil
			for _, region := range s.Regions {
				region.Agent = ""
			}
		}
	}
}

// judged holds what is stored against S6 at the level of the core.
func (w *walker) judged() {
	rec := w.records["orders"]
	g := w.groups["orders"]
	if g == nil {
		return
	}
	if rec.Held {
		if before, ok := w.granted[rec.Token]; ok && before != rec.Holder.Region {
			w.t.Fatalf("%v was granted to %s, and to %s", rec.Token, before, rec.Holder.Region)
		}
		if rec.Token < w.newest {
			w.t.Fatalf("%v is held after %v", rec.Token, w.newest)
		}
		w.granted[rec.Token], w.newest = rec.Holder.Region, rec.Token
	}
	held := ""
	if rec.Held {
		held = rec.Holder.Region
	}
	if g.Primary != held || rec.Held && fence.Token(g.Token) != rec.Token {
		w.t.Fatalf("the group says that %q is primary under %v, and the tenure is %q under %v: %s", g.Primary, fence.Token(g.Token), held, rec.Token, w.tell())
	}
	if slices.Contains(g.Quarantined, g.Primary) && g.Primary != "" {
		w.t.Fatalf("the primary %s is in quarantine", g.Primary)
	}
	under := 0
	for _, p := range w.promotions {
		switch p.State {
		case fencing, tail, granted, verifying, degraded, reconciled, rollingBack:
			under++
			if g.Promotion != p.Id {
				w.t.Fatalf("%s is %s, and the group's promotion is %q", p.Id, stateName(p.State), g.Promotion)
			}
		default:
		}
		began := p.Timeline.GetFenced() != nil || slices.Contains([]writv1.PromotionState{fencing, tail, granted, verifying, degraded}, p.State)
		if op := w.operations[p.Id]; began && op.GetState() != writv1.OperationState_OPERATION_STATE_EXECUTED {
			w.t.Fatalf("%s is %s, and its operation is %v", p.Id, stateName(p.State), op.GetState())
		}
	}
	if under > 1 {
		w.t.Fatalf("%d promotions are under way: %s", under, w.tell())
	}
	executed := map[string]int{}
	for _, n := range w.notes {
		if n.Action == "promotion.fencing" {
			if executed[n.Target]++; executed[n.Target] > 1 {
				w.t.Fatalf("%s was executed twice", n.Target)
			}
			if p := w.promotions[n.Target]; p != nil && n.Detail["old_token"] != "" && w.grantedBy(n.Detail["old_token"]) != n.Detail["from"] && n.Detail["from"] != "" {
				w.t.Fatalf("%s was executed against a token that had moved: %v", n.Target, n.Detail)
			}
		}
	}
	w.notes = slices.DeleteFunc(w.notes, func(n lease.Note) bool { return n.Action != "promotion.fencing" })
	if primaries := w.fencedBy(); primaries != "" {
		w.t.Fatal(primaries)
	}
}

// grantedBy is the region that has had a token, as the log writes it.
func (w *walker) grantedBy(token string) string {
	for t, region := range w.granted {
		if t.Decimal() == token {
			return region
		}
	}
	return ""
}

// fencedBy: every promotion that fences or has fenced did so from the newest token that was granted before.
func (w *walker) fencedBy() string {
	for _, p := range w.promotions {
		if p.State == fencing && p.ExpectedToken != 0 && w.granted[fence.Token(p.ExpectedToken)] != "" && fence.Token(p.ExpectedToken) != w.newest {
			return fmt.Sprintf("%s expects %v and fences %v", p.Id, fence.Token(p.ExpectedToken), w.newest)
		}
	}
	return ""
}

// open is the promotion that a person would act upon: the one under way, or else any that has not ended.
func (w *walker) open() string {
	ids := slices.Sorted(maps.Keys(w.promotions))
	if w.r.IntN(3) == 0 {
		slices.Reverse(ids)
	}
	for _, id := range ids {
		if !PromotionEnded(w.promotions[id].State) {
			return id
		}
	}
	return ""
}

// step does one arbitrary thing. Refusals are fine: what happens is judged.
func (w *walker) step() {
	id := w.open()
	steps := []string{"pass", "pass", "plan", "sign", "execute", "execute", "agent", "hook", "guard", "takeover", "resume", "resume", "abort", "skip", "settle", "tail", "attest", "again", "longer", "stale", "restart"}
	if w.r.IntN(200) == 0 {
		steps = []string{"rebuild"}
	}
	step := steps[w.r.IntN(len(steps))]
	if w.state(id) != granted && w.state(id) != draining && step == "abort" && w.r.IntN(3) > 0 {
		step = "pass"
	}
	w.log = append(w.log, step)
	w.do(step, id)
}

func (w *walker) do(step, id string) {
	regions := []string{"eu", "us", "ap"}
	region := regions[w.r.IntN(3)]
	switch step {
	case "pass":
		w.now = w.now.Add(time.Duration(w.r.IntN(3)) * 500 * time.Millisecond)
		w.round()
	case "longer":
		w.pass(time.Duration(w.r.IntN(15)) * time.Second)
	case "plan", "stale":
		modes := []writv1.PromotionMode{modeSwitchover, modeSwitchover, modeFailover, modeFailover, modeFailback, modeRecover}
		ask := &writv1.PlanRequest{Group: "orders", Mode: modes[w.r.IntN(len(modes))], Reason: "walk"}
		if w.r.IntN(2) == 0 {
			ask.To = region
		}
		if w.r.IntN(2) == 0 && ask.Mode != modeSwitchover { // nobody signs those
			ask.LossCap = &writv1.Loss{}
		}
		if w.r.IntN(6) == 0 {
			ask.ValidFor = durationpb.New(time.Minute)
		}
		if p, err := w.ask("ops", ask); err == nil && w.r.IntN(2) == 0 {
			id := p.(*writv1.Promotion).Id
			_ = w.sign(id)
		}
	case "sign":
		if id != "" {
			_ = w.sign(id)
		}
	case "execute":
		w.try(&writv1.ExecuteRequest{Id: id})
	case "again":
		for _, old := range slices.Sorted(maps.Keys(w.promotions)) {
			w.try(&writv1.ExecuteRequest{Id: old})
		}
	case "abort":
		w.try(&writv1.AbortRequest{Id: id})
	case "resume":
		w.try(&writv1.ResumeRequest{Id: id})
	case "skip":
		w.try(&writv1.ResumeRequest{Id: id, SkipHook: true})
	case "agent":
		if a := w.agents[region]; a != nil {
			a.dead = !a.dead && w.r.IntN(2) == 0
			a.lag = time.Duration(w.r.IntN(10)) * time.Second / 2
			a.position += uint64(w.r.IntN(3))
		}
	case "restart":
		if a := w.agents[region]; a != nil {
			a.session++
			a.call = 0
		}
	case "hook":
		if a := w.agents[region]; a != nil {
			kind := writv1.HookKind(1 + w.r.IntN(int(allHooks)))
			outcomes := []writv1.HookOutcome{0, 0, writv1.HookOutcome_HOOK_OUTCOME_FAILED, writv1.HookOutcome_HOOK_OUTCOME_NONE}
			a.outcomes[kind], a.silent[kind] = outcomes[w.r.IntN(len(outcomes))], w.r.IntN(4) == 0
		}
	case "guard":
		w.deadGuards["guard-"+region] = !w.deadGuards["guard-"+region] && w.r.IntN(3) > 0
	case "takeover":
		w.takeover()
		w.round()
	case "rebuild":
		w.rebuild()
		w.round()
	case "settle", "tail", "attest":
		w.agree(id, step)
	}
}

// try asks for what may be refused.
func (w *walker) try(ask proto.Message) { _, _ = w.ask("ops", ask) }

// agree has an operation of a promotion made, signed and executed.
func (w *walker) agree(id, what string) {
	p := w.promotions[id]
	switch {
	case p == nil:
		return
	case what == "settle":
		_, _ = w.ask("ops", &writv1.ReinstateRequest{Id: id, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED, Reason: "walk"})
	case what == "attest":
		for _, wait := range w.table.Tenure("orders").Awaits {
			_, _ = w.ask("ops", &writv1.AttestGuardRequest{Id: id, Guard: wait.Guard, Reason: "it is off"})
		}
	}
	for _, op := range slices.Sorted(maps.Keys(w.operations)) {
		if w.operations[op].Promotion == id && w.operations[op].State == writv1.OperationState_OPERATION_STATE_PENDING {
			if w.sign(op) == nil {
				_, _ = w.ask("ops", &writv1.ExecuteOperationRequest{Id: op})
			}
		}
	}
}

// rescue brings every promotion to an end by what operators can do, and says which ones it could not.
func (w *walker) rescue() string {
	for range 40 {
		id := ""
		for _, o := range slices.Sorted(maps.Keys(w.promotions)) {
			if !PromotionEnded(w.promotions[o].State) {
				id = o
				break
			}
		}
		if id == "" {
			return ""
		}
		w.settle()
		p := w.promotions[id]
		switch p.State {
		case proposed, approving, preflight, draining, tail:
			w.do("abort", id)
		case fencing, rollingBack:
			w.pass(15 * time.Second)
			w.agree(id, "attest")
			w.do("skip", id)
			if w.state(id) == fencing {
				w.do("abort", id)
			}
		case degraded:
			w.agree(id, "settle")
		default:
			w.do("skip", id)
			if w.promotions[id].Stuck {
				w.do("resume", id)
			}
		}
		w.pass(time.Second)
		if p := w.promotions[id]; p.State == granted && p.Stuck {
			w.do("abort", id)
		}
		if w.r.IntN(4) == 0 {
			w.pass(15 * time.Second) // hooks time out
		}
	}
	return w.tell()
}

// heal is the end of all trouble.
func (w *walker) heal() {
	for _, a := range w.agents {
		a.dead, a.health, a.lag = false, writv1.Health_HEALTH_OK, 0
		clear(a.outcomes)
		clear(a.silent)
	}
	clear(w.deadGuards)
	w.pass(15 * time.Second)
}

// movedToken has a plan wait while the group's token moves: its target is not healthy, and the promotion before it is rolled
// back meanwhile.
func movedToken(t *testing.T) *walker {
	w := &walker{world: newOrders(t, nil), r: rand.New(rand.NewPCG(1, 1)), granted: map[fence.Token]string{}}
	w.judge = w.judged
	w.agents["us"].silent[writv1.HookKind_HOOK_KIND_PROMOTE] = true
	w.agents["ap"].health = writv1.Health_HEALTH_FAILED
	w.pass(time.Second)
	first := w.begun(modeSwitchover, "us", nil)
	w.pass(2 * time.Second)
	second := w.begun(modeFailover, "ap", &writv1.Loss{})
	w.pass(time.Second)
	w.must("ops", &writv1.AbortRequest{Id: first})
	w.agents["ap"].health = writv1.Health_HEALTH_OK
	w.pass(2 * time.Second)
	w.try(&writv1.ResumeRequest{Id: second})
	w.pass(2 * time.Second)
	if w.state(first) != rolledBack || w.state(second) != cancelled || w.groups["orders"].Primary != "eu" {
		t.Errorf("the plan for a token that moved: %s", w.tell())
	}
	// Asking again for what has ended changes nothing.
	token := w.records["orders"].Token
	third := w.begun(modeSwitchover, "ap", nil)
	w.pass(2 * time.Second)
	w.must("ops", &writv1.ExecuteRequest{Id: third})
	w.pass(time.Second)
	if rec := w.records["orders"]; w.state(third) != done || !rec.Held || rec.Holder.Region != "ap" || rec.Token == token {
		t.Errorf("executing again what is done: %v, %s", rec, w.tell())
	}
	return w
}

func TestNoTwoRegionsAreGranted(t *testing.T) {
	taken, states, stuck := map[string]int{}, map[writv1.PromotionState]bool{}, map[string]int{}
	walks := 120
	// One goroutine walks, and the race detector makes it six times slower.
	few := testing.Short() || bubble.RaceDetector
	if few {
		walks = 15
	}
	for seed := range walks {
		w := newWalker(t, rand.New(rand.NewPCG(uint64(seed), 5)))
		func() {
			defer func() {
				if r := recover(); r != nil || t.Failed() {
					t.Logf("seed %d: %s", seed, strings.Join(w.log, " "))
					if r != nil {
						panic(r)
					}
				}
			}()
			for range 80 {
				w.step()
			}
			if left := w.rescue(); left != "" {
				for _, p := range w.promotions {
					if !PromotionEnded(p.State) {
						stuck[stateName(p.State)]++
					}
				}
				w.heal()
				if left := w.rescue(); left != "" {
					t.Fatalf("there is no way out: %s", left)
				}
			}
		}()
		for name, n := range w.taken {
			taken[name] += n
		}
		maps.Copy(states, w.states)
	}
	w := movedToken(t)
	maps.Copy(taken, w.taken)
	t.Logf("taken: %v; only healing ended: %v", taken, stuck)
	if few {
		return
	}
	for _, row := range Transitions() {
		if taken[string(row.Name)] == 0 {
			t.Errorf("the transition %q was never taken", row.Name)
		}
		if !states[row.To] {
			t.Errorf("the state %s was never seen", stateName(row.To))
		}
	}
}
