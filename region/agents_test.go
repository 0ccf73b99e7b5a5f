package region

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// pollAs asks the machine for an agent, without the agents of the world.
func (w *world) pollAs(who string, ask *writv1.AgentPollRequest) lease.CallID {
	w.last++
	w.machineAsks = append(w.machineAsks, Request{ID: w.last, Intake: w.now, Command: Command{Caller: lease.Caller{Principal: lease.Principal(who)}, Ask: ask}})
	w.round()
	return w.last
}

func quietOrders(t *testing.T) *world {
	w := newOrders(t, nil)
	w.takeover() // nobody has been heard of
	for _, a := range w.agents {
		a.dead = true
	}
	w.settle()
	return w
}

func orderPoll(region, session string) *writv1.AgentPollRequest {
	return &writv1.AgentPollRequest{Agent: "a", Region: region, Session: session, Wait: durationpb.New(10 * time.Second),
		Reports: []*writv1.GroupReport{{Group: "orders", Health: writv1.Health_HEALTH_OK}}}
}

func TestPollsOfAgents(t *testing.T) {
	w := quietOrders(t)
	first := w.pollAs("agent-us", orderPoll("us", "1"))
	if _, ok := w.answers[first]; ok {
		t.Error("a poll without a task is answered at once")
	}
	if w.machine.fresh(w.moment(), w.machine.groups["orders"], "us") == nil {
		t.Error("the report does not count")
	}
	second := w.pollAs("agent-us", orderPoll("us", "2"))
	if r, ok := w.answers[first]; !ok || r.Err != nil {
		t.Errorf("the older poll is answered with %v", r)
	}
	late := w.pollAs("agent-us", orderPoll("us", "1"))
	if r := w.answers[late]; r.Err == nil || r.Err.Reason != lease.ReasonConflict {
		t.Errorf("a poll of a run that is over is answered with %v", r)
	}
	if r := w.answers[w.pollAs("agent-eu", orderPoll("us", "1"))]; r.Err == nil || r.Err.Reason != lease.ReasonDenied {
		t.Errorf("a poll for another region is answered with %v", r)
	}
	w.pass(3*time.Second + time.Millisecond)
	if w.machine.fresh(w.moment(), w.machine.groups["orders"], "us") != nil {
		t.Error("a report of more than three intervals ago counts")
	}
	if _, ok := w.answers[second]; ok {
		t.Error("the poll is answered before its time is over")
	}
	w.pass(8 * time.Second)
	r, ok := w.answers[second]
	if !ok || r.Err != nil {
		t.Fatalf("the poll is answered with %v", r)
	}
	if a := r.Value.(*writv1.AgentPollResponse); len(a.Groups) != 1 || a.Groups[0].Primary != "eu" || len(a.Tasks) != 0 {
		t.Errorf("the poll is answered with %v", a)
	}
}

func TestLateAndRepeatedAnswersChangeNothing(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["eu"].silent[writv1.HookKind_HOOK_KIND_DRAIN] = true
	id := w.begun(modeSwitchover, "us", nil)
	w.pass(11 * time.Second)
	if p := w.promotions[id]; !p.Stuck || p.Hooks[0].Outcome != writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT {
		t.Fatalf("the drain is %v", p)
	}
	w.must("ops", &writv1.ResumeRequest{Id: id})
	w.must("ops", &writv1.ResumeRequest{Id: id}) // it goes on already
	if p := w.promotions[id]; p.Stuck || len(p.Hooks) != 2 || p.Hooks[1].Step <= p.Hooks[0].Step {
		t.Fatalf("after resume the hooks are %v", p.Hooks)
	}
	before := w.promotions[id]
	a := w.agents["eu"]
	a.dead = true
	for _, r := range []*writv1.TaskResult{
		{Group: "orders", Promotion: id, Step: before.Hooks[0].Step, Kind: writv1.HookKind_HOOK_KIND_DRAIN, Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE},
		{Group: "orders", Promotion: id, Step: 99, Kind: writv1.HookKind_HOOK_KIND_DRAIN, Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE},
		{Group: "orders", Promotion: id, Step: before.Hooks[1].Step, Kind: writv1.HookKind_HOOK_KIND_VERIFY, Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE},
	} {
		for _, who := range []string{"agent-eu", "agent-us"} {
			poll := orderPoll(who[len("agent-"):], fmt.Sprint("late", w.last))
			poll.Agent, poll.Results = "other", []*writv1.TaskResult{r}
			w.pollAs(who, poll)
		}
	}
	if after := w.promotions[id]; !proto.Equal(before, after) {
		t.Errorf("%v\nbecame %v", before, after)
	}
}

func TestGetPromotionWaits(t *testing.T) {
	w := newOrders(t, nil)
	p, err := w.plan(modeSwitchover, "us", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	wait := func() lease.CallID {
		w.last++
		w.machineAsks = append(w.machineAsks, Request{ID: w.last, Intake: w.now, Command: Command{Ask: &writv1.GetPromotionRequest{
			Id: p.Id, AfterRevision: w.promotions[p.Id].Revision, Wait: durationpb.New(5 * time.Second)}}})
		w.round()
		return w.last
	}
	changed, gone := wait(), wait()
	w.effects(w.machine.Step(w.moment(), Gone{ID: gone}))
	w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
	if r, ok := w.answers[changed]; !ok || r.Value.(*writv1.Promotion).State != preflight {
		t.Errorf("after a change: %v", r)
	}
	if r, ok := w.answers[gone]; ok {
		t.Errorf("nobody waits, and is answered %v", r)
	}
	w.pass(2 * time.Second)
	unchanged := wait()
	w.pass(4 * time.Second)
	if _, ok := w.answers[unchanged]; ok {
		t.Error("it is answered though nothing has changed")
	}
	w.pass(2 * time.Second)
	if r, ok := w.answers[unchanged]; !ok || r.Value.(*writv1.Promotion).State != done {
		t.Errorf("when the time is over: %v", r)
	}
}

// BenchmarkReports is a round in which three agents report of 1,000 groups each.
func BenchmarkReports(b *testing.B) {
	const groups = 1000
	state := State{}
	for i := range groups {
		spec, err := Normal(&writv1.GroupSpec{Name: fmt.Sprintf("g-%d", i), Regions: ordersSpec().Regions})
		if err != nil {
			b.Fatal(err)
		}
		state.Groups = append(state.Groups, &writv1.Group{Spec: spec, Version: 1, State: writv1.GroupState_GROUP_STATE_STEADY, Primary: "eu", Token: 1<<48 | uint64(i+1), Epoch: 1})
	}
	x := NewMachine(Config{Cluster: "c", Incarnation: "i", Epoch: 1, Term: 1}, lease.NewTable(lease.TableConfig{}, 1))
	m := lease.Moment{Now: clock.Instant(time.Hour), Wall: worldStart}
	x.Load(m, state)
	x.Step(m, Tick{})
	var polls []*writv1.AgentPollRequest
	for _, region := range []string{"eu", "us", "ap"} {
		poll := &writv1.AgentPollRequest{Agent: "a", Region: region, Session: "1", Wait: durationpb.New(10 * time.Second)}
		for i := range groups {
			poll.Reports = append(poll.Reports, &writv1.GroupReport{Group: fmt.Sprintf("g-%d", i), Health: writv1.Health_HEALTH_OK})
		}
		polls = append(polls, poll)
	}
	id := lease.CallID(0)
	b.ReportAllocs()
	for b.Loop() {
		m.Now = m.Now.Add(time.Second)
		for _, poll := range polls {
			id++
			x.Step(m, Request{ID: id, Intake: m.Now, Command: Command{Caller: lease.Caller{Principal: lease.Principal("agent-" + poll.Region)}, Ask: poll}})
		}
		x.Step(m, Tick{})
	}
	if x.DirtyWrites() != 0 {
		b.Errorf("reports left %d records to be stored", x.DirtyWrites())
	}
}
