package quorum

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/region/approval"
)

// regionWorld is a store with coordinators that end, one after the other, and the guards, agents and people of one failover
// group, who go on. Each commit is held against S6 before anybody hears of it.
type regionWorld struct {
	t      *testing.T
	engine *Engine
	now    clock.Instant
	kv     map[string][]byte
	term   Term
	chain  audit.Head
	told   []audit.Record

	commits  int
	confirms int
	// killAt is the commit at which the coordinator ends; applied: it took effect.
	killAt  int
	applied bool

	last    lease.CallID
	answers map[lease.CallID]lease.Reply
	guards  map[string]*regionGuard
	agents  map[string]*regionAgent
}

// regionGuard admits what is not below its floor, and nothing before it is enrolled.
type regionGuard struct {
	name, region string
	floor        fence.Token
	enrolled     bool
	call         lease.CallID
}

type regionAgent struct {
	region  string
	call    lease.CallID
	results []*writv1.TaskResult
	did     map[string]bool
}

func regionPeople() (signers []ssh.Signer, set *writv1.ApproverSet) {
	set = &writv1.ApproverSet{Rule: &writv1.ApprovalRule{People: 2}}
	for i, name := range []string{"ann", "bob"} {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i + 1)
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
		if err != nil {
			panic(err)
		}
		signers = append(signers, s)
		set.Approvers = append(set.Approvers, &writv1.Approver{Name: name, Keys: []*writv1.ApproverKey{
			{PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))}}})
	}
	return signers, set
}

func regionSpec() *writv1.GroupSpec {
	spec := &writv1.GroupSpec{Name: "orders"}
	for i, name := range []string{"eu", "us"} {
		role := writv1.RegionRole_REGION_ROLE_PRIMARY
		if i > 0 {
			role = writv1.RegionRole_REGION_ROLE_STANDBY
		}
		spec.Regions = append(spec.Regions, &writv1.GroupRegion{Name: name, Role: role, Agent: "agent-" + name, Guards: []string{"guard-" + name}})
	}
	for _, kind := range []writv1.HookKind{writv1.HookKind_HOOK_KIND_DRAIN, writv1.HookKind_HOOK_KIND_UNDRAIN, writv1.HookKind_HOOK_KIND_PROMOTE, writv1.HookKind_HOOK_KIND_VERIFY} {
		spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind})
	}
	return spec
}

func newRegionWorld(t *testing.T) *regionWorld {
	w := &regionWorld{t: t, now: clock.Instant(time.Hour), kv: map[string][]byte{}, term: 4, answers: map[lease.CallID]lease.Reply{},
		guards: map[string]*regionGuard{}, agents: map[string]*regionAgent{}}
	for _, name := range []string{"eu", "us"} {
		w.guards[name] = &regionGuard{name: "guard-" + name, region: name}
		w.agents[name] = &regionAgent{region: name, did: map[string]bool{}}
	}
	w.start()
	return w
}

// start lets another coordinator take over. Nobody is answered what was asked of the one before.
func (w *regionWorld) start() {
	_, set := regionPeople()
	w.engine = NewEngine(EngineConfig{Node: "n1", Cluster: "test", TokenBlock: 8192, Approvers: set})
	w.term++
	for _, g := range w.guards {
		g.call = 0
	}
	for _, a := range w.agents {
		a.call = 0
	}
	w.tell(Leadership{Leader: true})
}

func (w *regionWorld) moment() lease.Moment {
	return lease.Moment{Now: w.now, Wall: time.Unix(1_800_000_000, 0).UTC().Add(w.now.Sub(clock.Instant(time.Hour)))}
}

func (w *regionWorld) loaded(attempt uint64) Loaded {
	image := NewImage()
	var entries []Entry
	for _, key := range slices.Sorted(maps.Keys(w.kv)) {
		entries = append(entries, Entry{Key: key, Value: w.kv[key], Revision: 1})
	}
	image.Reset(entries, int64(w.term))
	state, err := image.Loaded()
	if err != nil {
		w.t.Fatal(err)
	}
	state.Attempt, state.Members = attempt, []MemberInfo{{ID: 1, Name: "n1"}}
	return state
}

// tell steps the coordinator; its store does everything at once, or ends it.
func (w *regionWorld) tell(ev EngineEvent) {
	w.t.Helper()
	engine := w.engine
	for next := []EngineEvent{ev}; len(next) > 0 && engine == w.engine; next = next[1:] {
		e := engine.Step(w.moment(), next[0])
		for _, r := range e.Replies {
			w.answers[r.ID] = r
		}
		switch {
		case e.Claim != 0:
			next = append(next, Claimed{Attempt: e.Claim, Term: w.term, Nonce: "new"})
		case e.Load != 0:
			next = append(next, w.loaded(e.Load))
		case e.Commit != nil:
			withinLimits(w.t, e.Commit)
			w.commits++
			dies := w.commits == w.killAt
			if !dies || w.applied {
				w.apply(e.Commit)
			}
			if dies {
				w.now = w.now.Add(300 * time.Millisecond)
				w.start()
				return
			}
			next = append(next, RoundDone{Round: e.Round})
		case e.Confirm:
			w.confirms++
			next = append(next, RoundDone{Round: e.Round})
		}
		if e.Witness != nil {
			next = append(next, *e.Witness)
		}
	}
}

// apply commits, and judges what was committed.
func (w *regionWorld) apply(writes []Write) {
	before := w.tenure()
	seen := map[string]bool{}
	for _, wr := range writes {
		if seen[wr.Key] {
			w.t.Fatalf("%s is written twice in one commit", wr.Key)
		}
		seen[wr.Key] = true
		if w.kv[wr.Key] = wr.Value; wr.Value == nil {
			delete(w.kv, wr.Key)
		}
		if strings.HasPrefix(wr.Key, prefixAudit) {
			r, next, err := audit.Verify(w.chain, wr.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			w.chain, w.told = next, append(w.told, r)
		}
	}
	after := w.tenure()
	if after.Held && after.Token != before.Token {
		for _, g := range w.guards {
			if g.enrolled && g.floor < after.Token {
				w.t.Fatalf("%s has the tenure under %v, and %s admits from %v on", after.Holder.Region, after.Token, g.name, g.floor)
			}
		}
	}
	if after.Token < before.Token {
		w.t.Fatalf("the token went back from %v to %v", before.Token, after.Token)
	}
}

func (w *regionWorld) tenure() (rec lease.Record) {
	if value := w.kv[LeaseKey("orders")]; value != nil {
		if err := rec.UnmarshalBinary(value); err != nil {
			w.t.Fatal(err)
		}
	}
	return rec
}

func (w *regionWorld) group() *writv1.Group {
	g := &writv1.Group{}
	if err := proto.Unmarshal(w.kv[RegionKey(region.GroupRecord, "orders")], g); err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *regionWorld) submit(command any) lease.CallID {
	w.last++
	id := w.last
	w.tell(Submits{{ID: id, Intake: w.now, Command: command}})
	return id
}

// round lets a moment pass in which guards and agents do what they do.
func (w *regionWorld) round() {
	w.now = w.now.Add(100 * time.Millisecond)
	w.tell(Tick{})
	for _, name := range slices.Sorted(maps.Keys(w.guards)) {
		w.guard(w.guards[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.agents)) {
		w.agent(w.agents[name])
	}
}

func (w *regionWorld) guard(g *regionGuard) {
	ask := &writv1.GuardRequest{Guard: g.name, Session: g.name}
	if !g.enrolled {
		ask.Ask = &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{Region: g.region, Covers: []string{"orders"}, Store: g.name, Slack: durationpb.New(time.Second)}}
	} else {
		ask.Ask = &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{RulesVersion: 1}}
	}
	r, ok := w.answers[w.submit(lease.GuardCall{Caller: guards, Request: ask})]
	if !ok || r.Err != nil {
		return
	}
	answer, _ := r.Value.(*writv1.GuardResponse)
	if e := answer.GetEnrolled(); e != nil {
		g.enrolled, g.floor = true, fence.Token(e.Base)
		for _, f := range e.Floors {
			g.floor = fence.Token(f.Token)
		}
	}
	for _, f := range answer.GetContacted().GetRaises() {
		g.floor = max(g.floor, fence.Token(f.Token))
		w.submit(ackOf(g.name, g.name, "orders", g.floor))
	}
}

func (w *regionWorld) agent(a *regionAgent) {
	if r, ok := w.answers[a.call]; ok && a.call != 0 {
		a.call = 0
		answer, _ := r.Value.(*writv1.AgentPollResponse)
		for _, task := range answer.GetTasks() {
			a.did[task.Kind.String()] = true
			a.results = append(a.results, &writv1.TaskResult{Group: task.Group, Promotion: task.Promotion, Step: task.Step, Kind: task.Kind,
				Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE, Position: &writv1.Position{Log: "1", Bytes: 7}})
		}
		if r.Err == nil && len(answer.GetTasks()) == 0 {
			a.results = nil
		}
	}
	if a.call != 0 {
		w.tell(Abandoned{ID: a.call})
	}
	room := uint32(500)
	a.call = w.submit(region.Command{Caller: lease.Caller{Principal: lease.Principal("agent-" + a.region)}, Ask: &writv1.AgentPollRequest{
		Agent: "agent", Region: a.region, Session: "1", Wait: durationpb.New(10 * time.Second), Results: a.results,
		Reports: []*writv1.GroupReport{{Group: "orders", Health: writv1.Health_HEALTH_OK, Headroom: &room, Lag: durationpb.New(0), Position: &writv1.Position{Log: "1", Bytes: 7}}},
	}})
}

// ask asks until it is answered: an answer may be lost with a coordinator.
func (w *regionWorld) ask(ask proto.Message) (proto.Message, *lease.Error) {
	w.t.Helper()
	for range 20 {
		r, ok := w.answers[w.submit(region.Command{Caller: lease.Caller{Principal: "ops"}, Ask: ask})]
		if ok && r.Err == nil {
			return r.Value.(proto.Message), nil
		}
		if ok && !errors.Is(r.Err, lease.ErrUnknownOutcome) {
			return nil, r.Err
		}
		w.round()
	}
	w.t.Fatalf("no answer to %T", ask)
	return nil, nil
}

// must asks, and takes a refusal for the end of the test. what it says is done already is done.
func (w *regionWorld) must(ask proto.Message) proto.Message {
	w.t.Helper()
	answer, err := w.ask(ask)
	if err != nil {
		w.t.Fatalf("%T: %v (commit %d)", ask, err, w.commits)
	}
	return answer
}

func (w *regionWorld) until(what string, done func() bool) {
	w.t.Helper()
	for range 400 {
		if done() {
			return
		}
		w.round()
	}
	w.t.Fatalf("%s did not come; the group is %v, and the promotions %v", what, w.group(), w.promotions())
}

func (w *regionWorld) promotions() (all []*writv1.Promotion) {
	for _, key := range slices.Sorted(maps.Keys(w.kv)) {
		if strings.HasPrefix(key, prefixPromotion) {
			p := &writv1.Promotion{}
			if err := proto.Unmarshal(w.kv[key], p); err != nil {
				w.t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

// promote establishes the group and moves it to the other region, with the signatures of two people.
func (w *regionWorld) promote() {
	w.t.Helper()
	w.round()
	w.must(&writv1.ApplyGroupRequest{Spec: regionSpec()})
	w.until("the first tenure", func() bool { return w.group().State == writv1.GroupState_GROUP_STATE_STEADY })
	for range 5 {
		w.round()
	}
	plan := w.must(&writv1.PlanRequest{Group: "orders", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, Reason: "test", RequestId: "r1"}).(*writv1.Promotion)
	op := w.must(&writv1.GetOperationRequest{Id: plan.Id}).(*writv1.Operation)
	if _, err := w.ask(&writv1.ExecuteRequest{Id: plan.Id}); !errors.Is(err, lease.ErrPending) {
		w.t.Fatalf("executed without signatures: %v", err)
	}
	signers, _ := regionPeople()
	for _, s := range signers {
		armored, err := approval.Sign(s, approval.Namespace, op.Document)
		if err != nil {
			w.t.Fatal(err)
		}
		w.must(&writv1.ApproveRequest{Id: plan.Id, Signature: armored})
	}
	w.must(&writv1.ExecuteRequest{Id: plan.Id})
	w.until("the promotion", func() bool { return region.PromotionEnded(w.promotions()[0].State) })
}

// audited counts the records of actions.
func (w *regionWorld) audited() map[string]int {
	count := map[string]int{}
	for _, r := range w.told {
		count[r.Action]++
	}
	return count
}

// A promotion goes through, whichever of its commits is a coordinator's last, and whether or not that took effect: no step is
// left out, none is on record twice, and the next tenure rests on the proof of every guard.
func TestAPromotionOutlivesItsCoordinators(t *testing.T) {
	whole := newRegionWorld(t)
	whole.promote()
	want := whole.audited()
	for _, action := range []string{"approvers.change", "group.apply", "tenure.grant", "tenure.fence", "operation.propose", "operation.approve", "operation.execute", "promotion.done"} {
		if want[action] == 0 {
			t.Errorf("no %s on record: %v", action, want)
		}
	}
	t.Logf("%d commits", whole.commits)
	for killAt := 2; killAt <= whole.commits; killAt++ {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("commit %d, applied %t", killAt, applied), func(t *testing.T) {
				w := newRegionWorld(t)
				w.killAt, w.applied = killAt, applied
				w.promote()
				g, rec := w.group(), w.tenure()
				if len(w.promotions()) != 1 || w.promotions()[0].State != writv1.PromotionState_PROMOTION_STATE_DONE ||
					g.Primary != "us" || !rec.Held || rec.Holder.Region != "us" || fence.Token(g.Token) != rec.Token {
					t.Fatalf("the group is %v with %+v, promotions %v", g, rec, w.promotions())
				}
				for action, n := range w.audited() {
					if once := strings.HasPrefix(action, "promotion.") || strings.HasPrefix(action, "tenure."); once && action != "promotion.hook" && n != want[action] {
						t.Errorf("%d times %s on record, want %d", n, action, want[action])
					}
				}
			})
		}
	}
}

// What a promotion leaves on record says to auditors who could write, before and after, and who had agreed to that.
func TestAuditorsReadWhatAPromotionLeaves(t *testing.T) {
	w := newRegionWorld(t)
	w.promote()
	var fenced audit.Record
	for _, r := range w.told {
		for _, key := range []string{"token", "old_token"} {
			if text := r.Detail[key]; text != "" {
				if token, err := fence.ParseToken(text); err != nil || token.Decimal() != text {
					t.Errorf("%s of %s is %q, which is no decimal token", key, r.Action, text)
				}
			}
		}
		if r.Action == "tenure.fence" && r.Detail["region"] == "eu" {
			fenced = r
		}
	}
	p := w.promotions()[0]
	now := audit.Who("orders", w.moment().Wall.Add(time.Hour), 0, slices.Values(w.told))
	if len(now.Writable) != 1 || now.Writable[0].Region != "us" || now.Writable[0].Token != w.tenure().Token || now.Writable[0].Promotion != p.Id ||
		strings.Join(now.Writable[0].ApprovedBy, " ") != "ann bob" {
		t.Errorf("in the end: %+v", now)
	}
	before := audit.Who("orders", fenced.At.Add(-time.Millisecond), 0, slices.Values(w.told))
	if len(before.Writable) != 1 || before.Writable[0].Region != "eu" || before.Writable[0].Token != fence.Token(p.ExpectedToken) {
		t.Errorf("before it was fenced: %+v", before)
	}
}

// established is a world whose group has its first tenure.
func established(t *testing.T) *regionWorld {
	w := newRegionWorld(t)
	w.round()
	w.must(&writv1.ApplyGroupRequest{Spec: regionSpec()})
	w.until("the first tenure", func() bool { return w.group().State == writv1.GroupState_GROUP_STATE_STEADY })
	for range 5 {
		w.round()
	}
	return w
}

// run lets the coordinator do what becomes due, and nobody else anything.
func (w *regionWorld) run(by time.Duration) {
	for until := w.now.Add(by); w.engine.effects.Wake <= until; {
		w.now = max(w.now, w.engine.effects.Wake)
		w.tell(Tick{})
	}
	w.now = w.now.Add(by)
}

// An agent that waits costs no round until it is answered, and is not answered when it has gone.
func TestAWaitingAgentCostsNoRounds(t *testing.T) {
	w := established(t)
	poll := func() lease.CallID {
		return w.submit(region.Command{Caller: lease.Caller{Principal: "agent-eu"}, Ask: &writv1.AgentPollRequest{
			Agent: "agent", Region: "eu", Session: "2", Wait: durationpb.New(10 * time.Second)}})
	}
	w.run(11 * time.Second) // what came before is over
	id := poll()
	w.run(time.Second)
	before := w.commits + w.confirms
	w.run(5 * time.Second)
	if _, ok := w.answers[id]; ok || w.commits+w.confirms != before {
		t.Errorf("%d rounds while nothing happened (answered: %t), want none", w.commits+w.confirms-before, ok)
	}
	w.run(6 * time.Second)
	if r, ok := w.answers[id]; !ok || r.Err != nil {
		t.Errorf("answered %+v (%t) after its wait, want an answer", r, ok)
	}
	gone := poll()
	w.tell(Abandoned{ID: gone})
	w.run(11 * time.Second)
	if r, ok := w.answers[gone]; ok {
		t.Errorf("an agent that had gone was answered %+v", r)
	}
}

// After a new epoch nobody has the tenure, which is committed before anything else, and people name the primary.
func TestANewEpochEndsTenures(t *testing.T) {
	w := established(t)
	before := w.tenure()
	id := &writv1.IdentityRecord{}
	if err := proto.Unmarshal(w.kv[KeyIdentity], id); err != nil {
		t.Fatal(err)
	}
	id.Epoch, id.Ceiling = id.Epoch+1, 0
	w.kv[KeyIdentity] = marshal(id)
	w.start()
	w.tell(Tick{})
	if rec := w.tenure(); rec.Held || rec.TenureGroup != "orders" || rec.Token != before.Token {
		t.Errorf("the tenure is %+v, want it ended and still the group's", rec)
	}
	if g := w.group(); g.State != writv1.GroupState_GROUP_STATE_RECOVERED || g.Primary != "" || g.LastPrimary != "eu" {
		t.Errorf("the group is %v, want it RECOVERED", g)
	}
}

// While a foreign state is on its way to a new epoch, nothing is decided about groups.
func TestGroupsWaitForARecovery(t *testing.T) {
	w := established(t)
	id := &writv1.IdentityRecord{}
	if err := proto.Unmarshal(w.kv[KeyIdentity], id); err != nil {
		t.Fatal(err)
	}
	id.Recovery = &writv1.Recovery{Id: "r", Reason: "a test"}
	w.kv[KeyIdentity] = marshal(id)
	w.start()
	r := w.answers[w.submit(region.Command{Ask: &writv1.ListGroupsRequest{}})]
	if !errors.Is(r.Err, lease.ErrRecovering) {
		t.Errorf("answered %+v, want RECOVERING", r)
	}
}
