package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
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

// sshKey makes a key pair: the file of the private one, and the line of the public one.
func sshKey(t *testing.T, name string) (file, line string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + name
}

// What is signed is what was shown, and what the quorum has; anything else is refused before.
func TestApprove(t *testing.T) {
	p := newPromoter(t)
	op := ordersPlan(t)
	p.answers("GetOperation", op)
	keyFile, line := sshKey(t, "ada")
	set, err := approval.NewSet(&writv1.ApproverSet{
		Version: 12, Rule: &writv1.ApprovalRule{People: 2},
		Approvers: []*writv1.Approver{
			{Name: "ada", Keys: []*writv1.ApproverKey{{PublicKey: line}}},
			{Name: "bob", Keys: []*writv1.ApproverKey{{PublicKey: second(t)}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var signature string
	p.on("Approve", func(req proto.Message) (proto.Message, error) {
		signature = req.(*writv1.ApproveRequest).GetSignature()
		signer, err := set.Verify(approval.Namespace, op.GetDocument(), signature, instant)
		if err != nil || signer.Approver != "ada" {
			t.Errorf("the signature is of %+v, %v", signer, err)
		}
		return op, nil
	})
	plan := filepath.Join(t.TempDir(), "plan.json")
	if err := os.WriteFile(plan, op.GetDocument(), 0o600); err != nil {
		t.Fatal(err)
	}
	r := writ(t, "promote", "approve", plan, "--key", keyFile, "--yes", "--digest", strings.ToUpper(op.GetDigest()))
	if r.code != 0 || signature == "" || !strings.HasPrefix(r.stdout, "operation") {
		t.Errorf("got %+v", r)
	}
	// Everything that matters is shown before.
	for _, want := range []string{"orders", "east", "west", "failover", "3.39", "unknown", "65536", op.GetDigest(), "2026-03-14T03:58:30Z", "1 more person, a dba"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("what was shown lacks %q:\n%s", want, r.stderr)
		}
	}
	sigFile := filepath.Join(t.TempDir(), "plan.json.sig")
	if err := os.WriteFile(sigFile, []byte(signature), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := writ(t, "promote", "approve", "orders-1.7", "--signature", sigFile, "--yes", "--digest", op.GetDigest()); r.code != 0 {
		t.Errorf("with a signature: %+v", r)
	}
	p.on("Approve", func(proto.Message) (proto.Message, error) {
		t.Error("a signature was handed in")
		return op, nil
	})
	if r := writ(t, "promote", "approve", plan, "--key", keyFile); r.code != 1 || !strings.Contains(r.stderr, "--yes is not given and there is no terminal") {
		t.Errorf("without a terminal: %+v", r)
	}
	if r := writ(t, "promote", "approve", plan, "--key", keyFile, "--yes", "--digest", strings.Repeat("0", 64)); r.code != 2 || !strings.Contains(r.stderr, "it is not what you mean to sign") {
		t.Errorf("another digest: %+v", r)
	}
}

func second(t *testing.T) string {
	_, line := sshKey(t, "bob")
	return line
}

// A plan that was edited, that has ended, or that a node shows another way than it is, is not signed.
func TestApproveRefuses(t *testing.T) {
	p := newPromoter(t)
	keyFile, _ := sshKey(t, "ada")
	op := ordersPlan(t)
	approve := func(arg string) result {
		return writ(t, "promote", "approve", arg, "--key", keyFile, "--yes", "--digest", op.GetDigest())
	}
	file := func(data string) string { return writeFile(t, "plan.json", data) }
	p.answers("GetOperation", op)
	doc := string(op.GetDocument())
	if r := approve(file(strings.Replace(doc, `"to":"west"`, `"to":"evil"`, 1))); r.code != 2 || !strings.Contains(r.stderr, "is not what operation orders-1.7 is about") {
		t.Errorf("an edited plan: %+v", r)
	}
	if r := approve(file(doc + "\n")); r.code != 1 || !strings.Contains(r.stderr, "is not a document as the quorum wrote it") {
		t.Errorf("a plan with a line end: %+v", r)
	}
	lying := proto.CloneOf(op)
	lying.Document = []byte(strings.Replace(doc, `"to":"west"`, `"to":"evil"`, 1))
	p.answers("GetOperation", lying)
	if r := approve("orders-1.7"); r.code != 1 || !strings.Contains(r.stderr, "do not sign it") {
		t.Errorf("a document that is not of its digest: %+v", r)
	}
	for state, code := range map[writv1.OperationState]int{
		writv1.OperationState_OPERATION_STATE_EXPIRED: 7, writv1.OperationState_OPERATION_STATE_EXECUTED: 2, writv1.OperationState_OPERATION_STATE_VOID: 2,
	} {
		ended := proto.CloneOf(op)
		ended.State = state
		p.answers("GetOperation", ended)
		if r := approve("orders-1.7"); r.code != code {
			t.Errorf("%v: %+v, want %d", state, r, code)
		}
	}
	if got := p.asked(); strings.Contains(got, "Approve") {
		t.Errorf("asked %s", got)
	}
}

// steps answers GetPromotion with one state after the other.
func steps(p *promoter, all ...*writv1.Promotion) {
	i := 0
	p.on("GetPromotion", func(proto.Message) (proto.Message, error) {
		next := all[min(i, len(all)-1)]
		i++
		return next, nil
	})
}

func inState(t *testing.T, state writv1.PromotionState, change func(*writv1.Promotion)) *writv1.Promotion {
	p := ordersPromotion(t)
	p.State, p.Waits, p.Shifted = state, nil, 0
	if change != nil {
		change(p)
	}
	return p
}

// A promotion is followed to where it does not go on by itself.
func TestExecuteFollows(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetOperation", ordersPlan(t))
	p.answers("Execute", inState(t, writv1.PromotionState_PROMOTION_STATE_PREFLIGHT, nil))
	fencing := inState(t, writv1.PromotionState_PROMOTION_STATE_FENCING, func(p *writv1.Promotion) {
		p.Waits = []*writv1.Wait{{What: "guard g2 (eu) lapses", Left: durationpb.New(12 * time.Second)}}
	})
	counted := proto.CloneOf(fencing)
	counted.Waits[0].Left = durationpb.New(11 * time.Second)
	progress := `writ: orders-1.7: preflight
writ: orders-1.7: fencing; waits for guard g2 (eu) lapses (at most 12s)
`
	for _, c := range []struct {
		end  writv1.PromotionState
		edit func(*writv1.Promotion)
		code int
		told string
	}{
		{writv1.PromotionState_PROMOTION_STATE_DONE, nil, 0, "writ: orders-1.7: done\n"},
		{writv1.PromotionState_PROMOTION_STATE_DEGRADED, nil, 0, "writ: orders-1.7: degraded\n"},
		{writv1.PromotionState_PROMOTION_STATE_CANCELLED, func(p *writv1.Promotion) { p.Reason = "eu did not drain" }, 2,
			"writ: orders-1.7: cancelled; eu did not drain\nwrit: CONFLICT: promotion orders-1.7 was not carried through, it is cancelled: eu did not drain\n"},
		{writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK, nil, 2, "writ: orders-1.7: rolled-back\nwrit: CONFLICT: promotion orders-1.7 was not carried through, it is rolled-back\n"},
		{writv1.PromotionState_PROMOTION_STATE_EXPIRED, nil, 7, "writ: orders-1.7: expired\nwrit: EXPIRED: promotion orders-1.7 has expired\n"},
		{writv1.PromotionState_PROMOTION_STATE_GRANTED, func(p *writv1.Promotion) { p.Stuck, p.Reason = true, "hook promote failed" }, 6,
			"writ: orders-1.7: granted; hook promote failed\nwrit: PENDING: promotion orders-1.7 stands still in granted: hook promote failed; " +
				"see to it, then writ promote resume orders-1.7, or writ promote abort orders-1.7\n"},
	} {
		steps(p, fencing, counted, inState(t, c.end, c.edit))
		r := writ(t, "promote", "execute", "orders-1.7")
		if r.code != c.code || r.stderr != progress+c.told || !strings.HasPrefix(r.stdout, "promotion") {
			t.Errorf("%v: code %d, told\n%s\nwant %d\n%s", c.end, r.code, r.stderr, c.code, progress+c.told)
		}
	}
	if r := writ(t, "promote", "execute", "orders-1.7", "--wait=false"); r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "preflight") {
		t.Errorf("without waiting: %+v", r)
	}
}

func TestExecuteRefusals(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetOperation", ordersPlan(t))
	for reason, code := range map[lease.Reason]int{
		lease.ReasonPending: 6, lease.ReasonStaleToken: 2, lease.ReasonExpired: 7, lease.ReasonConflict: 2, lease.ReasonDenied: 4, lease.ReasonNotFound: 1,
	} {
		p.fails("Execute", lease.Errorf(reason, "so it is"))
		if r := writ(t, "promote", "execute", "orders-1.7"); r.code != code || r.stdout != "" || r.stderr != fmt.Sprintf("writ: %s: so it is\n", reason) {
			t.Errorf("%s: %+v", reason, r)
		}
	}
	change := ordersPlan(t)
	change.Kind, change.State = writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE, writv1.OperationState_OPERATION_STATE_PENDING
	p.answers("GetOperation", change)
	done := proto.CloneOf(change)
	done.State = writv1.OperationState_OPERATION_STATE_EXECUTED
	p.answers("ExecuteOperation", done)
	p.asked()
	if r := writ(t, "promote", "execute", "orders-1.7"); r.code != 0 || !strings.Contains(r.stdout, "executed") {
		t.Errorf("a change: %+v", r)
	}
	if got := p.asked(); got != "GetOperation id:\"orders-1.7\"\nExecuteOperation id:\"orders-1.7\"" {
		t.Errorf("asked %s", got)
	}
}

// Ctrl-C ends the following, and not the promotion.
func TestExecuteIsLeftRunning(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetOperation", ordersPlan(t))
	p.answers("Execute", inState(t, writv1.PromotionState_PROMOTION_STATE_FENCING, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.on("GetPromotion", func(proto.Message) (proto.Message, error) {
		cancel()
		return inState(t, writv1.PromotionState_PROMOTION_STATE_FENCING, nil), nil
	})
	r := writWith(ctx, t, "promote", "execute", "orders-1.7")
	if r.code != 6 || !strings.Contains(r.stderr, "promotion orders-1.7 goes on by itself; follow it with: writ promote get orders-1.7 --watch") {
		t.Errorf("got %+v", r)
	}
}

// A quorum that does not answer for a while does not end the following.
func TestExecuteOutlastsSilence(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetOperation", ordersPlan(t))
	p.answers("Execute", inState(t, writv1.PromotionState_PROMOTION_STATE_FENCING, nil))
	calls := 0
	p.on("GetPromotion", func(proto.Message) (proto.Message, error) {
		if calls++; calls < 12 {
			return nil, lease.Errorf(lease.ReasonNoQuorum, "nobody there")
		}
		return inState(t, writv1.PromotionState_PROMOTION_STATE_DONE, nil), nil
	})
	if r := writ(t, "promote", "execute", "orders-1.7", "--timeout", "300ms"); r.code != 0 || !strings.Contains(r.stderr, "nobody there; promotion orders-1.7 goes on by itself") {
		t.Errorf("got %+v", r)
	}
}

// Waits that count down are told again, but not all the time.
func TestTeller(t *testing.T) {
	p := &writv1.Promotion{Id: "a-1.1", State: writv1.PromotionState_PROMOTION_STATE_FENCING, Waits: []*writv1.Wait{{What: "g1", Left: durationpb.New(20 * time.Second)}}}
	var teller teller
	var told []string
	for i := range 12 {
		p.Waits[0].Left = durationpb.New(time.Duration(20-i) * time.Second)
		if line := teller.line(p, instant.Add(time.Duration(i)*time.Second)); line != "" {
			told = append(told, line)
		}
	}
	want := "a-1.1: fencing; waits for g1 (at most 20s)|a-1.1: fencing; waits for g1 (at most 15s)|a-1.1: fencing; waits for g1 (at most 10s)"
	if got := strings.Join(told, "|"); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

func TestApprovers(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetApprovers", &writv1.ApproverSet{
		Version: 4, Rule: &writv1.ApprovalRule{People: 2},
		Approvers: []*writv1.Approver{
			{Name: "ada", Roles: []string{"dba", "sre"}, Principals: []string{"spiffe://x/ada"}, Keys: []*writv1.ApproverKey{
				{PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1cp2nZ0rW2XwqJj4hMW0JtM3Gm3k6WyeE0lHGOuE4S ada"},
				{PublicKey: "nonsense", ExpiresAt: timestamppb.New(instant)},
			}},
			{Name: "bob", Keys: []*writv1.ApproverKey{{PublicKey: "x", Revoked: true}}},
		},
	})
	r := writ(t, "approvers", "get")
	golden(t, "approvers.txt", r.stdout)
	p.answers("ChangeApprovers", &writv1.Operation{Id: "approvers-1.2", Document: []byte("{}"), Digest: "d"})
	_, ada := sshKey(t, "ada")
	_, bob := sshKey(t, "bob")
	t.Chdir(t.TempDir())
	file := writeFile(t, "approvers.yaml", fmt.Sprintf("approvers:\n  - {name: ada, keys: [%q]}\n  - {name: bob, keys: [%q]}\nrule: {people: 2}\n", ada, bob))
	if r := writ(t, "approvers", "set", "-f", file, "--reason", "new", "-o", "change.json"); r.code != 0 || !strings.Contains(r.stdout, "approvers-1.2") {
		t.Errorf("set: %+v", r)
	}
	if data, err := os.ReadFile("change.json"); err != nil || string(data) != "{}" {
		t.Errorf("change.json holds %q, %v", data, err)
	}
	broken := writeFile(t, "broken.yaml", "approvers:\n  - {name: ada, keys: [\"ssh-ed25519 AAAA\"]}\nrule: {people: 2}\n")
	if r := writ(t, "approvers", "set", "-f", broken); r.code != 1 || !strings.Contains(r.stderr, "broken.yaml line ") || !strings.Contains(r.stderr, "public_key") {
		t.Errorf("a broken key: %+v", r)
	}
}

func TestConfidence(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetGroup", ordersGroup())
	green := []*writv1.ConfidenceLine{{Check: "guards", Ok: true, Detail: "2 of 2 answer"}, {Check: "last drill", Warning: true, Detail: "none", Fix: "writ drill run orders"}}
	p.answers("Confidence", &writv1.ConfidenceResponse{Go: true, Lines: green})
	r := writ(t, "confidence", "orders", "--to", "us")
	if r.code != 0 || r.stderr != "" {
		t.Errorf("go: %+v", r)
	}
	golden(t, "confidence-go.txt", r.stdout)
	p.answers("Confidence", &writv1.ConfidenceResponse{Lines: append(green, &writv1.ConfidenceLine{Check: "lag", Detail: "30s, and the rpo is 5s", Fix: "wait until us has caught up"})})
	r = writ(t, "confidence", "orders", "--to", "us")
	if r.code != 1 || r.stderr != "writ: no go: 1 of 8 checks are red: lag\n" {
		t.Errorf("no go: %+v", r)
	}
	golden(t, "confidence-no-go.txt", r.stdout)
}

// The quorum is red where it would not outlive the region that is left.
func TestConfidenceLooksAtTheQuorum(t *testing.T) {
	node := func(name, region string, reachable bool) *writv1.NodeStatus {
		return &writv1.NodeStatus{Name: name, Region: region, Reachable: reachable}
	}
	for _, c := range []struct {
		nodes []*writv1.NodeStatus
		want  string
	}{
		{[]*writv1.NodeStatus{node("a", "eu", true), node("b", "us", true), node("c", "ap", true)}, "quorum true, quorum without eu true"},
		{[]*writv1.NodeStatus{node("a", "eu", false), node("b", "us", true), node("c", "ap", true)}, "quorum false, quorum without eu true"},
		{[]*writv1.NodeStatus{node("a", "eu", true), node("b", "us", true), node("c", "ap", false)}, "quorum false, quorum without eu false"},
		{[]*writv1.NodeStatus{node("a", "eu", true), node("b", "eu", true), node("c", "us", true)}, "quorum true, quorum without eu false, failure domains false (warning)"},
		{[]*writv1.NodeStatus{node("a", "eu", true), node("b", "us", true), node("c", "ap", true), {Name: "d", Learner: true}}, "quorum true, quorum without eu true"},
	} {
		var got []string
		for _, l := range quorumLines(ordersGroup(), &writv1.StatusResponse{Nodes: c.nodes}) {
			line := fmt.Sprintf("%s %v", l.GetCheck(), l.GetOk())
			if l.GetWarning() {
				line += " (warning)"
			}
			if !l.GetOk() && l.GetFix() == "" {
				t.Errorf("%s has no fix", line)
			}
			got = append(got, line)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%v: %s, want %s", c.nodes, strings.Join(got, ", "), c.want)
		}
	}
}
