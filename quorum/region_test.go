package quorum_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/quorum/quorumtest"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/region/approval"
)

// askRegion asks whoever decides until it is answered.
func askRegion[A proto.Message](t *testing.T, c *quorumtest.Cluster, who lease.Principal, ask proto.Message) A {
	t.Helper()
	var answer proto.Message
	err := c.Do(func(s *quorum.Service) (err error) {
		answer, err = s.Region(t.Context(), region.Command{Caller: lease.Caller{Principal: who}, Ask: ask})
		return err
	})
	if err != nil {
		t.Fatalf("%T: %v", ask, err)
	}
	return answer.(A)
}

// nodes are the services that a cluster began with, for those who ask while one of them is stopped.
type nodes []*quorum.Service

// do runs f on one after the other, until it succeeds on one.
func (n nodes) do(f func(*quorum.Service) error) (err error) {
	for _, s := range n {
		if err = f(s); err == nil {
			return nil
		}
	}
	return err
}

// sayAsGuard is what the guard of a region says; nil if nobody decided.
func sayAsGuard(ctx context.Context, n nodes, name string, ask *writv1.GuardRequest) (answer *writv1.GuardResponse) {
	ask.Guard, ask.Session = name, name
	_ = n.do(func(s *quorum.Service) (err error) {
		answer, err = s.GuardCall(ctx, lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: ask})
		return err
	})
	return answer
}

// liveGuard makes contact and proves what it is asked for, until ctx ends.
func liveGuard(ctx context.Context, n nodes, name string) {
	for ctx.Err() == nil {
		answer := sayAsGuard(ctx, n, name, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{RulesVersion: 1}}})
		for _, f := range answer.GetContacted().GetRaises() {
			sayAsGuard(ctx, n, name, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Acks{Acks: &writv1.GuardAcks{
				Acks: []*writv1.GuardAck{{Resource: f.Resource, Token: f.Token, Proof: writv1.GuardProof_GUARD_PROOF_ACKED}}}}})
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// liveAgent polls, and does at once what it is asked for, until ctx ends.
func liveAgent(ctx context.Context, n nodes, name string) {
	room := uint32(500)
	var results []*writv1.TaskResult
	for ctx.Err() == nil {
		ask := &writv1.AgentPollRequest{
			Agent: "agent", Region: name, Session: "1", Wait: durationpb.New(200 * time.Millisecond), Results: results,
			Reports: []*writv1.GroupReport{{Group: "orders", Health: writv1.Health_HEALTH_OK, Headroom: &room, Lag: durationpb.New(0), Position: &writv1.Position{Log: "1", Bytes: 7}}},
		}
		var answer proto.Message
		err := n.do(func(s *quorum.Service) (err error) {
			answer, err = s.Region(ctx, region.Command{Caller: lease.Caller{Principal: lease.Principal("agent-" + name)}, Ask: ask})
			return err
		})
		poll, _ := answer.(*writv1.AgentPollResponse)
		for _, task := range poll.GetTasks() {
			results = append(results, &writv1.TaskResult{Group: task.Group, Promotion: task.Promotion, Step: task.Step, Kind: task.Kind,
				Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE, Position: &writv1.Position{Log: "1", Bytes: 7}})
		}
		if err != nil {
			wait(ctx, 50*time.Millisecond)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// A promotion on a real store, with guards, agents and the signatures of two people, goes on under the next coordinator when
// the one that began it stops in the middle.
func TestAPromotionGoesOnUnderTheNextCoordinator(t *testing.T) {
	signers, approvers := quorum.RegionPeople()
	c := quorumtest.New(t, 3)
	c.Configure = func(_ *etcd.Config, config *quorum.Config) { config.Approvers = approvers }
	c.StartAll()
	c.Coordinator()
	var n nodes
	for _, node := range c.Nodes {
		n = append(n, node.Service)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for _, name := range []string{"eu", "us"} {
		sayAsGuard(ctx, n, "guard-"+name, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{
			Region: name, Covers: []string{"orders"}, Store: name, Slack: durationpb.New(time.Second)}}})
		group.Go(func() { liveAgent(ctx, n, name) })
	}
	euCtx, stopEU := context.WithCancel(ctx)
	group.Go(func() { liveGuard(euCtx, n, "guard-eu") })
	group.Go(func() { liveGuard(ctx, n, "guard-us") })

	askRegion[*writv1.ApplyGroupResponse](t, c, "ops", &writv1.ApplyGroupRequest{Spec: quorum.RegionSpec()})
	orders := func() *writv1.Group {
		return askRegion[*writv1.Group](t, c, "ops", &writv1.GetGroupRequest{Name: "orders"})
	}
	c.Await("the first tenure", func() bool {
		return orders().State == writv1.GroupState_GROUP_STATE_STEADY && !slices.ContainsFunc(orders().Regions, func(r *writv1.RegionStatus) bool { return r.Report == nil })
	})
	first := orders()
	plan := askRegion[*writv1.Promotion](t, c, "ops", &writv1.PlanRequest{Group: "orders", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, Reason: "test", RequestId: "1"})
	document := askRegion[*writv1.Operation](t, c, "ops", &writv1.GetOperationRequest{Id: plan.Id}).Document
	for _, s := range signers {
		armored, err := approval.Sign(s, approval.Namespace, document)
		if err != nil {
			t.Fatal(err)
		}
		askRegion[*writv1.Operation](t, c, "ops", &writv1.ApproveRequest{Id: plan.Id, Signature: armored})
	}
	stopEU() // so that it stays in FENCING
	askRegion[*writv1.Promotion](t, c, "ops", &writv1.ExecuteRequest{Id: plan.Id})
	promotion := func() *writv1.Promotion {
		return askRegion[*writv1.Promotion](t, c, "ops", &writv1.GetPromotionRequest{Id: plan.Id})
	}
	c.Await("the fencing", func() bool { return promotion().State == writv1.PromotionState_PROMOTION_STATE_FENCING })
	stopped := c.Coordinator()
	stopped.Stop()
	if p := promotion(); p.State != writv1.PromotionState_PROMOTION_STATE_FENCING {
		t.Fatalf("the next coordinator has it in %v, with a guard that has proved nothing", p.State)
	}
	group.Go(func() { liveGuard(ctx, n, "guard-eu") })
	c.Await("the end", func() bool { return region.PromotionEnded(promotion().State) })
	after := orders()
	if p := promotion(); p.State != writv1.PromotionState_PROMOTION_STATE_DONE || after.Primary != "us" || fence.Token(after.Token) <= fence.Token(first.Token) {
		t.Fatalf("it ended as %v, with the group %v", p, after)
	}
	_ = c.Do(func(s *quorum.Service) error {
		_, err := s.Acquire(t.Context(), lease.Acquire{Caller: alice, Resource: "orders", RequestID: "r", TTL: time.Second})
		if !errors.Is(err, lease.ErrDenied) {
			t.Errorf("a lease on the tenure: %v, want DENIED", err)
		}
		return nil
	})
	stopped.Start()
}
