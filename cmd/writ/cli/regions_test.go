package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// promoter is a test double of a node that promotes groups: it answers what a test scripts, by the name of the method.
type promoter struct {
	writv1.UnimplementedRegionServiceServer
	writv1.UnimplementedClusterServiceServer

	mu     sync.Mutex
	script map[string]func(proto.Message) (proto.Message, error) // guarded by mu
	calls  []string                                              // guarded by mu; but Status
}

func newPromoter(t *testing.T) *promoter {
	t.Helper()
	p := &promoter{script: make(map[string]func(proto.Message) (proto.Message, error))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(p.answer))
	writv1.RegisterRegionServiceServer(server, p)
	writv1.RegisterClusterServiceServer(server, p)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // its error is that it was stopped
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	node := func(name, region string) *writv1.NodeStatus {
		return &writv1.NodeStatus{Name: name, Region: region, ApiAddress: l.Addr().String(), Reachable: true}
	}
	p.on("Status", func(proto.Message) (proto.Message, error) {
		return &writv1.StatusResponse{Node: "n1", Nodes: []*writv1.NodeStatus{node("n1", "eu"), node("n2", "us"), node("n3", "ap")}}, nil
	})
	t.Setenv("WRIT_ENDPOINTS", l.Addr().String())
	t.Setenv("WRIT_INSECURE", "true")
	return p
}

func (p *promoter) answer(_ context.Context, req any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	p.mu.Lock()
	name := path.Base(info.FullMethod)
	answer := p.script[name]
	if name != "Status" {
		words := strings.Fields(prototext.MarshalOptions{}.Format(req.(proto.Message)))
		p.calls = append(p.calls, strings.TrimSpace(name+" "+strings.Join(words, " ")))
	}
	p.mu.Unlock()
	if answer == nil {
		return nil, lease.ToStatus(lease.Errorf(lease.ReasonInternal, "%s is not scripted", name)).Err()
	}
	resp, err := answer(req.(proto.Message))
	return resp, lease.ToStatus(err).Err()
}

// on scripts a method.
func (p *promoter) on(method string, answer func(proto.Message) (proto.Message, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script[method] = answer
}

func (p *promoter) answers(method string, resp proto.Message) {
	p.on(method, func(proto.Message) (proto.Message, error) { return resp, nil })
}

func (p *promoter) fails(method string, err error) {
	p.on(method, func(proto.Message) (proto.Message, error) { return nil, err })
}

// asked answers the calls since the last time.
func (p *promoter) asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := strings.Join(p.calls, "\n")
	p.calls = nil
	return calls
}

// golden compares with a file of testdata, which WRIT_REWRITE=1 writes anew.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("WRIT_REWRITE") == "1" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func before(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(instant.Add(-d)) }

func someBytes(n uint64) *uint64 { return &n }

func ordersSpec() *writv1.GroupSpec {
	return &writv1.GroupSpec{
		Name: "orders", Resource: "db/orders", Rpo: &writv1.Loss{Time: durationpb.New(5 * time.Second), Bytes: someBytes(16 << 20)}, Headroom: 300,
		Regions: []*writv1.GroupRegion{
			{Name: "eu", Role: writv1.RegionRole_REGION_ROLE_PRIMARY, Priority: 10, Agent: "spiffe://x/agent/eu", Guards: []string{"g1", "g2"}, Writers: []string{"spiffe://x/app"}},
			{Name: "us", Role: writv1.RegionRole_REGION_ROLE_STANDBY, Priority: 5, Agent: "spiffe://x/agent/us"},
			{Name: "ap", Role: writv1.RegionRole_REGION_ROLE_WITNESS},
		},
		Automatic: []*writv1.Direction{{From: "eu", To: "us"}}, Hold: durationpb.New(time.Minute), Shift: []uint32{10, 50, 100},
		Hooks: []*writv1.Hook{{Kind: writv1.HookKind_HOOK_KIND_DRAIN}, {Kind: writv1.HookKind_HOOK_KIND_DEMOTE, Optional: true, Timeout: durationpb.New(time.Minute)}},
		Approvals: &writv1.GroupApprovals{
			Switchover: &writv1.ApprovalRule{None: true},
			Failover:   &writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{{Role: "dba", People: 1}}, ValidFor: durationpb.New(time.Hour)},
		},
	}
}

func ordersGroup() *writv1.Group {
	writable, headroom := true, uint32(425)
	return &writv1.Group{
		Spec: ordersSpec(), Version: 3, State: writv1.GroupState_GROUP_STATE_PROMOTING, Primary: "eu", Token: 281474976710663, Since: before(3 * time.Hour),
		Promotion: "orders-1.7", Quarantined: []string{"ap"}, Waits: []*writv1.Wait{{What: "guard g2 (eu) lapses", Left: durationpb.New(12 * time.Second)}},
		Regions: []*writv1.RegionStatus{
			{
				Region: "eu", Age: durationpb.New(400 * time.Millisecond), Health: writv1.Health_HEALTH_OK,
				Report: &writv1.GroupReport{Writable: &writable, Position: &writv1.Position{Log: "1", Bytes: 5000}},
				Guards: []*writv1.Guard{{Name: "g1", State: writv1.GuardState_GUARD_STATE_ENROLLED}, {Name: "g2", State: writv1.GuardState_GUARD_STATE_OUT}},
			},
			{
				Region: "us", Age: durationpb.New(time.Second), Health: writv1.Health_HEALTH_DEGRADED,
				Report: &writv1.GroupReport{
					Detail: "slow\ndisk", Headroom: &headroom, Lag: durationpb.New(1500 * time.Millisecond),
					Position: &writv1.Position{Log: "1", Bytes: 3000}, Upstream: &writv1.Position{Log: "1", Bytes: 5048},
				},
			},
			{Region: "ap"},
		},
	}
}

// ordersPlan is an operation with a real document.
func ordersPlan(t *testing.T) *writv1.Operation {
	doc := planned(t, func(d *approval.Document) { d.ID, d.Group, d.Epoch = "orders-1.7", "orders", 1 }, failoverBody)
	return &writv1.Operation{
		Id: "orders-1.7", Kind: writv1.OperationKind_OPERATION_KIND_PROMOTION, Group: "orders", Promotion: "orders-1.7", Document: doc, Digest: approval.Digest(doc),
		Requester: "spiffe://x/ada", CreatedAt: before(90 * time.Second), ExpiresAt: timestamppb.New(instant.Add(time.Hour - 90*time.Second)),
		State: writv1.OperationState_OPERATION_STATE_PENDING, Rule: ordersSpec().GetApprovals().GetFailover(),
		Approvals: []*writv1.Approval{{Approver: "ada"}, {Approver: "eve", Withdrawn: true}}, Missing: "1 more person, a dba",
	}
}

func ordersPromotion(t *testing.T) *writv1.Promotion {
	return &writv1.Promotion{
		Id: "orders-1.7", Group: "orders", From: "eu", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER, State: writv1.PromotionState_PROMOTION_STATE_FENCING,
		StateSince: before(8 * time.Second), ExpectedToken: 281474976710663, Token: 281474976710665, Operation: ordersPlan(t), Revision: 12, Shifted: 50,
		Waits: []*writv1.Wait{{What: "guard g2 (eu) lapses", Left: durationpb.New(12400 * time.Millisecond)}, {What: "signatures for the tail"}},
		Hooks: []*writv1.HookRun{
			{Kind: writv1.HookKind_HOOK_KIND_PROMOTE, Region: "us", Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE, Took: durationpb.New(1200 * time.Millisecond), Output: "ok\x1b[2J"},
			{Kind: writv1.HookKind_HOOK_KIND_SHIFT, Region: "us", Percent: 50, Outcome: writv1.HookOutcome_HOOK_OUTCOME_FAILED, Output: strings.Repeat("long ", 40)},
		},
		Proofs:   []*writv1.GuardProved{{Guard: "g1", Region: "eu", How: writv1.GuardProof_GUARD_PROOF_ACKED, At: before(7 * time.Second)}},
		Tails:    []*writv1.Tail{{From: "eu", To: "us", Token: 281474976710663, Bytes: someBytes(1 << 20), LastOfFrom: &writv1.Position{Text: "0/3000148"}, Entries: []string{"0/2000148 to 0/3000148"}}, {From: "eu", To: "us"}},
		Timeline: &writv1.Timeline{Detected: before(time.Minute), Decided: before(10 * time.Second), TimeToHealthy: durationpb.New(52 * time.Second)},
	}
}

func TestGroupCommands(t *testing.T) {
	p := newPromoter(t)
	p.answers("ListGroups", &writv1.ListGroupsResponse{Groups: []*writv1.Group{ordersGroup(), {Spec: &writv1.GroupSpec{Name: "z", DrillOf: "orders"}, State: writv1.GroupState_GROUP_STATE_STEADY}}})
	p.answers("GetGroup", ordersGroup())
	for name, args := range map[string]string{"group-list": "group list", "group-get": "group get orders", "group-status": "group status orders", "group-get-json": "group get orders -o json"} {
		r := writ(t, strings.Fields(args)...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%s: %+v", args, r)
		}
		golden(t, name+".txt", r.stdout)
	}
	p.fails("GetGroup", lease.Errorf(lease.ReasonNotFound, "there is no group x"))
	writ(t, "group", "status", "x", "--watch").want(t, 1, "", "writ: NOT_FOUND: there is no group x\n")
}

const ordersYAML = `name: orders
regions:
  - {name: eu, role: primary, guards: [g1], agent: a}
  - {name: us, role: standby, agent: b}
`

func writeFile(t *testing.T, name, data string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestGroupApply(t *testing.T) {
	p := newPromoter(t)
	file := writeFile(t, "orders.yaml", ordersYAML)
	p.answers("ApplyGroup", &writv1.ApplyGroupResponse{Group: &writv1.Group{Version: 1}, Changes: []string{"the group is made"}})
	writ(t, "group", "apply", "-f", file, "--reason", "new").want(t, 0, "GROUP   OUTCOME  OPERATION  VERSION\norders  applied  -          1\norders: the group is made\n", "")
	if got := p.asked(); !strings.Contains(got, `ApplyGroup spec:{name:"orders"`) || !strings.Contains(got, `reason:"new"`) || strings.Contains(got, "dry_run") {
		t.Errorf("asked %s", got)
	}
	p.answers("ApplyGroup", &writv1.ApplyGroupResponse{Group: &writv1.Group{Version: 1}})
	writ(t, "group", "apply", "-f", file, "--dry-run").want(t, 0, "GROUP   OUTCOME    OPERATION  VERSION\norders  unchanged  -          1\n", "")
	if got := p.asked(); !strings.Contains(got, "dry_run:true") {
		t.Errorf("asked %s", got)
	}
	p.answers("ApplyGroup", &writv1.ApplyGroupResponse{Group: &writv1.Group{Version: 1}, Operation: &writv1.Operation{Id: "orders-1.8"}, Changes: []string{"rpo: more may be lost (loosens)"}})
	r := writ(t, "group", "apply", "-f", file)
	r.want(t, 6, "GROUP   OUTCOME         OPERATION   VERSION\norders  to be approved  orders-1.8  1\norders: rpo: more may be lost (loosens)\n",
		"writ: PENDING: has to be approved before it happens: orders-1.8; have it signed with writ promote approve ID, then writ promote execute ID\n")
	if r := writ(t, "group", "apply", "-f", file, "-o", "json"); r.code != 6 || !strings.Contains(r.stdout, `"outcome": "to be approved"`) || !strings.Contains(r.stdout, `"id": "orders-1.8"`) {
		t.Errorf("as JSON: %+v", r)
	}
	p.fails("ApplyGroup", lease.Errorf(lease.ReasonHeld, "somebody has a lease on it"))
	if r := writ(t, "group", "apply", "-f", file); r.code != 3 || !strings.Contains(r.stderr, "group orders: HELD") {
		t.Errorf("held: %+v", r)
	}
	p.asked()
	broken := writeFile(t, "broken.yaml", strings.Replace(ordersYAML, "role: standby", "role: leader", 1))
	if r := writ(t, "group", "apply", "-f", file, "-f", broken); r.code != 1 || !strings.Contains(r.stderr, "broken.yaml line 4: regions[1].role") {
		t.Errorf("a broken file: %+v", r)
	}
	if got := p.asked(); got != "" {
		t.Errorf("with a broken file asked %s", got)
	}
}

func TestGroupRemove(t *testing.T) {
	p := newPromoter(t)
	p.answers("RemoveGroup", &writv1.ApplyGroupResponse{Operation: &writv1.Operation{Id: "orders-1.9"}})
	if r := writ(t, "group", "remove", "orders", "--reason", "x"); r.code != 1 || !strings.Contains(r.stderr, "--yes is not given") || p.asked() != "" {
		t.Errorf("without a terminal: %+v", r)
	}
	if r := writ(t, "group", "remove", "orders", "--reason", "x", "--yes"); r.code != 6 || !strings.Contains(r.stdout, "orders-1.9") {
		t.Errorf("got %+v", r)
	}
	if got := p.asked(); got != `RemoveGroup name:"orders" reason:"x"` {
		t.Errorf("asked %s", got)
	}
}

func TestPlan(t *testing.T) {
	p := newPromoter(t)
	promotion := ordersPromotion(t)
	p.answers("Plan", promotion)
	t.Chdir(t.TempDir())
	args := []string{"promote", "plan", "orders", "--to", "us", "--mode", "failover", "--loss-cap", "16MiB,30s", "--reason", "flood", "--valid-for", "30m", "--token", "1.7"}
	r := writ(t, append(args, "-o", "plan.json")...)
	if r.code != 0 || !strings.Contains(r.stderr, "wrote plan.json, SHA-256 "+promotion.GetOperation().GetDigest()) {
		t.Errorf("got %+v", r)
	}
	doc, err := os.ReadFile("plan.json")
	if err != nil || !bytes.Equal(doc, promotion.GetOperation().GetDocument()) {
		t.Errorf("plan.json holds %q, %v", doc, err)
	}
	got := p.asked()
	for _, want := range []string{`group:"orders" to:"us" mode:PROMOTION_MODE_FAILOVER`, "loss_cap:{time:{seconds:30} bytes:16777216}", `reason:"flood"`, "expected_token:281474976710663", "valid_for:{seconds:1800}", "request_id:"} {
		if !strings.Contains(got, want) {
			t.Errorf("asked %s, which lacks %s", got, want)
		}
	}
	if r := writ(t, append(args, "-o", "json", "--out", "other.json")...); r.code != 0 || field(t, r.stdout, "operation.digest") != promotion.GetOperation().GetDigest() {
		t.Errorf("as JSON: %+v", r)
	}
	if doc, err := os.ReadFile("other.json"); err != nil || !bytes.Equal(doc, promotion.GetOperation().GetDocument()) {
		t.Errorf("other.json holds %q, %v", doc, err)
	}
	if r := writ(t, "promote", "list", "-o", "plan.json"); r.code != 1 || !strings.Contains(r.stderr, "use table, json or yaml") {
		t.Errorf("a file where there is none: %+v", r)
	}
	if r := writ(t, append(args, "-o", "yml")...); r.code != 1 || !strings.Contains(r.stderr, "use table, json or yaml") {
		t.Errorf("a slip of the finger: %+v", r)
	}
}

func TestPlanIsShown(t *testing.T) {
	p := newPromoter(t)
	p.answers("Plan", ordersPromotion(t))
	golden(t, "promote-plan.txt", writ(t, "promote", "plan", "orders", "--to", "us", "--mode", "failover").stdout)
}

func TestPromotionsAreShown(t *testing.T) {
	p := newPromoter(t)
	promotion := ordersPromotion(t)
	stuck := proto.CloneOf(promotion)
	stuck.Id, stuck.Stuck, stuck.Reason = "orders-1.6", true, "hook promote failed in us"
	p.answers("ListPromotions", &writv1.ListPromotionsResponse{Promotions: []*writv1.Promotion{promotion, stuck}})
	p.answers("GetPromotion", promotion)
	p.answers("GetOperation", promotion.GetOperation())
	p.answers("ListOperations", &writv1.ListOperationsResponse{Operations: []*writv1.Operation{promotion.GetOperation(), {Id: "approvers-1.1", Kind: writv1.OperationKind_OPERATION_KIND_APPROVERS_CHANGE, State: writv1.OperationState_OPERATION_STATE_EXECUTED}}})
	p.answers("Explain", &writv1.ExplainResponse{
		Rule: "shift", Text: "eu is degraded: shift traffic, do not promote", Blocks: []string{"the hold of 1m0s has not passed"},
		Evidence: []*writv1.Evidence{{Observer: "ap", About: "eu", What: "unreachable", Since: before(20 * time.Second)}},
	})
	for name, args := range map[string]string{
		"promote-list": "promote list orders --open --limit 5", "promote-get": "promote get orders-1.7", "promote-operations": "promote operations",
		"promote-explain": "promote explain orders",
	} {
		r := writ(t, strings.Fields(args)...)
		if r.code != 0 || r.stderr != "" || strings.Contains(r.stdout, "\x1b") {
			t.Errorf("%s: %+v", args, r)
		}
		golden(t, name+".txt", r.stdout)
	}
	if got := p.asked(); !strings.Contains(got, `ListPromotions group:"orders" limit:5 open:true`) {
		t.Errorf("asked %s", got)
	}
	if r := writ(t, "promote", "document", "orders-1.7"); r.stdout != string(promotion.GetOperation().GetDocument()) {
		t.Errorf("document: %+v", r)
	}
}

func TestPromotionGetWatch(t *testing.T) {
	p := newPromoter(t)
	p.answers("GetPromotion", ordersPromotion(t))
	p.answers("GetOperation", ordersPlan(t))
	w := launch(t, nil, "promote", "get", "orders-1.7", "--watch")
	if !w.stdout.Scan() || !strings.HasPrefix(w.stdout.Text(), "promotion") {
		t.Errorf("it said %q", w.stdout.Text())
	}
	if err := w.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestPromotionCalls(t *testing.T) {
	p := newPromoter(t)
	for _, method := range []string{"Abort", "Resume", "Acknowledge"} {
		p.answers(method, ordersPromotion(t))
	}
	for _, method := range []string{"Reinstate", "AttestGuard", "Withdraw"} {
		p.answers(method, ordersPlan(t))
	}
	for args, want := range map[string]string{
		"abort orders-1.7 --reason x":                            `Abort id:"orders-1.7" reason:"x"`,
		"resume orders-1.7":                                      `Resume id:"orders-1.7"`,
		"resume orders-1.7 --skip-hook --reason x":               `Resume id:"orders-1.7" skip_hook:true reason:"x"`,
		"ack orders-1.7":                                         `Acknowledge id:"orders-1.7"`,
		"reinstate orders-1.7 --disposition replayed --reason x": `Reinstate id:"orders-1.7" disposition:DISPOSITION_REPLAYED reason:"x"`,
		"attest orders-1.7 g2 --reason x":                        `AttestGuard id:"orders-1.7" guard:"g2" reason:"x"`,
		"withdraw orders-1.7 --approver ada":                     `Withdraw id:"orders-1.7" approver:"ada"`,
	} {
		r := writ(t, append([]string{"promote"}, strings.Fields(args)...)...)
		if got := p.asked(); r.code != 0 || got != want {
			t.Errorf("%s: asked %s, %+v", args, got, r)
		}
	}
}

func TestGuardAttest(t *testing.T) {
	p := newPromoter(t)
	p.answers("AttestGuard", ordersPlan(t))
	r := writ(t, "guard", "attest", "g2", "--group", "orders", "--reason", "burnt")
	if got, want := p.asked(), `AttestGuard guard:"g2" reason:"burnt" group:"orders"`; r.code != 0 || got != want {
		t.Errorf("asked %s, want %s: %+v", got, want, r)
	}
	for line, want := range map[string]string{
		"guard attest":                       "NAME is missing",
		"guard attest g2 --reason x":         "--group is missing; name a failover group whose tenure the guard covers",
		"guard attest g2 --group orders":     "--reason is missing",
		"guard attest g2 --group g --reason": "--reason has no value",
	} {
		if r := writ(t, strings.Fields(line)...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %s", line, r, want)
		}
	}
	if got := p.asked(); got != "" {
		t.Errorf("asked %s", got)
	}
}

func TestPromoteMisunderstandings(t *testing.T) {
	p := newPromoter(t)
	for line, want := range map[string]string{
		"promote plan orders --to us":                         "--mode is missing; use one of switchover, failover, failback, recover",
		"promote plan orders --to us --mode takeover":         `--mode is "takeover"; use one of`,
		"promote plan orders --mode failover --loss-cap 3x":   `--loss-cap is "3x"; use an amount such as 16MiB`,
		"promote plan orders --mode failover --valid-for -1s": "--valid-for is -1s",
		"promote approve":                                                  "FILE|ID is missing",
		"promote approve orders-1.7":                                       "--key or another way to sign has to be given",
		"promote approve orders-1.7 --key a --agent":                       "--key or another way to sign has to be given",
		"promote approve orders-1.7 --key a --yes":                         "--digest is missing; with --yes, say which document you mean",
		"promote approve nothing --key a":                                  `ID "nothing" is no id, and no file`,
		"promote execute orders-1":                                         `ID "orders-1" is no id, and no file`,
		"promote withdraw orders-1.7":                                      "--approver is missing",
		"promote reinstate orders-1.7":                                     `--disposition is ""; use one of replayed, accepted, discarded`,
		"promote attest orders-1.7 g1":                                     "--reason is missing",
		"promote resume orders-1.7 --skip-hook":                            "--reason is missing",
		"group apply":                                                      "--file is missing",
		"group apply -f /nowhere":                                          "--file cannot be read: open /nowhere",
		"group remove orders":                                              "--reason is missing",
		"approvers set":                                                    "--file is missing",
		"region evacuate eu":                                               "--mode is missing",
		"region evacuate eu --mode failback":                               `--mode is "failback"; use switchover or failover`,
		"region evacuate eu --mode failover --max-parallel 0":              "--max-parallel is 0; use 1 or more",
		"promote plann":                                                    "did you mean writ promote plan?",
		"promote plan orders --to us --mode failover --loss-cap 1s,2s":     `--loss-cap is "1s,2s"`,
		"promote plan orders --to us --mode failover --loss-cap 99999TiB,": "--loss-cap is",
	} {
		if r := writ(t, strings.Fields(line)...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %s", line, r, want)
		}
	}
	if got := p.asked(); got != "" {
		t.Errorf("asked %s", got)
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]string{"16MiB": "16 MiB", "30s": "30s", "1.5KiB, 2m": "2m0s, 1.5 KiB", "0B": "0 B", "1023B": "1023 B", "5TiB": "5 TiB"} {
		loss, err := parseLoss("--x", text)
		if err != nil || lossOf(loss) != want {
			t.Errorf("%s: %s, %v, want %s", text, lossOf(loss), err, want)
		}
	}
	if got := bytesAmount(1 << 62); got != fmt.Sprint(1<<22)+" TiB" {
		t.Errorf("very much: %s", got)
	}
}
