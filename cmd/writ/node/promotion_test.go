package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/tracing"
	"github.com/writ-io/writ/cmd/tracing/tracingtest"
	"github.com/writ-io/writ/cmd/writ-guard/sidecar"
	"github.com/writ-io/writ/cmd/writ/agent"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/region/approval"
)

// theater is a quorum of three nodes, and in each of two regions an agent with programs for hooks and a guard before a storage.
type theater struct {
	*testCluster
	keys      map[string]ssh.Signer
	groups    []string               // that both regions have; eu leads them, and the first matter most
	collector *tracingtest.Collector // nil: nothing is traced
	ctx       context.Context
}

func newTheater(t *testing.T, collector *tracingtest.Collector) *theater {
	t.Helper()
	return newTheaterOf(t, collector, "orders")
}

func newTheaterOf(t *testing.T, collector *tracingtest.Collector, groups ...string) *theater {
	t.Helper()
	th := &theater{testCluster: newCluster(t, 3), keys: make(map[string]ssh.Signer), groups: groups, collector: collector}
	approvers := filepath.Join(th.dir, "approvers.yaml")
	text := "rule: {people: 2}\napprovers:\n"
	for _, name := range []string{"ann", "bob"} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		signer, err := ssh.NewSignerFromKey(private)
		must(t, err)
		th.keys[name] = signer
		text += fmt.Sprintf("  - {name: %s, keys: [%q]}\n", name, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	}
	must(t, os.WriteFile(approvers, []byte(text), 0o600))
	for i := range th.configs {
		th.configs[i].PolicyFile, th.configs[i].Approvers = "", approvers
		th.configs[i].Tracing = th.tracing()
		// Nobody kills a node here, and no election is to happen of itself on a busy machine.
		th.configs[i].Heartbeat, th.configs[i].Election = 100*time.Millisecond, 2*time.Second
	}
	th.start(0, 1, 2)
	th.ready()

	ctx, cancel := context.WithCancel(context.Background())
	th.ctx = ctx
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	for i, group := range groups {
		th.apply(group, "eu", int32(len(groups)-i))
	}
	for _, name := range []string{"eu", "us"} {
		th.guard(name)
		c := th.agent(name)
		running.Go(func() {
			if err := agent.Run(ctx, c, "test", hclog.NewNullLogger()); err != nil && ctx.Err() == nil {
				t.Errorf("agent %s: %v", name, err)
			}
		})
	}
	return th
}

func (th *theater) tracing() tracing.Config {
	if th.collector == nil {
		return tracing.Config{}
	}
	return tracing.Config{Endpoint: th.collector.Address, Insecure: true}
}

func (th *theater) endpoints() string {
	var all []string
	for _, c := range th.configs {
		all = append(all, `"`+c.API.Listen+`"`)
	}
	return strings.Join(all, ", ")
}

func (th *theater) write(name, text string) string {
	th.t.Helper()
	if th.collector != nil {
		text += fmt.Sprintf("tracing: {endpoint: %q, insecure: true}\n", th.collector.Address)
	}
	path := filepath.Join(th.dir, name)
	must(th.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// guard starts one before a storage that takes everything.
func (th *theater) guard(name string) {
	th.t.Helper()
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	th.t.Cleanup(storage.Close)
	var routes []string
	for _, group := range th.groups {
		routes = append(routes, fmt.Sprintf("{path: /%[1]s, resource: %[1]s, upstream: store}", group))
	}
	c, err := sidecar.Load(th.write("guard-"+name+".yaml", fmt.Sprintf(`
name: g-%[1]s
region: %[1]s
data_dir: guard-%[1]s
quorum: {endpoints: [%[2]s], insecure: true}
slack: 100ms
listeners: [{name: main, listen: "%[3]s"}]
upstreams: [{name: store, url: "%[4]s"}]
routes: [%[5]s]
admin: {listen: "off"}
`, name, th.endpoints(), freeport.Address(th.t), storage.URL, strings.Join(routes, ", "))), nil)
	must(th.t, err)
	s, err := sidecar.Start(c, sidecar.Options{Version: "test"})
	must(th.t, err)
	th.t.Cleanup(func() { _ = s.Stop(context.Background()) })
}

// agent configures one whose hooks note how they were run.
func (th *theater) agent(name string) agent.Config {
	th.t.Helper()
	hooks := ""
	for _, kind := range []string{"drain", "undrain", "promote", "demote", "shift", "verify", "reinstate"} {
		program := `echo "$WRIT_KIND $WRIT_PERCENT $WRIT_TOKEN $TRACEPARENT" >> ` + th.ran(name)
		if kind == "drain" {
			program += `; echo '{"position": {"log": "1", "bytes": "1000"}}' > "$WRIT_RESULT"`
		}
		hooks += fmt.Sprintf("      - {kind: %s, idempotent: true, command: [/bin/sh, -c, %q]}\n", kind, program)
	}
	groups := ""
	for _, group := range th.groups {
		groups += fmt.Sprintf("  - name: %s\n    probe: {command: [/bin/echo, %q]}\n    hooks:\n%s", group,
			`{"headroom": 900, "lag": "0s", "position": {"log": "1", "bytes": "1000"}, "upstream": {"log": "1", "bytes": "1000"}}`, hooks)
	}
	c, err := agent.Load(th.write("agent-"+name+".yaml", fmt.Sprintf(`
name: agent-%[1]s
region: %[1]s
data_dir: agent-%[1]s
interval: 100ms
quorum: {endpoints: [%[2]s], insecure: true}
admin: {listen: "off"}
groups:
%[3]s`, name, th.endpoints(), groups)), nil)
	must(th.t, err)
	return c
}

// ran is the file in which the hooks of a region leave a line each.
func (th *theater) ran(name string) string { return filepath.Join(th.dir, "ran-"+name) }

func (th *theater) regions() writv1.RegionServiceClient {
	th.leases(1) // connects
	return writv1.NewRegionServiceClient(th.conns[th.configs[1].API.Listen])
}

// ask asks until there is an answer or a refusal that stays.
func ask[A any](th *theater, f func(context.Context) (A, error)) (answer A) {
	th.t.Helper()
	eventually(th.t, func() string {
		ctx, cancel := context.WithTimeout(th.t.Context(), 10*time.Second)
		defer cancel()
		var err error
		if answer, err = f(ctx); err == nil {
			return ""
		}
		if code := status.Code(err); code == codes.InvalidArgument || code == codes.PermissionDenied {
			th.t.Fatal(err)
		}
		return err.Error()
	})
	return answer
}

func (th *theater) apply(group, primary string, priority int32) {
	role := map[bool]writv1.RegionRole{true: writv1.RegionRole_REGION_ROLE_PRIMARY, false: writv1.RegionRole_REGION_ROLE_STANDBY}
	spec := &writv1.GroupSpec{
		Name: group, Rpo: &writv1.Loss{Time: durationpb.New(5 * time.Second)}, Shift: []uint32{10, 100},
		Regions: []*writv1.GroupRegion{
			{Name: "eu", Role: role[primary == "eu"], Priority: 10 * priority, Agent: "insecure", Guards: []string{"g-eu"}},
			{Name: "us", Role: role[primary == "us"], Priority: 5 * priority, Agent: "insecure", Guards: []string{"g-us"}},
		},
	}
	for _, kind := range []writv1.HookKind{
		writv1.HookKind_HOOK_KIND_DRAIN, writv1.HookKind_HOOK_KIND_UNDRAIN, writv1.HookKind_HOOK_KIND_PROMOTE, writv1.HookKind_HOOK_KIND_DEMOTE,
		writv1.HookKind_HOOK_KIND_SHIFT, writv1.HookKind_HOOK_KIND_VERIFY,
	} {
		spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind})
	}
	ask(th, func(ctx context.Context) (*writv1.ApplyGroupResponse, error) {
		return th.regions().ApplyGroup(ctx, &writv1.ApplyGroupRequest{Spec: spec})
	})
}

// steady waits until a region leads every group, and both are heard of.
func (th *theater) steady(primary string) {
	th.t.Helper()
	eventually(th.t, func() string {
		for _, group := range th.groups {
			g, err := th.regions().GetGroup(th.t.Context(), &writv1.GetGroupRequest{Name: group})
			if err != nil {
				return err.Error()
			}
			heard := 0
			for _, r := range g.GetRegions() {
				if r.GetHealth() == writv1.Health_HEALTH_OK && len(r.GetGuards()) == 1 {
					heard++
				}
			}
			if g.GetState() != writv1.GroupState_GROUP_STATE_STEADY || g.GetPrimary() != primary || heard != 2 {
				// What holds it up says more than where the group is.
				p, _ := th.regions().GetPromotion(th.t.Context(), &writv1.GetPromotionRequest{Id: g.GetPromotion()})
				return fmt.Sprintf("%s leads %s, which is %v; its promotion is %v", g.GetPrimary(), group, g.GetState(), p)
			}
		}
		return ""
	})
}

// promote plans, has two people sign, executes, and answers the promotion when it is done.
func (th *theater) promote(ctx context.Context, to string, mode writv1.PromotionMode) *writv1.Promotion {
	th.t.Helper()
	p := ask(th, func(c context.Context) (*writv1.Promotion, error) {
		if md, ok := metadata.FromOutgoingContext(ctx); ok {
			c = metadata.NewOutgoingContext(c, md)
		}
		return th.regions().Plan(c, &writv1.PlanRequest{Group: "orders", To: to, Mode: mode, Reason: "a test", RequestId: to})
	})
	if _, err := th.regions().Execute(th.t.Context(), &writv1.ExecuteRequest{Id: p.GetId()}); status.Code(err) != codes.FailedPrecondition {
		th.t.Fatalf("executed without signatures: %v", err)
	}
	for _, name := range []string{"ann", "bob"} {
		signature, err := approval.Sign(th.keys[name], approval.Namespace, p.GetOperation().GetDocument())
		must(th.t, err)
		ask(th, func(ctx context.Context) (*writv1.Operation, error) {
			return th.regions().Approve(ctx, &writv1.ApproveRequest{Id: p.GetId(), Signature: signature})
		})
	}
	ask(th, func(ctx context.Context) (*writv1.Promotion, error) {
		return th.regions().Execute(ctx, &writv1.ExecuteRequest{Id: p.GetId()})
	})
	eventually(th.t, func() string {
		got, err := th.regions().GetPromotion(th.t.Context(), &writv1.GetPromotionRequest{Id: p.GetId()})
		if err != nil {
			return err.Error()
		}
		if p = got; p.GetStuck() || p.GetState() != writv1.PromotionState_PROMOTION_STATE_DONE {
			return p.String()
		}
		return ""
	})
	return p
}

// hooks answers what ran in a region: kind and percent, in order.
func (th *theater) hooks(name string) (ran [][]string) {
	th.t.Helper()
	data, err := os.ReadFile(th.ran(name))
	must(th.t, err)
	for line := range bytes.Lines(data) {
		ran = append(ran, strings.Fields(string(line)))
	}
	return ran
}

// There and back: two agents with programs for hooks, two guards and three nodes, two people's signatures each time.
func TestSwitchoverAndFailback(t *testing.T) {
	th := newTheater(t, nil)
	th.steady("eu")
	there := th.promote(t.Context(), "us", writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER)
	th.steady("us")
	back := th.promote(t.Context(), "", writv1.PromotionMode_PROMOTION_MODE_FAILBACK)
	th.steady("eu")
	if back.GetTo() != "eu" || back.GetToken() <= there.GetToken() || back.GetExpectedToken() != there.GetToken() {
		t.Errorf("back: %v", back)
	}
	for _, p := range []*writv1.Promotion{there, back} {
		line := p.GetTimeline()
		if line.GetDecided() == nil || line.GetFenced() == nil || line.GetServing() == nil || line.GetTimeToHealthy() == nil || line.GetDetected() != nil || line.GetReconciled() != nil {
			t.Errorf("timeline of %s: %v", p.GetId(), line)
		}
		if len(p.GetProofs()) != 2 || len(p.GetTails()) != 0 {
			t.Errorf("proofs and tails: %v %v", p.GetProofs(), p.GetTails())
		}
	}
	for name, want := range map[string]string{"eu": "drain demote promote shift shift verify", "us": "promote shift shift verify drain demote"} {
		var kinds []string
		for _, run := range th.hooks(name) {
			kinds = append(kinds, run[0])
		}
		// Nothing waits for demote, so only the others come in an order.
		inOrder := slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k == "demote" })
		wanted := strings.Join(slices.DeleteFunc(strings.Fields(want), func(k string) bool { return k == "demote" }), " ")
		if strings.Join(inOrder, " ") != wanted {
			t.Errorf("in %s ran %v, want %s", name, kinds, want)
		}
	}
}

// One promotion is one trace, which begins with the caller's, over nodes, guards, agents and the programs that they run.
func TestAPromotionIsOneTrace(t *testing.T) {
	collector := tracingtest.New(t)
	th := newTheater(t, collector)
	th.steady("eu")
	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	p := th.promote(metadata.AppendToOutgoingContext(t.Context(), "traceparent", caller), "us", writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER)

	var spans map[string][]tracingtest.Span
	names := map[string]int{
		"writ.v1.RegionService/Plan": 1, "promotion of orders": 1, "promotion proposed": 1, "promotion approving": 1, "promotion preflight": 1,
		"promotion draining": 1, "promotion fencing": 1, "promotion granted": 1, "promotion verifying": 1,
		"guard raise": 2, "hook drain": 1, "hook promote": 1, "hook shift": 2, "hook verify": 1, "hook demote": 1,
	}
	eventually(t, func() string {
		spans = make(map[string][]tracingtest.Span)
		for _, s := range collector.Spans() {
			if s.Trace == "0af7651916cd43dd8448eb211c80319c" {
				spans[s.GetName()] = append(spans[s.GetName()], s)
			}
		}
		for name, count := range names {
			if len(spans[name]) < count {
				return fmt.Sprintf("%d of %q", len(spans[name]), name)
			}
		}
		return ""
	})
	// The call may pass a node on its way to the coordinator; the promotion belongs to the last part of it.
	calls := make(map[string]string)
	for _, s := range spans["writ.v1.RegionService/Plan"] {
		calls[s.ID] = s.Parent
	}
	whole := spans["promotion of orders"][0]
	at := whole.Parent
	for calls[at] != "" {
		at = calls[at]
	}
	if at != "b7ad6b7169203331" {
		t.Errorf("the promotion is below %s, which leads to %s, not to the caller; calls %v", whole.Parent, at, calls)
	}
	if whole.ID != region.PromotionSpan(p.GetId()) {
		t.Errorf("the promotion's span is %s", whole.ID)
	}
	parents := map[string]string{"guard raise": "promotion fencing", "hook drain": "promotion draining", "hook promote": "promotion granted",
		"hook shift": "promotion granted", "hook verify": "promotion verifying"}
	for name, list := range spans {
		for _, s := range list {
			if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
				t.Errorf("%s ends before it begins", name)
			}
			switch parent := parents[name]; {
			case parent != "" && s.Parent != spans[parent][0].ID:
				t.Errorf("%s is below %s, want %s (%s)", name, s.Parent, parent, spans[parent][0].ID)
			case strings.HasPrefix(name, "promotion ") && name != "promotion of orders" && s.Parent != whole.ID:
				t.Errorf("%s is below %s, want the promotion", name, s.Parent)
			}
		}
	}
	services := map[string]string{"guard raise": "writ-guard", "hook drain": "writ-agent", "promotion fencing": "writ-node"}
	for name, service := range services {
		if got := spans[name][0].Service; got != service {
			t.Errorf("%s was sent by %s", name, got)
		}
	}
	guards := []string{spans["guard raise"][0].Attribute("writ.guard"), spans["guard raise"][1].Attribute("writ.guard")}
	slices.Sort(guards)
	if raise := spans["guard raise"][0]; !slices.Equal(guards, []string{"g-eu", "g-us"}) || raise.Attribute("writ.resource") != "orders" || raise.Attribute("writ.proof") != "acked" {
		t.Errorf("raises of %v: %v", guards, raise.Span)
	}
	if events := spans["promotion fencing"][0].GetEvents(); len(events) != 2 || events[0].GetName() != "guard proved" || events[1].GetName() != "guard proved" {
		t.Errorf("events while it was fencing: %v, want the proof of each guard", events)
	}
	// What a program does belongs to its hook.
	for _, run := range th.hooks("eu") {
		if run[0] == "drain" && run[3] != "00-0af7651916cd43dd8448eb211c80319c-"+spans["hook drain"][0].ID+"-01" {
			t.Errorf("drain was run with %v", run)
		}
	}
}
