package region

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// pendingChange is an operation that gives the group's primary another writer.
func pendingChange(t *testing.T, w *world, requester string) *writv1.Operation {
	t.Helper()
	spec := proto.CloneOf(w.groups["bills"].Spec)
	spec.Regions[0].Writers = append(spec.Regions[0].Writers, "app")
	op := w.must(requester, &writv1.ApplyGroupRequest{Spec: spec}).(*writv1.ApplyGroupResponse).Operation
	if op == nil {
		t.Fatal("nobody has to agree")
	}
	return op
}

// refused asks for what has to be refused for a reason, in an audit record, and changes nothing.
func refused(t *testing.T, w *world, ask proto.Message, reason lease.Reason, says, action string) {
	t.Helper()
	w.settle()
	commits, notes := w.commits, len(w.notes)
	_, err := w.ask("cli", ask)
	if err == nil || err.Reason != reason || !strings.Contains(err.Error(), says) || (err.Fix == "" && reason != lease.ReasonPending && reason != lease.ReasonConflict) {
		t.Fatalf("%v, want %s that says %q", err, reason, says)
	}
	if w.commits != commits {
		t.Errorf("something was changed")
	}
	for _, n := range w.notes[notes:] {
		if n.Action == action && strings.Contains(n.Reason, says) {
			return
		}
	}
	t.Errorf("there is no record %s of it: %v", action, w.notes[notes:])
}

func TestSignaturesThatDoNotCountAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(*writv1.ApproverSet)
		before []ssh.Signer
		key    ssh.Signer
		spoil  func(doc []byte) (string, []byte)
		reason lease.Reason
		says   string
	}{
		"of another namespace": {key: annKey, spoil: func(d []byte) (string, []byte) { return "git", d }, reason: lease.ReasonDenied, says: "was made for \"git\""},
		"over another digest": {key: annKey, spoil: func(d []byte) (string, []byte) {
			return approval.Namespace, []byte(strings.Replace(string(d), "app", "axe", 1))
		}, reason: lease.ReasonDenied, says: "is not over this document"},
		"by an expired key": {key: bobKey, set: func(s *writv1.ApproverSet) {
			s.Approvers[1].Keys[0].ExpiresAt = timestamppb.New(worldStart.Add(-time.Second))
		}, reason: lease.ReasonDenied, says: "expired at"},
		"by a revoked key":  {key: annOther, set: func(s *writv1.ApproverSet) { s.Approvers[0].Keys[1].Revoked = true }, reason: lease.ReasonDenied, says: "is revoked"},
		"by an unknown key": {key: danKey, reason: lease.ReasonDenied, says: "which no approver has"},
		"twice by one person under two keys": {before: []ssh.Signer{annKey}, key: annOther, reason: lease.ReasonConflict,
			says: "ann has signed already"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBills(t)
			if c.set != nil {
				set := proto.CloneOf(w.approvers)
				c.set(set)
				w.approvers = set
				w.takeover()
			}
			op := pendingChange(t, w, "ops")
			for _, k := range c.before {
				w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, k, approval.Namespace, op.Document)})
			}
			namespace, document := approval.Namespace, op.Document
			if c.spoil != nil {
				namespace, document = c.spoil(op.Document)
			}
			refused(t, w, &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, c.key, namespace, document)}, c.reason, c.says, "operation.refuse")
		})
	}
	t.Run("that are no signatures", func(t *testing.T) {
		w := newBills(t)
		op := pendingChange(t, w, "ops")
		refused(t, w, &writv1.ApproveRequest{Id: op.Id, Signature: "yes"}, lease.ReasonInvalid, "signature", "operation.refuse")
		if _, err := w.ask("cli", &writv1.ApproveRequest{Id: "bills-1.9", Signature: "yes"}); err == nil || err.Reason != lease.ReasonNotFound {
			t.Errorf("an operation that is not there: %v", err)
		}
	})
}

func TestOnlyTheCoordinatorsClockCounts(t *testing.T) {
	// What an approver's machine believes of the time is nowhere in a signature. An hour by the coordinator's clock is one.
	w := newBills(t)
	op := pendingChange(t, w, "ops")
	w.now = w.now.Add(59 * time.Minute)
	w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, annKey, approval.Namespace, op.Document)})
	w.now = w.now.Add(time.Minute)
	_, err := w.ask("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, bobKey, approval.Namespace, op.Document)})
	if err == nil || err.Reason != lease.ReasonExpired || !strings.Contains(err.Message, "by the coordinator's clock") {
		t.Errorf("an hour later: %v", err)
	}
	w.pass(time.Second)
	if got := w.operations[op.Id]; got.State != writv1.OperationState_OPERATION_STATE_EXPIRED || got.EndedAt == nil {
		t.Errorf("it has not ended by itself: %v", got)
	}
}

func TestExpiryIsCheckedAgainAtExecution(t *testing.T) {
	w := newBills(t)
	op := pendingChange(t, w, "ops")
	for _, k := range []ssh.Signer{annKey, bobKey} {
		w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, k, approval.Namespace, op.Document)})
	}
	w.now = w.now.Add(time.Hour)
	if _, err := w.ask("ops", &writv1.ExecuteOperationRequest{Id: op.Id}); err == nil || err.Reason != lease.ReasonExpired {
		t.Errorf("%v", err)
	}
	if w.groups["bills"].Version != 1 {
		t.Error("it has happened all the same")
	}
}

func TestARoleThatIsMissingKeepsAnOperationPending(t *testing.T) {
	w := newBills(t)
	op := pendingChange(t, w, "ann@laptop")
	if !strings.Contains(op.Missing, "2 more people") {
		t.Errorf("missing %q", op.Missing)
	}
	op = w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, annKey, approval.Namespace, op.Document)}).(*writv1.Operation)
	if !strings.Contains(op.Missing, "with role dba") {
		t.Errorf("missing %q", op.Missing)
	}
	refused(t, w, &writv1.ExecuteOperationRequest{Id: op.Id}, lease.ReasonPending, "with role dba", "operation.refuse")
	again := w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: op.Approvals[0].Signature}).(*writv1.Operation)
	if len(again.Approvals) != 1 {
		t.Error("the same signature counts twice")
	}
	w.must("cli", &writv1.WithdrawRequest{Id: op.Id, Approver: "ann"})
	refused(t, w, &writv1.ApproveRequest{Id: op.Id, Signature: op.Approvals[0].Signature}, lease.ReasonConflict, "has taken back", "operation.refuse")
	for _, k := range []ssh.Signer{bobKey, cydKey} {
		refused(t, w, &writv1.ExecuteOperationRequest{Id: op.Id}, lease.ReasonPending, "lacks", "operation.refuse") // without ann
		w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, k, approval.Namespace, op.Document)})
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
	if g := w.groups["bills"]; g.Version != 2 || g.Spec.Regions[0].Writers[0] != "app" {
		t.Errorf("the group is %v", g)
	}
	if _, err := w.ask("cli", &writv1.WithdrawRequest{Id: op.Id, Approver: "bob"}); err == nil || err.Reason != lease.ReasonConflict {
		t.Errorf("a signature was taken back when it had been executed: %v", err)
	}
}

// What was proposed for the group as it was before can never be executed, and so must not use up what may wait for signatures.
func TestAChangeEndsTheProposalsThatItOvertakes(t *testing.T) {
	w := newBills(t)
	op := pendingChange(t, w, "ops")
	var rivals []string
	for i := range maxPending - 1 {
		spec := proto.CloneOf(w.groups["bills"].Spec)
		spec.Regions[0].Writers = []string{fmt.Sprintf("rival-%d", i)}
		rivals = append(rivals, w.must("ops", &writv1.ApplyGroupRequest{Spec: spec}).(*writv1.ApplyGroupResponse).Operation.Id)
	}
	full := proto.CloneOf(w.groups["bills"].Spec)
	full.Regions[0].Writers = []string{"one-more"}
	if _, err := w.ask("ops", &writv1.ApplyGroupRequest{Spec: full}); err == nil || err.Reason != lease.ReasonLimit {
		t.Fatalf("one more than may wait: %v", err)
	}
	if err := signBoth(t, w, op, annKey, bobKey); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
	w.pass(time.Second)
	for _, id := range rivals {
		if got := w.operations[id]; got.State != writv1.OperationState_OPERATION_STATE_CANCELLED || !strings.Contains(got.Reason, "the group has changed since") {
			t.Fatalf("%s is %v: %s", id, got.State, got.Reason)
		}
	}
	if _, err := w.ask("ops", &writv1.ExecuteOperationRequest{Id: rivals[0]}); err == nil || err.Reason != lease.ReasonConflict {
		t.Errorf("one that was overtaken: %v", err)
	}
	w.must("ops", &writv1.ApplyGroupRequest{Spec: full})
}

func TestAKeyThatIsRevokedAfterSigningDoesNotCount(t *testing.T) {
	w := newBills(t)
	op := pendingChange(t, w, "ops")
	for _, k := range []ssh.Signer{annKey, bobKey} {
		w.must("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, k, approval.Namespace, op.Document)})
	}
	set := proto.CloneOf(w.approvers)
	set.Approvers[1].Keys[0].Revoked = true
	change := w.must("ops", &writv1.ChangeApproversRequest{Set: set, Reason: "lost laptop"}).(*writv1.Operation)
	if err := signBoth(t, w, change, annKey, cydKey); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: change.Id})
	got := w.operations[op.Id]
	if w.approvers.Version != 2 || got.State != writv1.OperationState_OPERATION_STATE_CANCELLED || !strings.Contains(got.Reason, "approvers have changed") {
		t.Errorf("the set has version %d, and the operation is %v: %s", w.approvers.Version, got.State, got.Reason)
	}
	if _, err := w.ask("ops", &writv1.ExecuteOperationRequest{Id: op.Id}); err == nil || err.Reason != lease.ReasonConflict {
		t.Errorf("%v", err)
	}
}

func signBoth(t *testing.T, w *world, op *writv1.Operation, keys ...ssh.Signer) *lease.Error {
	for _, k := range keys {
		if _, err := w.ask("cli", &writv1.ApproveRequest{Id: op.Id, Signature: signedBy(t, k, approval.Namespace, op.Document)}); err != nil {
			return err
		}
	}
	return nil
}

func TestApproversThatAreBrokenAreRefused(t *testing.T) {
	w := newBills(t)
	for name, c := range map[string]struct {
		change func(*writv1.ApproverSet)
		says   string
	}{
		"a broken key":            {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[1].PublicKey = "ssh-ed25519 AAAA" }, "approvers[ann].keys[2].public_key"},
		"one person":              {func(s *writv1.ApproverSet) { s.Approvers = s.Approvers[:1] }, "rule.people"},
		"a rule of one":           {func(s *writv1.ApproverSet) { s.Rule.People = 1 }, "rule.people"},
		"one key of two people":   {func(s *writv1.ApproverSet) { s.Approvers[2].Keys[0].PublicKey = publicText(bobKey) }, "a key of bob as well as of cyd"},
		"too few for the group":   {func(s *writv1.ApproverSet) { s.Approvers[0].Roles, s.Approvers[2].Roles = nil, nil }, "for the group bills"},
		"nothing that is changed": {func(*writv1.ApproverSet) {}, "is what it is already"},
	} {
		t.Run(name, func(t *testing.T) {
			set := proto.CloneOf(w.approvers)
			c.change(set)
			refused(t, w, &writv1.ChangeApproversRequest{Set: set}, lease.ReasonInvalid, c.says, "operation.refuse")
		})
	}
	stale := proto.CloneOf(w.approvers)
	stale.Version = 7
	refused(t, w, &writv1.ChangeApproversRequest{Set: stale}, lease.ReasonConflict, "of version 1 by now, not 7", "operation.refuse")
}

func TestOperationsOfAnotherEpochAreVoid(t *testing.T) {
	w := newBills(t)
	op := pendingChange(t, w, "ops")
	if err := signBoth(t, w, op, annKey, bobKey); err != nil {
		t.Fatal(err)
	}
	w.rebuild()
	w.settle()
	if got := w.operations[op.Id]; got.State != writv1.OperationState_OPERATION_STATE_VOID {
		t.Errorf("it is %v", got.State)
	}
	if g := w.groups["bills"]; g.State != writv1.GroupState_GROUP_STATE_RECOVERED || g.Primary != "" || g.LastPrimary != "eu" || g.Version != 1 {
		t.Errorf("the group is %v", g)
	}
	for range 2 { // once more, for one that was RECOVERED already
		w.takeover()
		w.settle()
		if g := w.groups["bills"]; g.LastPrimary != "eu" || g.Epoch != uint32(w.config.Epoch) {
			t.Errorf("who was primary, and when, is forgotten: %v", g)
		}
		w.rebuild()
	}
}

func TestWithoutApproversNothingIsApproved(t *testing.T) {
	w := newWorld(t)
	w.config.Approvers = nil
	w.load()
	spec := plainSpec()
	spec.Approvals = &writv1.GroupApprovals{Switchover: &writv1.ApprovalRule{None: true}}
	w.must("ops", &writv1.ApplyGroupRequest{Spec: spec})
	w.settle()
	spec.Regions[0].Writers = []string{"app"}
	refused(t, w, &writv1.ApplyGroupRequest{Spec: spec}, lease.ReasonDenied, "there are no approvers", "group.refuse")
	refused(t, w, &writv1.ChangeApproversRequest{Set: threePeople()}, lease.ReasonDenied, "there are no approvers", "operation.refuse")
	if _, err := w.ask("ops", &writv1.GetApproversRequest{}); err == nil || err.Reason != lease.ReasonNotFound {
		t.Errorf("%v", err)
	}
	w.config.Approvers = threePeople()
	w.takeover()
	w.settle()
	w.takeover()
	w.settle()
	n := 0
	for _, note := range w.notes {
		if note.Action == "approvers.change" {
			n++
		}
	}
	if w.approvers.GetVersion() != 1 || n != 1 {
		t.Errorf("the first set is %v, told %d times", w.approvers, n)
	}
}

func TestEndedOperationsAreForgotten(t *testing.T) {
	w := newBills(t)
	for range keptOperations + 10 {
		op := pendingChange(t, w, "ops")
		w.now = w.now.Add(time.Hour + time.Minute)
		w.settle()
		if w.operations[op.Id].State != writv1.OperationState_OPERATION_STATE_EXPIRED {
			t.Fatalf("%v", w.operations[op.Id])
		}
	}
	pendingChange(t, w, "ops")
	if len(w.operations) != keptOperations+1 {
		t.Errorf("%d operations are kept", len(w.operations))
	}
	list := w.must("ops", &writv1.ListOperationsRequest{Group: "bills", Limit: 3}).(*writv1.ListOperationsResponse).Operations
	if len(list) != 3 || list[0].State != writv1.OperationState_OPERATION_STATE_PENDING || compareIDs(list[1].Id, list[2].Id) < 0 {
		t.Errorf("listed %v", list)
	}
	if open := w.must("ops", &writv1.ListOperationsRequest{Open: true}).(*writv1.ListOperationsResponse).Operations; len(open) != 1 {
		t.Errorf("%d are open", len(open))
	}
}

// Changes that nobody signs are not in the way of a failover, nor of what it asks for.
func TestPendingChangesLeaveRoomForAFailover(t *testing.T) {
	w := newOrders(t, nil)
	for i := range maxPending + 1 {
		_, err := w.ask("ci", &writv1.RemoveGroupRequest{Name: "orders", Reason: fmt.Sprint(i)})
		if (err == nil) != (i < maxPending) || err != nil && err.Reason != lease.ReasonLimit {
			t.Fatalf("%d: %v", i, err)
		}
	}
	w.agents["eu"].dead, w.deafGuards["guard-eu"] = true, true
	w.pass(10 * time.Second)
	id := w.begun(modeFailover, "us", &writv1.Loss{Bytes: proto.Uint64(0)})
	w.pass(15 * time.Second)
	if w.state(id) != tail {
		t.Fatal(w.tell())
	}
	if list := w.must("ops", &writv1.ListOperationsRequest{Group: "orders", Open: true, Limit: 1}).(*writv1.ListOperationsResponse).Operations; list[0].Kind != writv1.OperationKind_OPERATION_KIND_TAIL {
		t.Errorf("asked for last: %v", list)
	}
}

// Groups that nobody agreed to leave no more behind than one that is there, whatever they were called.
func TestOperationsOfNoGroupAreForgotten(t *testing.T) {
	w := newBills(t)
	spec := plainSpec()
	spec.Approvals = &writv1.GroupApprovals{Switchover: &writv1.ApprovalRule{None: true}}
	propose := func(i int) {
		spec.Name = fmt.Sprintf("never-%d", i)
		if w.must("ops", &writv1.ApplyGroupRequest{Spec: spec}).(*writv1.ApplyGroupResponse).Operation == nil {
			t.Fatal("nobody has to agree")
		}
	}
	for i := range keptOperations + 20 {
		propose(i)
	}
	w.now = w.now.Add(time.Hour + time.Minute)
	w.settle()
	propose(keptOperations + 20)
	if len(w.operations) != keptOperations+1 {
		t.Errorf("%d operations are kept", len(w.operations))
	}
}

func TestAPlanMayNotOutliveItsRule(t *testing.T) {
	w := newOrders(t, func(s *writv1.GroupSpec) {
		s.Approvals.Failover = &writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(10 * time.Minute)}
	})
	if _, err := w.ask("ops", &writv1.PlanRequest{Group: "orders", To: "us", Mode: modeFailover, ValidFor: durationpb.New(11 * time.Minute)}); err == nil || err.Field != "valid_for" {
		t.Errorf("%v", err)
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	w := newOrders(t, nil)
	refused(t, w, &writv1.PlanRequest{Group: "orders", To: "eu", Mode: modeSwitchover}, lease.ReasonInvalid, "primary already", "operation.refuse")
	refused(t, w, &writv1.PlanRequest{Group: "orders", To: "us", Mode: modeSwitchover, ExpectedToken: 7}, lease.ReasonStaleToken, "expected_token", "operation.refuse")
	p, err := w.plan(modeFailover, "us", &writv1.Loss{})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, w, &writv1.ExecuteRequest{Id: p.Id}, lease.ReasonPending, "2 more people", "operation.refuse")
}
