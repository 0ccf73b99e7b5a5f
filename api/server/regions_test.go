package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

// regionMethods are the methods of RegionService.
func regionMethods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	methods := writv1.File_writ_v1_region_proto.Services().ByName("RegionService").Methods()
	for i := range methods.Len() {
		all = append(all, methods.Get(i))
	}
	return all
}

func messageOf(t testing.TB, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

// regionRequest is a request of a method that is about a group, and passes validation.
func regionRequest(t testing.TB, m protoreflect.MethodDescriptor, group string) proto.Message {
	t.Helper()
	req := messageOf(t, m.Input())
	values := map[protoreflect.Name]string{
		"id": group + "-1.7", "group": group, "name": group, "guard": "g1", "reason": "because", "signature": "signed",
		"approver": "ada", "agent": "a1", "region": "eu", "session": "s1",
	}
	fields := m.Input().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if v, ok := values[f.Name()]; ok && f.Kind() == protoreflect.StringKind {
			req.ProtoReflect().Set(f, protoreflect.ValueOfString(v))
		}
	}
	switch req := req.(type) {
	case *writv1.ApplyGroupRequest:
		req.Spec = &writv1.GroupSpec{Name: group}
	case *writv1.ChangeApproversRequest:
		req.Set = &writv1.ApproverSet{}
	case *writv1.AgentPollRequest:
		req.Reports = []*writv1.GroupReport{{Group: group}}
	case *writv1.AttestGuardRequest:
		req.Group = "" // the id says it
	}
	return req
}

// regionAsked remembers what the machine was asked, and answers every call with an empty response.
type regionAsked struct {
	mu  sync.Mutex
	all []region.Command // guarded by mu
}

func askedOf(t testing.TB, q *fakeQuorum) *regionAsked {
	a := &regionAsked{}
	answers := make(map[protoreflect.FullName]protoreflect.MessageDescriptor)
	for _, m := range regionMethods() {
		answers[m.Input().FullName()] = m.Output()
	}
	q.onRegion = func(_ context.Context, cmd region.Command) (proto.Message, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.all = append(a.all, cmd)
		return messageOf(t, answers[cmd.Ask.ProtoReflect().Descriptor().FullName()]), nil
	}
	return a
}

// take answers what was asked since the last time.
func (a *regionAsked) take() []region.Command {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = nil
	return all
}

func invokeRegion(t testing.TB, c *client, m protoreflect.MethodDescriptor, req proto.Message) (proto.Message, error) {
	t.Helper()
	resp := messageOf(t, m.Output())
	err := c.conn.Invoke(testContext(t), fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), req, resp)
	return resp, lease.FromError(err)
}

// Every call reaches the machine of the coordinator as the caller's, from any node.
func TestRegionCallsAreForwarded(t *testing.T) {
	a, b := pair(t, nil)
	asked := askedOf(t, a.quorum)
	for _, n := range []*node{a, b} {
		c := n.dial(app)
		for _, m := range regionMethods() {
			req := regionRequest(t, m, "orders")
			if _, err := invokeRegion(t, c, m, req); err != nil {
				t.Errorf("%s at %s: %v", m.Name(), n.quorum.name, err)
				continue
			}
			got := asked.take()
			if len(got) != 1 || got[0].Principal != app || got[0].Ask.ProtoReflect().Descriptor() != m.Input() {
				t.Errorf("%s at %s: the machine was asked %v", m.Name(), n.quorum.name, got)
			} else if !proto.Equal(withoutWait(got[0].Ask), req) {
				t.Errorf("%s at %s: the machine was asked %v, want %v", m.Name(), n.quorum.name, got[0].Ask, req)
			}
		}
	}
}

// withoutWait hides that a poll which did not ask to wait says so.
func withoutWait(m proto.Message) proto.Message {
	if poll, ok := m.(*writv1.AgentPollRequest); ok && poll.GetWait().AsDuration() == 0 {
		poll = proto.CloneOf(poll)
		poll.Wait = nil
		return poll
	}
	return m
}

// Who may do what to which group.
func TestRegionPolicy(t *testing.T) {
	access, err := policy.Parse([]byte(`
grants:
  - {principals: ["spiffe://test/reader"], prefix: "orders", verbs: [read]}
  - {principals: ["spiffe://test/oncall"], prefix: "orders", verbs: [promote]}
  - {principals: ["spiffe://test/owner"], prefix: "orders", verbs: [group]}
  - {principals: ["spiffe://test/agent"], prefix: "orders", verbs: [agent]}
  - {principals: ["spiffe://test/admin"], prefix: "", verbs: [admin]}
  - {principals: ["spiffe://test/holder"], prefix: "", verbs: [acquire, force, guard, audit]}
`))
	if err != nil {
		t.Fatal(err)
	}
	const reads, promotes = "admin,reader", "oncall"
	want := map[protoreflect.Name]string{
		"ApplyGroup": "owner", "RemoveGroup": "owner", "ChangeApprovers": "admin", "AgentPoll": "agent",
		"Plan": promotes, "Execute": promotes, "Abort": promotes, "Resume": promotes, "Acknowledge": promotes, "Reinstate": promotes,
		"AttestGuard": promotes, "Approve": promotes, "Withdraw": promotes, "ExecuteOperation": promotes, "RecordDrill": promotes,
		"GetGroup": reads, "Explain": reads, "Confidence": reads, "GetPromotion": reads, "GetOperation": reads,
		"ListPromotions": reads, "ListOperations": reads,
		"ListGroups": "admin,agent,holder,oncall,owner,reader", "GetApprovers": "admin,agent,holder,oncall,owner,reader",
	}
	q := newFake("a")
	asked := askedOf(t, q)
	n := start(t, newAuthority(t), q, func(c *Config) { c.Policy = access })
	roles := []string{"admin", "agent", "holder", "oncall", "owner", "reader"}
	clients := make(map[string]*client)
	for _, role := range roles {
		clients[role] = n.dial("spiffe://test/" + role)
	}
	allowed := func(m protoreflect.MethodDescriptor, group string) string {
		var who []string
		for _, role := range roles {
			_, err := invokeRegion(t, clients[role], m, regionRequest(t, m, group))
			reached := len(asked.take()) > 0
			switch {
			case err == nil && reached:
				who = append(who, role)
			case reached || lease.ReasonOf(err) != lease.ReasonDenied:
				t.Errorf("%s by %s: reached %v, %v", m.Name(), role, reached, err)
			}
		}
		return strings.Join(who, ",")
	}
	for _, m := range regionMethods() {
		if got := allowed(m, "orders-eu"); got != want[m.Name()] {
			t.Errorf("%s is allowed to %q, want %q", m.Name(), got, want[m.Name()])
		}
		other := want[m.Name()]
		switch {
		case other == reads || other == "admin":
			other = "admin"
		case m.Name() != "ListGroups" && m.Name() != "GetApprovers":
			other = ""
		}
		if got := allowed(m, "payments"); got != other {
			t.Errorf("%s of another group is allowed to %q, want %q", m.Name(), got, other)
		}
	}
	attest, err := protoregistry.GlobalFiles.FindDescriptorByName("writ.v1.RegionService.AttestGuard")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"orders-eu", "payments"} {
		for _, role := range roles {
			_, err := invokeRegion(t, clients[role], attest.(protoreflect.MethodDescriptor), &writv1.AttestGuardRequest{Group: group, Guard: "g1", Reason: "because"})
			if may := role == promotes && group == "orders-eu"; may != (err == nil) || !may && lease.ReasonOf(err) != lease.ReasonDenied {
				t.Errorf("%s answers for a guard of %s: %v", role, group, err)
			}
		}
	}
	asked.take()
	// Operations on the approvers belong to no group.
	approve, err := protoregistry.GlobalFiles.FindDescriptorByName("writ.v1.RegionService.Approve")
	if err != nil {
		t.Fatal(err)
	}
	if got := allowed(approve.(protoreflect.MethodDescriptor), approversName); got != "admin" {
		t.Errorf("an operation on the approvers is approved by %q", got)
	}
}

// Lists show what the caller may read.
func TestRegionListsAreFiltered(t *testing.T) {
	access, err := policy.Parse([]byte(`
grants:
  - {principals: ["spiffe://test/reader"], prefix: "orders", verbs: [read]}
  - {principals: ["spiffe://test/admin"], prefix: "", verbs: [admin]}
`))
	if err != nil {
		t.Fatal(err)
	}
	q := newFake("a")
	q.onRegion = func(_ context.Context, cmd region.Command) (proto.Message, error) {
		switch cmd.Ask.(type) {
		case *writv1.ListGroupsRequest:
			return &writv1.ListGroupsResponse{Groups: []*writv1.Group{{Spec: &writv1.GroupSpec{Name: "orders"}}, {Spec: &writv1.GroupSpec{Name: "payments"}}}}, nil
		case *writv1.ListPromotionsRequest:
			return &writv1.ListPromotionsResponse{Promotions: []*writv1.Promotion{{Id: "payments-1.1", Group: "payments"}, {Id: "orders-1.1", Group: "orders"}}}, nil
		}
		return &writv1.ListOperationsResponse{Operations: []*writv1.Operation{{Id: "approvers-1.1"}, {Id: "orders-1.1", Group: "orders"}}}, nil
	}
	n := start(t, newAuthority(t), q, func(c *Config) { c.Policy = access })
	for who, want := range map[string]string{"reader": "orders orders-1.1 orders-1.1", "admin": "orders payments payments-1.1 orders-1.1 approvers-1.1 orders-1.1", "nobody": ""} {
		c, ctx := n.dial("spiffe://test/"+who).regions, testContext(t)
		var got []string
		groups, err1 := c.ListGroups(ctx, &writv1.ListGroupsRequest{})
		promotions, err2 := c.ListPromotions(ctx, &writv1.ListPromotionsRequest{})
		operations, err3 := c.ListOperations(ctx, &writv1.ListOperationsRequest{})
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
		for _, g := range groups.GetGroups() {
			got = append(got, g.GetSpec().GetName())
		}
		for _, p := range promotions.GetPromotions() {
			got = append(got, p.GetId())
		}
		for _, o := range operations.GetOperations() {
			got = append(got, o.GetId())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is shown %v, want %s", who, got, want)
		}
	}
}

// Every call with a path of its own is reached over HTTP.
func TestRegionREST(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	asked := askedOf(t, q)
	n := start(t, ca, q, nil)
	c := n.web(ca.source(app))
	paths := 0
	for _, m := range regionMethods() {
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue // agents speak gRPC
		}
		paths++
		method, path := http.MethodGet, rule.GetGet()
		if path == "" {
			method, path = http.MethodPost, rule.GetPost()
		}
		body := ""
		if method == http.MethodPost {
			body = restBody(t, regionRequest(t, m, "orders"), path)
		}
		path = strings.NewReplacer("{id}", "orders-1.7", "{name}", "orders", "{group}", "orders").Replace(path)
		status, answer := n.call(c, method, path, body)
		if got := asked.take(); status != http.StatusOK || len(got) != 1 || got[0].Ask.ProtoReflect().Descriptor() != m.Input() {
			t.Errorf("%s %s: %d %s, asked %v", method, path, status, answer, got)
		} else if id := got[0].Ask.ProtoReflect().Descriptor().Fields().ByName("id"); id != nil && got[0].Ask.ProtoReflect().Get(id).String() != "orders-1.7" {
			t.Errorf("%s %s is about %v", method, path, got[0].Ask)
		}
	}
	// Outside of promotions, by the group and the guard.
	status, answer := n.call(c, http.MethodPost, "/v1/groups/orders/guards/g1:attest", `{"reason":"because"}`)
	if got := asked.take(); status != http.StatusOK || len(got) != 1 || !proto.Equal(got[0].Ask, &writv1.AttestGuardRequest{Group: "orders", Guard: "g1", Reason: "because"}) {
		t.Errorf("attest: %d %s, asked %v", status, answer, got)
	}
	if paths != len(regionMethods())-1 {
		t.Errorf("%d of %d methods have paths", paths, len(regionMethods()))
	}
	if status, body := n.call(c, http.MethodPost, "/v1/promotions/orders-1.7:execute", `{"nonsense":1}`); status != http.StatusBadRequest {
		t.Errorf("an unknown field: %d %s", status, body)
	}
	q.onRegion = func(context.Context, region.Command) (proto.Message, error) {
		return nil, lease.Errorf(lease.ReasonPending, "one signature is missing")
	}
	if status, body := n.call(c, http.MethodPost, "/v1/promotions/orders-1.7:execute", `{}`); status != http.StatusPreconditionFailed || !strings.Contains(body, `"reason":"PENDING"`) {
		t.Errorf("missing signatures: %d %s", status, body)
	}
}

// restBody is a request as JSON, without what stands in the path.
func restBody(t testing.TB, req proto.Message, path string) string {
	t.Helper()
	fields := req.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if strings.Contains(path, "{"+string(fields.Get(i).Name())+"}") {
			req.ProtoReflect().Clear(fields.Get(i))
		}
	}
	data, err := protojson.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A call that waits is given as much time as its caller has, and comes back before that is over.
func TestRegionWaitsAreBounded(t *testing.T) {
	q := newFake("c")
	asked := askedOf(t, q)
	c := start(t, newAuthority(t), q, nil).dial(app)
	wait := func(limit, want time.Duration) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(testContext(t), limit)
		defer cancel()
		if _, err := c.regions.AgentPoll(ctx, &writv1.AgentPollRequest{Agent: "a", Region: "eu", Session: "s", Wait: durationpb.New(want)}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.regions.GetPromotion(ctx, &writv1.GetPromotionRequest{Id: "orders-1.1", AfterRevision: 3, Wait: durationpb.New(want)}); err != nil {
			t.Fatal(err)
		}
		all := asked.take()
		poll, get := all[0].Ask.(*writv1.AgentPollRequest).GetWait().AsDuration(), all[1].Ask.(*writv1.GetPromotionRequest).GetWait().AsDuration()
		if poll < get || get < 0 {
			t.Errorf("waits of %v and then %v", poll, get)
		}
		return poll
	}
	if got := wait(time.Minute, time.Hour); got != maxLongPoll {
		t.Errorf("wait of an hour: %v", got)
	}
	if got := wait(10*time.Second, 30*time.Second); got > 9500*time.Millisecond {
		t.Errorf("wait with ten seconds left: %v", got)
	}
	if got := wait(time.Minute, -time.Hour); got != 0 {
		t.Errorf("negative wait: %v", got)
	}
	if got := wait(time.Minute, 5*time.Second); got != 5*time.Second {
		t.Errorf("wait of 5s: %v", got)
	}
}

// A node that stops lets nobody wait: the agent is sent to another node, and who follows a promotion is told what there is.
func TestRegionWaitsEndWithTheNode(t *testing.T) {
	q := newFake("a")
	waiting := make(chan struct{}, 2)
	q.onRegion = func(ctx context.Context, cmd region.Command) (proto.Message, error) {
		if get, ok := cmd.Ask.(*writv1.GetPromotionRequest); ok && get.GetWait() == nil {
			return &writv1.Promotion{Id: get.GetId(), Revision: 4}, nil
		}
		waiting <- struct{}{}
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	n := start(t, newAuthority(t), q, nil)
	c := n.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.regions.AgentPoll(testContext(t), &writv1.AgentPollRequest{Agent: "a", Region: "eu", Session: "s", Wait: durationpb.New(30 * time.Second)})
		wantReason(t, lease.FromError(err), lease.ReasonUnknownOutcome, "shutting down")
	})
	wg.Go(func() {
		p, err := c.regions.GetPromotion(testContext(t), &writv1.GetPromotionRequest{Id: "orders-1.1", AfterRevision: 4, Wait: durationpb.New(30 * time.Second)})
		if err != nil || p.GetRevision() != 4 {
			t.Errorf("got %v, %v", p, err)
		}
	})
	<-waiting
	<-waiting
	n.server.drain()
	wg.Wait()
}

func tenureTasks() *writv1.AgentPollResponse {
	task := func(kind writv1.HookKind, token, old fence.Token) *writv1.Task {
		return &writv1.Task{
			Group: "orders", Promotion: "orders-1.7", Kind: kind, Resource: "db/orders", From: "eu", To: "us", Token: uint64(token), OldToken: uint64(old),
		}
	}
	return &writv1.AgentPollResponse{
		Tasks: []*writv1.Task{
			task(writv1.HookKind_HOOK_KIND_PROMOTE, token(9), token(7)), task(writv1.HookKind_HOOK_KIND_VERIFY, token(9), token(7)),
			task(writv1.HookKind_HOOK_KIND_DEMOTE, token(8), token(7)), {Group: "strange", Token: uint64(token(9))},
		},
		Groups: []*writv1.AgentGroup{{Group: "orders", Resource: "db/orders", Primary: "us", Token: uint64(token(9))}},
	}
}

// The agent of the region that has the tenure gets writs for its tasks, signed by the node that it is connected to. No other
// agent gets any, and what the coordinator answered stays as it was.
func TestAgentTasksCarryWrits(t *testing.T) {
	a, b := pair(t, nil)
	answer := tenureTasks()
	a.quorum.onRegion = func(context.Context, region.Command) (proto.Message, error) { return answer, nil }
	poll := func(n *node, at string) *writv1.AgentPollResponse {
		t.Helper()
		resp, err := n.dial(app).regions.AgentPoll(testContext(t), &writv1.AgentPollRequest{Agent: "a", Region: at, Session: "s"})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for _, n := range []*node{a, b} {
		set, err := fence.NewKeySet(n.quorum.signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		tasks := poll(n, "us").GetTasks()
		for i, wants := range []struct{ writ, old bool }{{true, false}, {true, true}, {false, false}, {false, false}} {
			task := tasks[i]
			if (task.GetWrit() != "") != wants.writ || (task.GetOldWrit() != "") != wants.old {
				t.Errorf("%v at %s carries writs %q and %q", task.GetKind(), n.quorum.name, task.GetWrit(), task.GetOldWrit())
			}
			if w, err := set.Verify(task.GetWrit()); wants.writ && (err != nil || w.Resource != "db/orders" || w.Holder != "group/orders" || w.Region != "us" || w.Token != token(9) || w.RequestID != "orders-1.7") {
				t.Errorf("writ %+v, %v", w, err)
			}
			if w, err := set.Verify(task.GetOldWrit()); wants.old && (err != nil || w.Region != "eu" || w.Token != token(7)) {
				t.Errorf("old writ %+v, %v", w, err)
			}
		}
		for _, task := range poll(n, "eu").GetTasks() {
			if task.GetWrit() != "" || task.GetOldWrit() != "" {
				t.Errorf("the agent of the other region got a writ for %v", task.GetKind())
			}
		}
	}
	if !proto.Equal(answer, tenureTasks()) {
		t.Error("the answer of the coordinator was changed")
	}
}

// An agent is told nothing of groups that the policy does not give it.
func TestAgentIsToldOfItsGroupsOnly(t *testing.T) {
	access, err := policy.Parse([]byte(`grants: [{principals: ["` + app + `"], prefix: "pay", verbs: [agent]}]`))
	if err != nil {
		t.Fatal(err)
	}
	q := newFake("a")
	q.onRegion = func(context.Context, region.Command) (proto.Message, error) { return tenureTasks(), nil }
	n := start(t, newAuthority(t), q, func(c *Config) { c.Policy = access })
	_, err = n.dial(app).regions.AgentPoll(testContext(t), &writv1.AgentPollRequest{Agent: "a", Region: "us", Session: "s"})
	wantReason(t, lease.FromError(err), lease.ReasonDenied, "orders")
	result := &writv1.AgentPollRequest{Agent: "a", Region: "us", Session: "s", Results: []*writv1.TaskResult{{Group: "orders"}}}
	_, err = n.dial(app).regions.AgentPoll(testContext(t), result)
	wantReason(t, lease.FromError(err), lease.ReasonDenied, "orders")
}

// Writs of a tenure are for the writers of the region that has it, and its agent.
func TestWritsOfTenures(t *testing.T) {
	const resource = lease.Resource("db/orders")
	info := lease.Info{
		Resource: resource, State: lease.Held, Token: token(7), TenureGroup: "orders", GrantedAt: grantedAt,
		Holder: lease.Holder{Principal: "group/orders", Region: "us"},
	}
	spec := &writv1.GroupSpec{Name: "orders", Regions: []*writv1.GroupRegion{
		{Name: "eu", Agent: "spiffe://test/agent/eu", Writers: []string{"spiffe://test/eu"}},
		{Name: "us", Agent: "spiffe://test/agent/us", Writers: []string{"spiffe://test/us-1", "spiffe://test/us-2"}},
	}}
	a, b := pair(t, nil)
	a.quorum.onInspect = func(cmd lease.Inspect) (lease.Info, error) {
		if cmd.Token != 0 {
			return lease.Info{}, lease.Errorf(lease.ReasonDenied, "is the tenure of group orders: use writ promote")
		}
		return info, nil
	}
	a.quorum.onRegion = func(_ context.Context, cmd region.Command) (proto.Message, error) {
		if cmd.Ask.(*writv1.GetGroupRequest).GetName() != "orders" {
			t.Errorf("asked for %v", cmd.Ask)
		}
		return &writv1.Group{Spec: spec}, nil
	}
	set, err := fence.NewKeySet(a.quorum.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]lease.Reason{
		"us-1": "", "us-2": "", "agent/us": "", "eu": lease.ReasonDenied, "agent/eu": lease.ReasonDenied, "us": lease.ReasonDenied,
	} {
		resp, err := b.dial("spiffe://test/"+who).fences.IssueWrit(testContext(t), &writv1.IssueWritRequest{Resource: string(resource), Token: uint64(token(7))})
		if got := lease.ReasonOf(err); got != want {
			t.Errorf("%s: %v, want %q", who, err, want)
		}
		if w, err := set.Verify(resp.GetWrit()); want == "" && (err != nil || w.Holder != "group/orders" || w.Region != "us" || w.Token != token(7)) {
			t.Errorf("%s: writ %+v, %v", who, w, err)
		}
	}
	c := b.dial("spiffe://test/us-1")
	_, err = c.fences.IssueWrit(testContext(t), &writv1.IssueWritRequest{Resource: string(resource), Token: uint64(token(6))})
	wantReason(t, lease.FromError(err), lease.ReasonStaleToken, "present tenure")
	info.State = lease.Fencing
	_, err = c.fences.IssueWrit(testContext(t), &writv1.IssueWritRequest{Resource: string(resource), Token: uint64(token(7))})
	wantReason(t, lease.FromError(err), lease.ReasonStaleToken)
	info.TenureGroup = ""
	_, err = c.fences.IssueWrit(testContext(t), &writv1.IssueWritRequest{Resource: string(resource), Token: uint64(token(7))})
	wantReason(t, lease.FromError(err), lease.ReasonDenied, "writ promote")
}

// The group is what stands before the last hyphen: names have hyphens, too.
// An attestation is within a promotion or outside of any: what is left out does not turn one into the other.
func TestAttestationIsOfOneKind(t *testing.T) {
	q := newFake("a")
	asked := askedOf(t, q)
	c := start(t, newAuthority(t), q, nil).dial(app)
	for _, test := range []struct {
		req   *writv1.AttestGuardRequest
		field string
	}{
		{&writv1.AttestGuardRequest{Guard: "g1", Reason: "x"}, "id"},
		{&writv1.AttestGuardRequest{Id: "orders-1.7", Group: "orders", Guard: "g1", Reason: "x"}, "group"},
		{&writv1.AttestGuardRequest{Group: "orders", Reason: "x"}, "guard"},
		{&writv1.AttestGuardRequest{Group: "orders", Guard: "g1"}, "reason"},
		{&writv1.AttestGuardRequest{Group: strings.Repeat("g", 65), Guard: "g1", Reason: "x"}, "group"},
	} {
		_, err := c.regions.AttestGuard(testContext(t), test.req)
		var wrong *lease.Error
		if err = lease.FromError(err); !errors.As(err, &wrong) || wrong.Reason != lease.ReasonInvalid || wrong.Field != test.field || wrong.Fix == "" {
			t.Errorf("%v: %v, want INVALID of %s", test.req, err, test.field)
		}
	}
	if got := asked.take(); len(got) > 0 {
		t.Errorf("the machine was asked %v", got)
	}
}

func TestGroupOfAnID(t *testing.T) {
	for id, want := range map[string]string{"orders-1.7": "orders", "orders-eu-1.7": "orders-eu", "orders": "orders", "approvers-2.1": "approvers"} {
		if got := groupOf(id); got != want {
			t.Errorf("%s belongs to %s, want %s", id, got, want)
		}
	}
}
