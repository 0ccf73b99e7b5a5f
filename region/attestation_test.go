package region

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// newForgotten is a world with the group orders, and a guard of its tenure that died without having heard of the rule, and is out.
func newForgotten(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.deafGuards["old"] = true
	w.enrol("old", "eu", "*")
	beginOrders(t, w, nil)
	w.lose("old")
	return w
}

// lose has a guard die, and waits until it is out.
func (w *world) lose(guard string) {
	w.t.Helper()
	w.deadGuards[guard] = true
	w.pass(30 * time.Second)
	if rec := w.guards[guard]; !rec.GetOut() {
		w.t.Fatalf("the guard is %v", rec)
	}
}

// tableAsk asks the table as somebody, and lets rounds pass until it is answered.
func (w *world) tableAsk(cmd lease.Command) lease.Reply {
	w.t.Helper()
	w.last++
	id := w.last
	w.tableAsks = append(w.tableAsks, lease.Request{ID: id, Intake: w.now, Command: cmd})
	w.settle()
	r, ok := w.answers[id]
	if !ok {
		w.t.Fatalf("no answer to %T", cmd)
	}
	return r
}

// replacement asks to enrol another process, with other floors, as a guard.
func (w *world) replacement(guard string) lease.Reply {
	w.t.Helper()
	return w.tableAsk(lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: &writv1.GuardRequest{Guard: guard, Session: "new",
		Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{Region: "eu", Covers: []string{"orders"}, Store: "new", Slack: durationpb.New(time.Second)}}}})
}

func (w *world) attest(group, guard string) string {
	w.t.Helper()
	return w.must("ops", &writv1.AttestGuardRequest{Group: group, Guard: guard, Reason: "it burnt"}).(*writv1.Operation).Id
}

// answered has two people answer for a guard.
func (w *world) answered(group, guard string) {
	w.t.Helper()
	id := w.attest(group, guard)
	if err := w.sign(id); err != nil {
		w.t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: id})
	w.settle()
	if w.guards[guard] != nil {
		w.t.Fatalf("the guard is on the list still: %v", w.guards[guard])
	}
}

// refusal asks for what has to be refused for that reason, in those words. It answers when to ask again.
func (w *world) refusal(ask proto.Message, reason lease.Reason, words ...string) (again time.Duration) {
	w.t.Helper()
	_, err := w.ask("ops", ask)
	if err == nil || err.Reason != reason {
		w.t.Fatalf("%v: %v, want %s", ask, err, reason)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) && err.Field != word {
			w.t.Errorf("%v says nothing of %q", err, word)
		}
	}
	return err.RetryAfter
}

func TestPeopleAnswerForAGuardWhoseReplacementWaits(t *testing.T) {
	w := newForgotten(t)
	old := w.replacement("old")
	if old.Err == nil || old.Err.Reason != lease.ReasonConflict || !strings.Contains(old.Err.Fix, "writ guard attest") {
		t.Fatalf("another process enrolled: %+v", old)
	}
	alone := w.tableAsk(lease.RemoveGuard{Caller: lease.Caller{Principal: "ops"}, Name: "old", Attest: true, Reason: "it burnt"})
	if alone.Err == nil || alone.Err.Reason != lease.ReasonDenied || !strings.Contains(alone.Err.Fix, "writ guard attest old --group orders") {
		t.Fatalf("one person was enough: %+v", alone)
	}

	id := w.attest("orders", "old")
	op := w.operations[id]
	if op.Kind != writv1.OperationKind_OPERATION_KIND_ATTESTATION || op.Group != "orders" || op.Promotion != "" || op.Rule.GetPeople() != 2 {
		t.Fatalf("the operation is %v", op)
	}
	for _, said := range []string{`"guard":"old"`, `"session":"old"`, `"tenures":[{"group":"orders","resource":"orders"}]`, `"reason":"it burnt"`} {
		if !strings.Contains(string(op.Document), said) {
			t.Errorf("people sign %s without %s", op.Document, said)
		}
	}
	w.refusal(&writv1.ExecuteOperationRequest{Id: id}, lease.ReasonPending, "2 more people")
	if w.guards["old"] == nil {
		t.Fatal("the guard is off the list")
	}
	if err := w.sign(id); err != nil {
		t.Fatal(err)
	}
	w.notes = nil
	w.must("ops", &writv1.ExecuteOperationRequest{Id: id})
	w.must("ops", &writv1.ExecuteOperationRequest{Id: id}) // who has not heard the answer
	if w.guards["old"] != nil || w.operations[id].State != writv1.OperationState_OPERATION_STATE_EXECUTED {
		t.Fatalf("the guard is %v, the operation %v", w.guards["old"], w.operations[id].State)
	}
	removed := slices.IndexFunc(w.notes, func(n lease.Note) bool { return n.Action == "guard.remove" })
	executed := slices.IndexFunc(w.notes, func(n lease.Note) bool { return n.Action == "operation.execute" })
	if removed < 0 || executed < 0 {
		t.Fatalf("it is not told: %v", w.notes)
	}
	if n := w.notes[removed]; n.Target != "old" || n.Actor != "ops" || n.Reason != "it burnt" || n.Detail["proof"] != "attested" || n.Detail["operation"] != id {
		t.Errorf("it is told as %+v", n)
	}
	if n := w.notes[executed]; n.Target != id || n.Detail["approvers"] != "ann bob" {
		t.Errorf("it is told as %+v", n)
	}

	seeded := w.replacement("old")
	say, _ := seeded.Value.(*writv1.GuardResponse)
	floors := say.GetEnrolled().GetFloors()
	if seeded.Err != nil || say.GetEnrolled().GetBase() == 0 || len(floors) != 1 || floors[0].Resource != "orders" || floors[0].Token != w.groups["orders"].Token {
		t.Fatalf("the replacement is answered %v, %v", say, seeded.Err)
	}
	// The first process comes back: it is not the one on the list.
	back := w.tableAsk(lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: &writv1.GuardRequest{Guard: "old", Session: "old",
		Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{}}}})
	if back.Err == nil || back.Err.Reason != lease.ReasonConflict {
		t.Fatalf("the first process is answered %+v", back)
	}
}

func TestAGuardThatWasAnsweredForAndComesBackIsSeeded(t *testing.T) {
	w := newForgotten(t)
	w.answered("orders", "old")
	contact := &writv1.GuardRequest{Guard: "old", Session: "old", Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{}}}
	if r := w.tableAsk(lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: contact}); r.Err == nil || r.Err.Reason != lease.ReasonNotFound {
		t.Fatalf("it is answered %+v", r)
	}
	enrol := &writv1.GuardRequest{Guard: "old", Session: "old.2", Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{
		Region: "eu", Covers: []string{"*"}, Store: "old", Slack: durationpb.New(time.Second)}}}
	r := w.tableAsk(lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: enrol})
	say, _ := r.Value.(*writv1.GuardResponse)
	if r.Err != nil || len(say.GetEnrolled().GetFloors()) == 0 || w.guards["old"].GetRulesVersion() != w.rules.GetVersion() {
		t.Fatalf("it is answered %v, %v, and recorded as %v", say, r.Err, w.guards["old"])
	}
}

func TestPeopleAnswerForAGuardOfAGroupThatIsRemoved(t *testing.T) {
	w := newForgotten(t)
	op := w.must("ops", &writv1.RemoveGroupRequest{Name: "orders", Reason: "not needed"}).(*writv1.ApplyGroupResponse).Operation
	if err := w.sign(op.Id); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
	w.pass(time.Minute)
	shown := w.must("ops", &writv1.GetGroupRequest{Name: "orders"}).(*writv1.Group)
	if shown.State != writv1.GroupState_GROUP_STATE_REMOVING || len(shown.Waits) != 1 || !strings.Contains(shown.Waits[0].What, "writ guard attest") {
		t.Fatalf("the group is %v, and waits for %v", shown.State, shown.Waits)
	}
	w.answered("orders", "old")
	w.pass(time.Second)
	if g := w.groups["orders"]; g != nil && g.State != writv1.GroupState_GROUP_STATE_REMOVED || w.table.Tenure("orders").Group != "" {
		t.Fatalf("the group is %v", g)
	}
}

func TestPeopleAnswerForAGuardBeforeTheFirstTenure(t *testing.T) {
	w := newWorld(t)
	w.enrol("old", "eu", "*")
	w.round()
	w.lose("old")
	w.must("ops", &writv1.ApplyGroupRequest{Spec: &writv1.GroupSpec{Name: "orders", Regions: []*writv1.GroupRegion{
		{Name: "eu", Role: writv1.RegionRole_REGION_ROLE_PRIMARY}, {Name: "us", Role: writv1.RegionRole_REGION_ROLE_STANDBY}}}})
	w.pass(time.Minute)
	if g := w.groups["orders"]; g.GetState() != writv1.GroupState_GROUP_STATE_ESTABLISHING {
		t.Fatalf("the group is %v", g)
	}
	w.answered("orders", "old")
	w.pass(time.Second)
	if g := w.groups["orders"]; g.GetState() != writv1.GroupState_GROUP_STATE_STEADY || g.Primary != "eu" {
		t.Fatalf("the group is %v", g)
	}
	if proofs := w.records["orders"].Proofs; !slices.Contains(proofs, lease.Proof{Guard: "old", How: lease.ProofAttested}) {
		t.Errorf("the tenure's proofs are %v", proofs)
	}
}

// It ends the waiting of a promotion that is under way as well, and of the next coordinator.
func TestPeopleAnswerForAGuardWhileAPromotionAwaitsIt(t *testing.T) {
	w := newForgotten(t)
	id := w.begun(writv1.PromotionMode_PROMOTION_MODE_FAILOVER, "us", &writv1.Loss{})
	w.pass(time.Minute)
	if w.state(id) != fencing {
		t.Fatalf("the promotion is %s", w.tell())
	}
	attested := w.attest("orders", "old")
	if err := w.sign(attested); err != nil {
		t.Fatal(err)
	}
	w.takeover()
	w.pass(time.Minute)
	if w.state(id) != fencing {
		t.Fatalf("the promotion is %s", w.tell())
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: attested})
	w.takeover()
	w.pass(time.Minute)
	if s := w.state(id); s == fencing || w.groups["orders"].Primary != "us" {
		t.Fatalf("the promotion is %s", w.tell())
	}
}

func TestWhoAnswersForAGuardOfSeveralGroups(t *testing.T) {
	w := newForgotten(t)
	spec := func(name string, change *writv1.ApprovalRule) *writv1.GroupSpec {
		return &writv1.GroupSpec{Name: name, Approvals: &writv1.GroupApprovals{Change: change}, Regions: []*writv1.GroupRegion{
			{Name: "eu", Role: writv1.RegionRole_REGION_ROLE_PRIMARY}, {Name: "us", Role: writv1.RegionRole_REGION_ROLE_STANDBY}}}
	}
	w.apply(spec("bills", &writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(time.Minute)}))
	w.pass(2 * time.Second)
	id := w.attest("orders", "old")
	op := w.operations[id]
	if op.Rule.GetPeople() != 2 || op.ExpiresAt.AsTime().Sub(op.CreatedAt.AsTime()) != time.Minute {
		t.Fatalf("the operation is %v", op)
	}
	if !strings.Contains(string(op.Document), `"tenures":[{"group":"bills","resource":"bills"},{"group":"orders","resource":"orders"}]`) {
		t.Errorf("people sign %s", op.Document)
	}
	if err := w.sign(id); err != nil {
		t.Fatal(err)
	}
	// The rule of each group counts as it is by now.
	w.apply(spec("bills", &writv1.ApprovalRule{People: 3, ValidFor: durationpb.New(time.Minute)}))
	w.refusal(&writv1.ExecuteOperationRequest{Id: id}, lease.ReasonPending, "1 more person")
	w.apply(spec("zebras", nil))
	w.refusal(&writv1.ExecuteOperationRequest{Id: id}, lease.ReasonConflict, "other tenures")
	if w.guards["old"] == nil {
		t.Fatal("the guard is off the list")
	}
}

func TestAWordForAGuardThatIsHeardOfAgainDoesNotCount(t *testing.T) {
	w := newForgotten(t)
	id := w.attest("orders", "old")
	if err := w.sign(id); err != nil {
		t.Fatal(err)
	}
	enrol := func(session string) {
		w.t.Helper()
		r := w.tableAsk(lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: &writv1.GuardRequest{Guard: "old", Session: session,
			Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{Region: "eu", Covers: []string{"*"}, Store: "old", Slack: durationpb.New(time.Second)}}}})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	enrol("again")
	if again := w.refusal(&writv1.ExecuteOperationRequest{Id: id}, lease.ReasonConflict, "not out"); again <= 0 || again > 12*time.Second {
		t.Errorf("ask again in %v", again)
	}
	w.pass(time.Minute)
	w.refusal(&writv1.ExecuteOperationRequest{Id: id}, lease.ReasonConflict, "has enrolled since")
	if w.guards["old"] == nil {
		t.Fatal("the guard is off the list")
	}
	w.answered("orders", "old")
}

func TestAWordForAGuardEndsWithItsEpoch(t *testing.T) {
	w := newForgotten(t)
	id := w.attest("orders", "old")
	if err := w.sign(id); err != nil {
		t.Fatal(err)
	}
	w.rebuild()
	w.settle()
	w.refusal(&writv1.ExecuteOperationRequest{Id: id}, lease.ReasonConflict, "void")
	if w.guards["old"] == nil {
		t.Fatal("the guard is off the list")
	}
}

func TestWhatIsNoAttestation(t *testing.T) {
	w := newForgotten(t)
	w.enrol("other", "eu", "bills")
	w.round()
	w.lose("other")
	before := len(w.operations)
	for _, test := range []struct {
		ask    *writv1.AttestGuardRequest
		reason lease.Reason
		words  []string
	}{
		{&writv1.AttestGuardRequest{Guard: "old"}, lease.ReasonInvalid, []string{"id", "name the promotion"}},
		{&writv1.AttestGuardRequest{Id: "orders-1.1", Group: "orders", Guard: "old"}, lease.ReasonInvalid, []string{"group", "leave out one"}},
		{&writv1.AttestGuardRequest{Group: "bills", Guard: "old"}, lease.ReasonNotFound, []string{`no group "bills"`, "writ group list"}},
		{&writv1.AttestGuardRequest{Group: "orders", Guard: "new"}, lease.ReasonNotFound, []string{"guard", "writ guard list"}},
		{&writv1.AttestGuardRequest{Group: "orders", Guard: "guard-eu"}, lease.ReasonConflict, []string{"guard", "is not out", "stop it"}},
		{&writv1.AttestGuardRequest{Group: "orders", Guard: "other"}, lease.ReasonConflict, []string{"group", "does not cover", "writ guard remove --attest"}},
	} {
		w.refusal(test.ask, test.reason, test.words...)
	}
	w.machine.approvers = nil
	w.refusal(&writv1.AttestGuardRequest{Group: "orders", Guard: "old"}, lease.ReasonDenied, "no approvers")
	if n := len(w.operations) - before; n != 0 {
		t.Errorf("%d operations were made", n)
	}
}
