package region

import (
	"crypto/ed25519"
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
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region/approval"
)

// world is a machine with a real table of leases, as the engine steps them, with guards, agents and people around it. What a
// round changes is stored when the round ends, and a takeover begins from what is stored.
type world struct {
	t       testing.TB
	config  Config
	table   *lease.Table
	machine *Machine
	now     clock.Instant
	tokens  uint64

	records    map[lease.Resource]lease.Record
	guards     map[string]*writv1.GuardRecord
	rules      *writv1.GuardingRecord
	groups     map[string]*writv1.Group
	promotions map[string]*writv1.Promotion
	operations map[string]*writv1.Operation
	approvers  *writv1.ApproverSet
	// copies are what records were when they were stored: they must never be changed in place.
	copies map[proto.Message]proto.Message

	tableAsks   []lease.Request
	machineAsks []Request
	last        lease.CallID
	answers     map[lease.CallID]lease.Reply
	notes       []lease.Note
	moves       []string // the transitions of the last round
	taken       map[string]int
	commits     int
	states      map[writv1.PromotionState]bool

	deadGuards        map[string]bool
	deafGuards        map[string]bool // acknowledge, and never hear of rules
	contacted, polled map[string]clock.Instant
	agents            map[string]*agentProcess
	judge             func()
}

// agentProcess is an agent. It does a hook at once, and tells with its next poll.
type agentProcess struct {
	region   string
	session  int
	dead     bool
	health   writv1.Health
	position uint64
	lag      time.Duration
	age      time.Duration                          // of what it reports
	outcomes map[writv1.HookKind]writv1.HookOutcome // what is not there succeeds
	silent   map[writv1.HookKind]bool               // never answers
	lost     []string                               // what reinstating finds
	call     lease.CallID
	results  []*writv1.TaskResult
	did      []string
}

var people = func() []ssh.Signer {
	var all []ssh.Signer
	for i := range 3 {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i + 1)
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
		if err != nil {
			panic(err)
		}
		all = append(all, s)
	}
	return all
}()

func approverSet() *writv1.ApproverSet {
	set := &writv1.ApproverSet{Version: 1, Rule: &writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(time.Hour)}}
	for i, s := range people {
		set.Approvers = append(set.Approvers, &writv1.Approver{
			Name: []string{"ann", "bob", "cyd"}[i], Keys: []*writv1.ApproverKey{{PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))}}})
	}
	return set
}

var worldStart = time.Date(2026, 11, 21, 3, 12, 0, 0, time.UTC)

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, now: clock.Instant(time.Hour), tokens: 1, records: map[lease.Resource]lease.Record{}, guards: map[string]*writv1.GuardRecord{},
		groups: map[string]*writv1.Group{}, promotions: map[string]*writv1.Promotion{}, operations: map[string]*writv1.Operation{},
		copies: map[proto.Message]proto.Message{}, answers: map[lease.CallID]lease.Reply{}, taken: map[string]int{}, states: map[writv1.PromotionState]bool{},
		deadGuards: map[string]bool{}, deafGuards: map[string]bool{}, contacted: map[string]clock.Instant{}, polled: map[string]clock.Instant{}, agents: map[string]*agentProcess{}, judge: func() {},
		config: Config{Cluster: "c", Incarnation: "i", Epoch: 1, Term: 1, Approvers: approverSet(), Interval: time.Second},
	}
	w.load()
	return w
}

func (w *world) moment() lease.Moment {
	return lease.Moment{Now: w.now, Wall: worldStart.Add(w.now.Sub(clock.Instant(time.Hour)))}
}

// load makes a coordinator of what is stored.
func (w *world) load() {
	w.table = lease.NewTable(lease.TableConfig{GuardLease: 10 * time.Second}, w.config.Epoch)
	w.tokens += 1000
	w.table.Allow(w.tokens, w.tokens+999)
	var guards []*writv1.GuardRecord
	for _, name := range slices.Sorted(maps.Keys(w.guards)) {
		guards = append(guards, w.guards[name])
	}
	w.table.LoadGuards(w.moment(), guards, w.rules)
	for _, name := range slices.Sorted(maps.Keys(w.records)) {
		w.table.Load(w.moment(), w.records[name], nil)
	}
	w.machine = NewMachine(w.config, w.table)
	state := State{Approvers: w.approvers}
	for _, name := range slices.Sorted(maps.Keys(w.groups)) {
		state.Groups = append(state.Groups, w.groups[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.promotions)) {
		state.Promotions = append(state.Promotions, w.promotions[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.operations)) {
		state.Operations = append(state.Operations, w.operations[name])
	}
	w.machine.Load(w.moment(), state)
	w.tableAsks, w.machineAsks = nil, nil
	for _, a := range w.agents {
		a.call = 0
		delete(w.polled, a.region)
	}
}

// takeover is the end of a coordinator, and the beginning of the next. What was asked and not answered is lost.
func (w *world) takeover() {
	w.config.Term++
	w.load()
}

// rebuild is a takeover in another epoch.
func (w *world) rebuild() {
	w.config.Epoch++
	w.tokens = 1
	w.takeover()
}

// round is a round of the engine: requests, the ticks, and the commit.
func (w *world) round() {
	m := w.moment()
	w.moves = nil
	tableAsks, machineAsks := w.tableAsks, w.machineAsks
	w.tableAsks, w.machineAsks = nil, nil
	for _, r := range machineAsks {
		w.effects(w.machine.Step(m, r))
	}
	for _, r := range tableAsks {
		w.tableEffects(w.table.Step(m, r))
	}
	w.tableEffects(w.table.Step(m, lease.Tick{MaxWrites: 1000, MaxBytes: 1 << 20}))
	w.effects(w.machine.Step(m, Tick{}))
	replies, notes := w.table.TakeLate()
	w.tableEffects(&lease.Effects{Replies: replies, Notes: notes})
	w.commit()
	seen := map[string]bool{}
	for _, move := range w.moves {
		id, _, _ := strings.Cut(move, " ")
		if seen[id] {
			w.t.Fatalf("%s made two transitions in one round: %q", id, w.moves)
		}
		seen[id] = true
	}
	w.judge()
	w.guardsAct()
	w.agentsAct()
}

func (w *world) commit() {
	changed := false
	w.table.Dirty(func(c lease.Change) {
		changed = true
		if c.Record == nil {
			delete(w.records, c.Resource)
			return
		}
		w.records[c.Resource] = *c.Record
	})
	if rules := w.table.DirtyGuards(func(c lease.GuardChange) {
		changed = true
		if c.Record == nil {
			delete(w.guards, c.Name)
		} else {
			w.guards[c.Name] = c.Record
		}
	}); rules != nil {
		w.rules = rules
	}
	writes, size := w.machine.DirtyWrites(), 0
	bound := w.machine.DirtyBytes()
	w.machine.Dirty(func(c Change) {
		changed = true
		writes--
		if c.Record != nil {
			size += proto.Size(c.Record)
			w.copies[c.Record] = proto.Clone(c.Record)
		}
		switch c.Kind {
		case GroupRecord:
			putRecord(w.groups, c)
		case PromotionRecord:
			putRecord(w.promotions, c)
		case OperationRecord:
			putRecord(w.operations, c)
		case ApproversRecord:
			w.approvers, _ = c.Record.(*writv1.ApproverSet)
		}
	})
	if writes != 0 || size > bound {
		w.t.Fatalf("the machine announced %d more writes, and %d bytes for %d", writes, bound, size)
	}
	for rec, old := range w.copies {
		if !proto.Equal(rec, old) {
			w.t.Fatalf("a record was changed in place:\n%v\n%v", old, rec)
		}
	}
	if len(w.copies) > 50 {
		clear(w.copies)
	}
	if changed {
		w.commits++
	}
	for _, p := range w.promotions {
		w.states[p.State] = true
	}
}

func putRecord[R proto.Message](all map[string]R, c Change) {
	if c.Record == nil {
		delete(all, c.Name)
	} else {
		all[c.Name] = c.Record.(R)
	}
}

func (w *world) effects(e *Effects) {
	for _, r := range e.Replies {
		if _, twice := w.answers[r.ID]; twice {
			w.t.Fatalf("the call %d was answered twice", r.ID)
		}
		w.answers[r.ID] = r
	}
	for _, n := range e.Notes {
		w.noted(n)
	}
}

func (w *world) tableEffects(e *lease.Effects) {
	for _, r := range e.Replies {
		w.answers[r.ID] = r
	}
	for _, n := range e.Notes {
		w.noted(n)
	}
}

func (w *world) noted(n lease.Note) {
	w.notes = append(w.notes, n)
	if t := n.Detail["transition"]; t != "" {
		w.moves = append(w.moves, n.Target+" "+t)
		w.taken[t]++
		w.checkMove(n, t)
	}
}

// checkMove holds what happened against the table.
func (w *world) checkMove(n lease.Note, name string) {
	for _, t := range Transitions() {
		if string(t.Name) != name {
			continue
		}
		for _, from := range t.From {
			if stateName(from) == n.Detail["was"] && "promotion."+strings.ToLower(stateName(t.To)) == n.Action {
				return
			}
		}
	}
	w.t.Fatalf("%s is not in the table: %v", name, n)
}

// ask asks the machine, and lets rounds pass until it is answered.
func (w *world) ask(who string, ask proto.Message) (proto.Message, *lease.Error) {
	w.last++
	id := w.last
	w.machineAsks = append(w.machineAsks, Request{ID: id, Intake: w.now, Command: Command{Caller: lease.Caller{Principal: lease.Principal(who)}, Ask: ask}})
	for range 3 {
		w.round()
		if r, ok := w.answers[id]; ok {
			if r.Err != nil {
				return nil, r.Err
			}
			return r.Value.(proto.Message), nil
		}
	}
	w.t.Fatalf("no answer to %T", ask)
	return nil, nil
}

func (w *world) must(who string, ask proto.Message) proto.Message {
	w.t.Helper()
	answer, err := w.ask(who, ask)
	if err != nil {
		w.t.Fatalf("%T: %v", ask, err)
	}
	return answer
}

// settle runs rounds for as long as something is due now.
func (w *world) settle() {
	for range 100 {
		w.round()
		if w.machine.NextDue() > w.now && w.table.NextDue() > w.now && len(w.tableAsks) == 0 && !w.agentsBusy() {
			return
		}
	}
	w.t.Fatalf("there is no end to it: %v", w.tell())
}

// pass lets time pass in steps of half a second.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now < end; {
		w.now = min(end, w.now.Add(500*time.Millisecond))
		w.settle()
	}
}

func (w *world) tell() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(w.promotions)) {
		p := w.promotions[id]
		fmt.Fprintf(&b, "%s %s stuck=%t %s; ", id, stateName(p.State), p.Stuck, p.Reason)
	}
	return b.String()
}

// ---- guards

func (w *world) guardCall(name string, req *writv1.GuardRequest) {
	w.last++
	req.Guard, req.Session = name, name
	w.tableAsks = append(w.tableAsks, lease.Request{ID: w.last, Intake: w.now, Command: lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: req}})
}

func (w *world) enrol(name, region, covers string) {
	w.guardCall(name, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{
		Region: region, Covers: []string{covers}, Store: name, Slack: durationpb.New(2 * time.Second)}}})
}

func (w *world) guardsAct() {
	for _, name := range slices.Sorted(maps.Keys(w.guards)) {
		rec := w.guards[name]
		if w.deadGuards[name] {
			continue
		}
		if rec.Out {
			w.enrol(name, rec.Region, rec.Covers[0])
			continue
		}
		if w.contacted[name] != w.now && !w.deafGuards[name] { // once an instant, so that rounds come to an end
			w.contacted[name] = w.now
			w.guardCall(name, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{RulesVersion: w.rules.GetVersion()}}})
		}
		for _, resource := range slices.Sorted(maps.Keys(w.records)) {
			for _, wait := range w.table.Tenure(resource).Awaits {
				if wait.Guard == name {
					w.guardCall(name, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Acks{Acks: &writv1.GuardAcks{
						Acks: []*writv1.GuardAck{{Resource: string(resource), Token: uint64(w.table.Tenure(resource).Fencing), Proof: writv1.GuardProof_GUARD_PROOF_ACKED}}}}})
				}
			}
		}
	}
}

// ---- agents

func (a *agentProcess) principal() string { return "agent-" + a.region }

// agentsAct lets each agent poll, once an instant, or at once when it has something to say.
func (w *world) agentsAct() {
	for _, region := range slices.Sorted(maps.Keys(w.agents)) {
		a := w.agents[region]
		if r, ok := w.answers[a.call]; a.call != 0 && ok {
			a.call = 0
			if r.Err == nil {
				w.work(a, r.Value.(*writv1.AgentPollResponse))
			}
		}
		if a.dead || a.call != 0 && w.polled[region] == w.now {
			continue
		}
		w.polled[region] = w.now
		w.last++
		a.call = w.last
		w.machineAsks = append(w.machineAsks, Request{ID: a.call, Intake: w.now, Command: Command{Caller: lease.Caller{Principal: lease.Principal(a.principal())}, Ask: w.poll(a)}})
	}
}

func (w *world) agentsBusy() bool {
	for _, a := range w.agents {
		if !a.dead && a.call != 0 {
			for _, r := range w.machineAsks {
				if poll, ok := r.Command.Ask.(*writv1.AgentPollRequest); ok && r.ID == a.call && len(poll.Results) > 0 {
					return true
				}
			}
		}
	}
	return false
}

func (w *world) poll(a *agentProcess) *writv1.AgentPollRequest {
	ask := &writv1.AgentPollRequest{Agent: "agent", Region: a.region, Session: fmt.Sprint(a.session), Wait: durationpb.New(400 * time.Millisecond), Results: a.results}
	room := uint32(500)
	report := &writv1.GroupReport{Group: "orders", Health: a.health, Detail: "as it is", Headroom: &room, Lag: durationpb.New(a.lag),
		Position: &writv1.Position{Log: "1", Bytes: a.position}, Age: durationpb.New(a.age)}
	ask.Reports = []*writv1.GroupReport{report}
	a.results = nil
	return ask
}

// work does what an agent is asked for.
func (w *world) work(a *agentProcess, answer *writv1.AgentPollResponse) {
	if a.dead {
		return
	}
	for _, t := range answer.Tasks {
		did := fmt.Sprintf("%s/%d %s", t.Promotion, t.Step, hookName(t.Kind))
		if a.silent[t.Kind] {
			continue
		}
		if !slices.Contains(a.did, did) {
			a.did = append(a.did, did)
			w.checkTask(a, t)
		}
		outcome := a.outcomes[t.Kind]
		if outcome == 0 {
			outcome = writv1.HookOutcome_HOOK_OUTCOME_DONE
		}
		r := &writv1.TaskResult{Group: t.Group, Promotion: t.Promotion, Step: t.Step, Kind: t.Kind, Outcome: outcome, Output: "said", Took: durationpb.New(time.Millisecond)}
		if t.Kind == writv1.HookKind_HOOK_KIND_DRAIN || t.Kind == writv1.HookKind_HOOK_KIND_PROMOTE {
			r.Position = &writv1.Position{Log: "1", Bytes: a.position}
		}
		if t.Kind == writv1.HookKind_HOOK_KIND_REINSTATE {
			r.Entries = a.lost
		}
		a.results = append(a.results, r)
	}
}

// checkTask holds what an agent is asked for against S6: B is promoted, and has traffic moved to it, only when every guard of the
// old tenure is fenced. Whoever moves traffic moves it to itself.
func (w *world) checkTask(a *agentProcess, t *writv1.Task) {
	if t.Kind == writv1.HookKind_HOOK_KIND_SHIFT && t.To != a.region {
		w.t.Fatalf("%s is asked to shift from %q to %q", a.region, t.From, t.To)
	}
	if t.Kind != writv1.HookKind_HOOK_KIND_PROMOTE && t.Kind != writv1.HookKind_HOOK_KIND_SHIFT {
		return
	}
	if tenure := w.records[lease.Resource(t.Resource)]; tenure.Token == fence.Token(t.Token) && (!tenure.Held || tenure.Holder.Region != a.region) {
		w.t.Fatalf("%s is asked to %s under %v, which is %v of %s", a.region, hookName(t.Kind), fence.Token(t.Token), tenure.Held, tenure.Holder.Region)
	}
}

// ---- people

// sign has two people sign an operation.
func (w *world) sign(id string) *lease.Error {
	op := w.operations[id]
	if op == nil {
		w.t.Fatalf("there is no operation %s", id)
	}
	for _, s := range people[:2] {
		armored, err := approval.Sign(s, approval.Namespace, op.Document)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.ask("cli", &writv1.ApproveRequest{Id: id, Signature: armored}); err != nil {
			return err
		}
	}
	return nil
}

const allHooks = writv1.HookKind_HOOK_KIND_REINSTATE

// ordersSpec is a group of three regions with guards, agents and every hook.
func ordersSpec() *writv1.GroupSpec {
	spec := &writv1.GroupSpec{
		Name: "orders", Rpo: &writv1.Loss{Time: durationpb.New(5 * time.Second)}, Headroom: 100, Drain: durationpb.New(20 * time.Second),
		Approvals: &writv1.GroupApprovals{Switchover: &writv1.ApprovalRule{None: true}},
	}
	for i, name := range []string{"eu", "us", "ap"} {
		role := writv1.RegionRole_REGION_ROLE_STANDBY
		if i == 0 {
			role = writv1.RegionRole_REGION_ROLE_PRIMARY
		}
		spec.Regions = append(spec.Regions, &writv1.GroupRegion{Name: name, Role: role, Priority: int32(10 - i), Agent: "agent-" + name, Guards: []string{"guard-" + name}})
	}
	for kind := writv1.HookKind_HOOK_KIND_DRAIN; kind <= allHooks; kind++ {
		spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind, Timeout: durationpb.New(5 * time.Second)})
	}
	return spec
}

// newOrders is a world with that group, steady.
func newOrders(t testing.TB, change func(*writv1.GroupSpec)) *world {
	t.Helper()
	return beginOrders(t, newWorld(t), change)
}

// beginOrders begins that group in a world.
func beginOrders(t testing.TB, w *world, change func(*writv1.GroupSpec)) *world {
	t.Helper()
	spec := ordersSpec()
	if change != nil {
		change(spec)
	}
	for _, r := range spec.Regions {
		for _, g := range r.Guards {
			w.enrol(g, r.Name, "orders")
		}
		if r.Agent != "" {
			w.agents[r.Name] = &agentProcess{region: r.Name, health: writv1.Health_HEALTH_OK, position: 1000, outcomes: map[writv1.HookKind]writv1.HookOutcome{}, silent: map[writv1.HookKind]bool{}}
		}
	}
	w.round()
	if op := w.must("ops", &writv1.ApplyGroupRequest{Spec: spec}).(*writv1.ApplyGroupResponse).Operation; op != nil {
		if err := w.sign(op.Id); err != nil {
			t.Fatal(err)
		}
		w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
	}
	w.settle()
	w.pass(2 * time.Second)
	if g := w.groups["orders"]; g.GetState() != writv1.GroupState_GROUP_STATE_STEADY || g.Primary != "eu" {
		t.Fatalf("the group is %v", g)
	}
	return w
}

// apply applies a spec, with the signatures of two people if they have to agree.
func (w *world) apply(spec *writv1.GroupSpec) {
	w.t.Helper()
	answer := w.must("ops", &writv1.ApplyGroupRequest{Spec: spec}).(*writv1.ApplyGroupResponse)
	if answer.Operation == nil {
		return
	}
	if err := w.sign(answer.Operation.Id); err != nil {
		w.t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: answer.Operation.Id})
}

func (w *world) plan(mode writv1.PromotionMode, to string, limit *writv1.Loss) (*writv1.Promotion, *lease.Error) {
	answer, err := w.ask("ops", &writv1.PlanRequest{Group: "orders", To: to, Mode: mode, LossCap: limit, Reason: "test"})
	if err != nil {
		return nil, err
	}
	return answer.(*writv1.Promotion), nil
}

// begun plans a promotion, has it signed and executes it.
func (w *world) begun(mode writv1.PromotionMode, to string, limit *writv1.Loss) string {
	w.t.Helper()
	p, err := w.plan(mode, to, limit)
	if err != nil {
		w.t.Fatal(err)
	}
	if mode != writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER {
		if err := w.sign(p.Id); err != nil {
			w.t.Fatal(err)
		}
	}
	w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
	return p.Id
}

func (w *world) state(id string) writv1.PromotionState { return w.promotions[id].GetState() }
