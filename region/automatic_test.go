package region

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// lab is a group that promotes itself from eu to us. Its agents say what each test has them say, every second.
type lab struct {
	*world
	// cannot says whom an agent cannot reach.
	cannot map[string][]string
	silent map[string]bool
	health map[string]writv1.Health
	lag    time.Duration
	behind uint64
}

func newLab(t *testing.T, change func(*writv1.GroupSpec)) *lab {
	t.Helper()
	return beginLab(t, newWorld(t), change)
}

// beginLab begins the group of a lab in a world.
func beginLab(t *testing.T, w *world, change func(*writv1.GroupSpec)) *lab {
	t.Helper()
	spec := ordersSpec()
	spec.Hooks = nil
	spec.Automatic = []*writv1.Direction{{From: "eu", To: "us"}}
	spec.Rpo, spec.Hold, spec.Dwell = &writv1.Loss{Bytes: proto.Uint64(1000), Time: durationpb.New(time.Hour)}, durationpb.New(time.Minute), durationpb.New(0)
	if change != nil {
		change(spec)
	}
	for _, r := range spec.Regions {
		for _, g := range r.Guards {
			if !strings.HasSuffix(g, "-absent") {
				w.enrol(g, r.Name, "orders")
			}
		}
	}
	w.round()
	w.apply(spec)
	w.settle()
	l := &lab{world: w, cannot: map[string][]string{}, silent: map[string]bool{}, health: map[string]writv1.Health{}, lag: time.Second}
	l.live(5 * time.Second)
	if w.groups["orders"].GetPrimary() != "eu" {
		t.Fatalf("the group is %v", w.groups["orders"])
	}
	return l
}

// live lets time pass, in which agents report.
func (l *lab) live(d time.Duration) {
	for end := l.now.Add(d); l.now < end; {
		l.now = min(end, l.now.Add(time.Second))
		for _, r := range l.groups["orders"].Spec.Regions {
			if !l.silent[r.Name] && r.Agent != "" {
				l.report(r.Name)
			}
		}
		l.settle()
	}
}

func (l *lab) report(region string) {
	room, health := uint32(500), l.health[region]
	if health == 0 {
		health = writv1.Health_HEALTH_OK
	}
	g := &writv1.GroupReport{Group: "orders", Health: health, Headroom: &room, Position: &writv1.Position{Log: "1", Bytes: 5000 - l.behind}, Lag: durationpb.New(l.lag), Detail: "as it is", ConfigDigest: "d"}
	if region == "eu" {
		g.Position.Bytes = 5000
	} else {
		g.Upstream = &writv1.Position{Log: "1", Bytes: 5000}
	}
	for _, r := range []string{"eu", "us", "ap"} {
		if r != region {
			g.Peers = append(g.Peers, &writv1.PeerReport{Region: r, Reachable: !slices.Contains(l.cannot[region], r)})
		}
	}
	l.machineAsks = append(l.machineAsks, Request{ID: l.next(), Intake: l.now, Command: Command{Caller: caller("agent-" + region), Ask: &writv1.AgentPollRequest{Agent: "a", Region: region, Session: "1", Reports: []*writv1.GroupReport{g}}}})
}

func (l *lab) explain() *writv1.ExplainResponse {
	return l.must("ops", &writv1.ExplainRequest{Group: "orders"}).(*writv1.ExplainResponse)
}

// cut takes eu away, as the others and the quorum see it.
func (l *lab) cut() {
	l.silent["eu"], l.cannot["us"], l.cannot["ap"] = true, []string{"eu"}, []string{"eu"}
	l.deadGuards["guard-eu"] = true
}

func (l *lab) heal() {
	l.silent["eu"], l.cannot["us"], l.cannot["ap"] = false, nil, nil
	l.deadGuards["guard-eu"] = false
}

func TestAPartitionOf43SecondsPromotesNobody(t *testing.T) {
	l := newLab(t, nil)
	l.cut()
	l.live(43 * time.Second)
	if e := l.explain(); e.Rule != RuleUnknown || !strings.Contains(strings.Join(e.Blocks, "; "), "hold is 1m0s") {
		t.Errorf("after 43 s: %v", e)
	}
	l.heal()
	l.live(5 * time.Minute)
	l.cut() // what came before does not count
	l.live(43 * time.Second)
	l.heal()
	l.live(time.Minute)
	if len(l.promotions) != 0 || l.groups["orders"].Primary != "eu" {
		t.Errorf("promoted: %s", l.tell())
	}
}

func TestARegionThatIsGoneIsPromotedFrom(t *testing.T) {
	l := newLab(t, nil)
	l.cut()
	l.live(59 * time.Second)
	if len(l.promotions) != 0 {
		t.Fatalf("too early: %s", l.tell())
	}
	l.live(5 * time.Second)
	if len(l.promotions) != 1 {
		t.Fatalf("%d promotions, %v", len(l.promotions), l.explain())
	}
	l.live(20 * time.Second)
	g := l.groups["orders"]
	if g.Primary != "us" || g.LastAutomaticAt == nil || !slices.Contains(g.Quarantined, "eu") {
		t.Errorf("the group is %v, %s", g, l.tell())
	}
	for _, p := range l.promotions {
		document := string(l.operations[p.Id].Document)
		if !p.Automatic || len(p.Evidence) != 3 || p.Timeline.Detected == nil || !strings.Contains(document, `"automatic":true`) || !strings.Contains(document, `"observer":"ap"`) {
			t.Errorf("it is %v, %s", p, document)
		}
	}
	executed := slices.IndexFunc(l.notes, func(n noteOf) bool { return n.Action == "operation.execute" && n.Detail["automatic"] == "true" })
	if executed < 0 || l.notes[executed].Detail["rule"] != "" {
		t.Error("there is no record of it")
	}
}

func TestWhatKeepsAnAutomaticPromotionBack(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*writv1.GroupSpec)
		do     func(*lab)
		says   string
	}{
		"one observer alone":               {do: func(l *lab) { l.cannot["ap"] = nil }, says: "ap does not say that eu is unreachable"},
		"an observer that is silent":       {do: func(l *lab) { l.silent["ap"] = true }, says: "nothing is heard of the agent of ap"},
		"its own agent speaks":             {do: func(l *lab) { l.silent["eu"] = false }, says: "the agent of eu has been silent for 0s"},
		"a loss above the rpo":             {do: func(l *lab) { l.behind = 1001 }, says: "above the rpo"},
		"a loss in time that nobody knows": {change: func(s *writv1.GroupSpec) { s.Rpo.Time = durationpb.New(5 * time.Second) }, says: "above the rpo, or not known"},
		"a target that is ill":             {do: func(l *lab) { l.health["us"] = writv1.Health_HEALTH_DEGRADED }, says: "us does not say of itself that it is healthy"},
		"too little room":                  {change: func(s *writv1.GroupSpec) { s.Headroom = 501 }, says: "has not the headroom"},
		"a guard that is not there":        {change: func(s *writv1.GroupSpec) { s.Regions[0].Guards = []string{"guard-eu", "guard-absent"} }, says: "guard guard-absent of eu is not enrolled"},
		"dwell":                            {change: func(s *writv1.GroupSpec) { s.Dwell = durationpb.New(time.Hour) }, says: "eu became primary"},
		"another direction":                {change: func(s *writv1.GroupSpec) { s.Automatic[0] = &writv1.Direction{From: "us", To: "eu"} }, says: "no promotion from eu is automatic"},
		"a promotion that is open": {do: func(l *lab) {
			if _, err := l.plan(modeFailover, "ap", nil); err != nil {
				l.t.Fatal(err)
			}
		}, says: "is open"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, c.change)
			l.cut()
			if c.do != nil {
				c.do(l)
			}
			l.live(3 * time.Minute)
			blocks := strings.Join(l.explain().Blocks, "; ")
			if l.groups["orders"].Primary != "eu" {
				t.Errorf("promoted: %s", l.tell())
			}
			if !strings.Contains(blocks, c.says) {
				t.Errorf("what is in the way: %s", blocks)
			}
		})
	}
}

func TestGapsInReportsBeginTheHoldAnew(t *testing.T) {
	l := newLab(t, nil)
	l.cut()
	l.live(50 * time.Second)
	l.silent["ap"] = true
	l.live(5 * time.Second)
	l.silent["ap"] = false
	l.live(50 * time.Second)
	if len(l.promotions) != 0 {
		t.Fatalf("promoted across a gap: %s", l.tell())
	}
	l.takeover() // a new coordinator has seen nothing
	l.live(50 * time.Second)
	if len(l.promotions) != 0 {
		t.Fatalf("promoted on what another coordinator saw: %s", l.tell())
	}
	l.live(3 * time.Minute)
	if len(l.promotions) != 0 || !strings.Contains(strings.Join(l.explain().Blocks, "; "), "not known") {
		t.Fatalf("promoted by one who never heard of eu: %s, %v", l.tell(), l.explain())
	}
	l.heal()
	l.live(10 * time.Second)
	l.cut()
	l.live(80 * time.Second)
	if l.groups["orders"].Primary != "us" {
		t.Errorf("not promoted at last: %v", l.explain())
	}
}

func TestEvidenceThatIsGoneStopsAnAutomaticPromotion(t *testing.T) {
	l := newLab(t, nil)
	l.cut()
	l.live(58 * time.Second)
	for len(l.promotions) == 0 {
		l.now = l.now.Add(time.Second)
		l.report("us")
		l.report("ap")
		l.round()
	}
	l.heal()
	for _, r := range []string{"eu", "us", "ap"} {
		l.report(r)
	}
	l.live(10 * time.Minute)
	if l.groups["orders"].Primary != "eu" {
		t.Errorf("promoted: %s", l.tell())
	}
	for _, p := range l.promotions {
		if p.State != expired && p.State != cancelled {
			t.Errorf("it is %v: %s", p.State, l.tell())
		}
	}
}

func TestOneAutomaticPromotionInAWindow(t *testing.T) {
	l := newLab(t, func(s *writv1.GroupSpec) {
		s.Automatic = append(s.Automatic, &writv1.Direction{From: "us", To: "ap"})
		s.Regions = append(s.Regions, &writv1.GroupRegion{Name: "af", Role: writv1.RegionRole_REGION_ROLE_WITNESS, Agent: "agent-af"})
	})
	l.cannot["af"] = []string{"eu"}
	d := l.machine.groups["orders"]
	var blocks down
	changed := proto.CloneOf(d.rec)
	changed.LastAutomaticAt = timestamp(l.moment().Wall.Add(-59 * time.Minute))
	d.rec = changed
	l.machine.judgeFlapping(l.moment(), d, &blocks)
	if len(blocks.blocks) != 1 || blocks.at != l.now.Add(time.Minute) {
		t.Errorf("within the window: %v", blocks)
	}
	blocks = down{}
	changed = proto.CloneOf(d.rec)
	changed.LastAutomaticAt = timestamp(l.moment().Wall.Add(time.Hour)) // the wall clock was set back since
	d.rec = changed
	l.machine.judgeFlapping(l.moment(), d, &blocks)
	if len(blocks.blocks) != 1 || blocks.at != l.now.Add(time.Hour) {
		t.Errorf("with a clock that was set back: %v", blocks)
	}
}

func TestExplainNamesTheRule(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*lab)
		rule string
		says string
	}{
		"all is well":         {do: func(*lab) {}, rule: RuleNothing, says: "eu says that it works"},
		"an AZ is lost":       {do: func(l *lab) { l.cannot["us"] = []string{"eu"} }, rule: RuleNothing, says: "no reason to move"},
		"degraded":            {do: func(l *lab) { l.health["eu"] = writv1.Health_HEALTH_DEGRADED }, rule: RuleShift, says: "do not promote"},
		"down":                {do: (*lab).cut, rule: RuleFailover, says: "fail over to us, and fence eu"},
		"failed, by itself":   {do: func(l *lab) { l.health["eu"] = writv1.Health_HEALTH_FAILED }, rule: RuleFailover, says: "fail over to us"},
		"down beyond the rpo": {do: func(l *lab) { l.cut(); l.behind = 4000 }, rule: RuleFailoverWithTail, says: "tail has to be settled"},
		"silent":              {do: func(l *lab) { l.silent["eu"] = true }, rule: RuleUnknown, says: "not dead"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(s *writv1.GroupSpec) { s.Automatic = nil })
			c.do(l)
			l.live(2 * time.Minute)
			if e := l.explain(); e.Rule != c.rule || !strings.Contains(e.Text, c.says) {
				t.Errorf("%v", e)
			}
		})
	}
	l := newLab(t, nil)
	l.rebuild()
	if e := l.explain(); e.Rule != RuleUnknown || !strings.Contains(e.Text, "name the primary, which was eu") {
		t.Errorf("after a rebuild: %v", e)
	}
}

func TestConfidence(t *testing.T) {
	l := newLab(t, func(s *writv1.GroupSpec) {
		s.Hooks = []*writv1.Hook{{Kind: writv1.HookKind_HOOK_KIND_SHIFT, Optional: true}}
		s.Automatic = nil
	})
	ask := func(to string) (*writv1.ConfidenceResponse, string) {
		c := l.must("ops", &writv1.ConfidenceRequest{Group: "orders", To: to}).(*writv1.ConfidenceResponse)
		var bad []string
		for _, line := range c.Lines {
			if !line.Ok && line.Fix == "" || line.Ok && line.Fix != "" || line.Check == "" || line.Detail == "" {
				t.Errorf("a line without what it needs: %v", line)
			}
			if !line.Ok && !line.Warning {
				bad = append(bad, line.Check+": "+line.Detail)
			}
		}
		if c.Go != (len(bad) == 0) {
			t.Errorf("go is %v with %q", c.Go, bad)
		}
		return c, strings.Join(bad, "; ")
	}
	if c, bad := ask(""); !c.Go {
		t.Errorf("all is well, and %s", bad)
	}
	for _, c := range []struct {
		what string
		do   func()
		undo func()
		says string
	}{
		{"to the primary", nil, nil, "target: eu is primary already"},
		{"behind", func() { l.behind = 2000 }, func() { l.behind = 0 }, "lag: us lags by 2000 bytes"},
		{"silent target", func() { l.silent["us"] = true }, func() { l.silent["us"] = false }, "nothing is heard of the agent of us"},
		{"ill target", func() { l.health["us"] = writv1.Health_HEALTH_FAILED }, func() { l.health["us"] = 0 }, "us says FAILED"},
		{"a guard out", func() { l.deadGuards["guard-ap"] = true }, func() { l.deadGuards["guard-ap"] = false }, "guard guard-ap: it is out"},
	} {
		to := "us"
		if c.do == nil {
			to = "eu"
		} else {
			c.do()
			l.live(20 * time.Second)
		}
		if _, bad := ask(to); !strings.Contains(bad, c.says) {
			t.Errorf("%s: %q", c.what, bad)
		}
		if c.undo != nil {
			c.undo()
			l.live(20 * time.Second)
		}
	}
	if c, bad := ask(""); !c.Go {
		t.Errorf("all is well again, and %s", bad)
	}
	if _, err := l.plan(modeFailover, "ap", nil); err != nil {
		t.Fatal(err)
	}
	if _, bad := ask(""); !strings.Contains(bad, "is open") {
		t.Errorf("with a promotion under way: %q", bad)
	}
	if _, err := l.ask("ops", &writv1.ConfidenceRequest{Group: "orders", To: "mars"}); err == nil || err.Field != "to" {
		t.Errorf("%v", err)
	}
}

type noteOf = lease.Note

func caller(principal string) lease.Caller {
	return lease.Caller{Principal: lease.Principal(principal)}
}

func timestamp(at time.Time) *timestamppb.Timestamp { return timestamppb.New(at) }

func (l *lab) next() lease.CallID {
	l.last++
	return l.last
}

func TestEachObserverHasToHold(t *testing.T) {
	l := newLab(t, nil)
	l.silent["eu"] = true
	l.live(2 * time.Minute)
	l.cannot["us"] = []string{"eu"}
	l.live(2 * time.Minute)
	l.cut()
	l.live(50 * time.Second)
	if len(l.promotions) != 0 {
		t.Fatalf("ap has said so for 50 s only: %s", l.tell())
	}
	l.live(30 * time.Second)
	if l.groups["orders"].Primary != "us" {
		t.Errorf("not promoted at last: %v", l.explain())
	}
}

// openGuards has a guard that may go on without contact.
type openGuards struct{ Tenures }

func (o openGuards) TenureGuards(name lease.Resource) []lease.TenureGuard {
	all := o.Tenures.TenureGuards(name)
	for i := range all {
		all[i].Fenceable = all[i].Fenceable && all[i].Name != "guard-ap"
	}
	return all
}

func TestAGuardThatCannotBeFencedKeepsAnAutomaticPromotionBack(t *testing.T) {
	l := newLab(t, nil)
	l.machine.tenures = openGuards{l.machine.tenures}
	l.cut()
	l.live(3 * time.Minute)
	if blocks := strings.Join(l.explain().Blocks, "; "); len(l.promotions) != 0 || !strings.Contains(blocks, "guard guard-ap may go on admitting") {
		t.Errorf("%s; in the way: %s", l.tell(), blocks)
	}
}

// A guard that may go on without contact is no less in the way when it is out: nothing proves that it admits nothing.
func TestAGuardThatIsOutAndNotFencedKeepsAnAutomaticPromotionBack(t *testing.T) {
	w := newWorld(t)
	w.deafGuards["old"] = true
	w.enrol("old", "eu", "*")
	l := beginLab(t, w, nil)
	l.deadGuards["old"] = true
	l.live(30 * time.Second)
	if !l.guards["old"].GetOut() {
		t.Fatalf("the guard is %v", l.guards["old"])
	}
	confident := l.must("ops", &writv1.ConfidenceRequest{Group: "orders", To: "us"}).(*writv1.ConfidenceResponse)
	for _, line := range confident.Lines {
		if line.Check == "wait without help" {
			t.Errorf("it says that all guards would be fenced: %v", line)
		}
	}
	l.cut()
	l.live(3 * time.Minute)
	if blocks := strings.Join(l.explain().Blocks, "; "); len(l.promotions) != 0 || !strings.Contains(blocks, "guard old may go on admitting") {
		t.Errorf("%s; in the way: %s", l.tell(), blocks)
	}
	gone := l.attest("orders", "old")
	if err := l.sign(gone); err != nil {
		t.Fatal(err)
	}
	l.must("ops", &writv1.ExecuteOperationRequest{Id: gone})
	l.live(time.Minute)
	if l.groups["orders"].Primary != "us" {
		t.Errorf("people have answered for the guard, and %s; in the way: %v", l.tell(), l.explain().Blocks)
	}
}

func TestARegionThatFailsHasToFailForTheHold(t *testing.T) {
	l := newLab(t, nil)
	l.cannot["us"], l.cannot["ap"] = []string{"eu"}, []string{"eu"}
	l.live(2 * time.Minute)
	l.health["eu"] = writv1.Health_HEALTH_FAILED
	l.live(50 * time.Second)
	if len(l.promotions) != 0 {
		t.Fatalf("eu has said so for 50 s only: %s", l.tell())
	}
	l.live(30 * time.Second)
	if l.groups["orders"].Primary != "us" {
		t.Errorf("not promoted at last: %v", l.explain())
	}
}
