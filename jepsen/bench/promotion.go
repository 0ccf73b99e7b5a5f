package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const (
	switchovers = 40
	manyGroups  = 1000
	watchGroups = 20 * time.Second
)

// promotions measures what failover groups cost: switching over with three guards and hooks that return at once, and a thousand
// groups whose three agents report every second.
func promotions(ctx context.Context, o options) (rows []row, err error) {
	c, err := startCluster(ctx, o, "writ", steady)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	conn, err := grpc.NewClient("passthrough:///"+c.client[0], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := writv1.NewRegionServiceClient(conn)
	if err := settled(ctx, func() error { _, err := client.ListGroups(ctx, &writv1.ListGroupsRequest{}); return err }); err != nil {
		return nil, err
	}
	stop, err := startGuards(ctx, o, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	groups := []string{"orders"}
	if err := applyGroups(ctx, client, groups); err != nil {
		return nil, err
	}
	var took []time.Duration
	err = withAgents(ctx, client, groups, func() (err error) {
		took, err = switchOver(ctx, client, "orders")
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range manyGroups - 1 {
		groups = append(groups, fmt.Sprintf("g%04d", i))
	}
	if err := applyGroups(ctx, client, groups[1:]); err != nil {
		return nil, err
	}
	var share float64
	err = withAgents(ctx, client, groups, func() (err error) {
		share, err = busiest(ctx, c, watchGroups)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []row{
		{"planned switchover, three guards, from execute to the end of VERIFYING, p50", "", median(took).Round(time.Millisecond).String(), "", "≤ 400 ms"},
		{fmt.Sprintf("%d groups, three agents reporting each of them every second: the busiest server", manyGroups), "", fmt.Sprintf("%.1f %% of one core", 100*share), "", "≤ 15 %"},
	}, nil
}

// settled tries until something succeeds.
func settled(ctx context.Context, try func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func applyGroups(ctx context.Context, client writv1.RegionServiceClient, names []string) error {
	for _, name := range names {
		spec := &writv1.GroupSpec{Name: name, Resource: "guarded/" + name, Approvals: &writv1.GroupApprovals{Switchover: &writv1.ApprovalRule{None: true}}}
		for i, r := range regions {
			role := writv1.RegionRole_REGION_ROLE_STANDBY
			if i == 0 {
				role = writv1.RegionRole_REGION_ROLE_PRIMARY
			}
			spec.Regions = append(spec.Regions, &writv1.GroupRegion{Name: r, Role: role, Priority: int32(10 - i), Agent: "insecure", Guards: []string{"g-" + r}})
		}
		for _, kind := range benchHooks {
			spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind})
		}
		if _, err := client.ApplyGroup(ctx, &writv1.ApplyGroupRequest{Spec: spec, Reason: "benchmark"}); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	return settled(ctx, func() error {
		g, err := client.GetGroup(ctx, &writv1.GetGroupRequest{Name: names[len(names)-1]})
		if err == nil && g.GetState() != writv1.GroupState_GROUP_STATE_STEADY {
			err = fmt.Errorf("%s is %v", g.GetSpec().GetName(), g.GetState())
		}
		return err
	})
}

var benchHooks = []writv1.HookKind{
	writv1.HookKind_HOOK_KIND_DRAIN, writv1.HookKind_HOOK_KIND_PROMOTE, writv1.HookKind_HOOK_KIND_SHIFT, writv1.HookKind_HOOK_KIND_VERIFY,
}

// withAgents polls for each region as an agent does, with hooks that return at once, while do runs.
func withAgents(ctx context.Context, client writv1.RegionServiceClient, groups []string, do func() error) error {
	polling, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	runAgents(polling, &running, client, groups)
	return do()
}

func runAgents(ctx context.Context, running *sync.WaitGroup, client writv1.RegionServiceClient, groups []string) {
	for _, region := range regions {
		running.Go(func() {
			session := fmt.Sprint(time.Now().UnixNano())
			var results []*writv1.TaskResult
			for ctx.Err() == nil {
				ask := &writv1.AgentPollRequest{Agent: "bench", Region: region, Session: session, Wait: durationpb.New(time.Second), Results: results}
				for _, name := range groups {
					ask.Reports = append(ask.Reports, &writv1.GroupReport{
						Group: name, Health: writv1.Health_HEALTH_OK, Hooks: benchHooks, Age: durationpb.New(0), Lag: durationpb.New(0),
						Peers: []*writv1.PeerReport{{Region: regions[0], Reachable: true}, {Region: regions[1], Reachable: true}, {Region: regions[2], Reachable: true}},
					})
				}
				answer, err := client.AgentPoll(ctx, ask)
				if err != nil {
					continue // it ends with the context
				}
				results = nil
				for _, t := range answer.GetTasks() {
					results = append(results, &writv1.TaskResult{Group: t.GetGroup(), Promotion: t.GetPromotion(), Step: t.GetStep(), Kind: t.GetKind(), Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE})
				}
			}
		})
	}
}

// switchOver moves a group to and fro, and answers how long each took from Execute to the end of VERIFYING.
func switchOver(ctx context.Context, client writv1.RegionServiceClient, group string) (took []time.Duration, err error) {
	for i := range switchovers {
		var p *writv1.Promotion
		err := settled(ctx, func() (err error) {
			p, err = client.Plan(ctx, &writv1.PlanRequest{Group: group, To: regions[(i+1)%2], Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, Reason: "benchmark"})
			return err
		})
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := client.Execute(ctx, &writv1.ExecuteRequest{Id: p.GetId()}); err != nil {
			return nil, err
		}
		for p.GetState() != writv1.PromotionState_PROMOTION_STATE_DONE {
			if p, err = client.GetPromotion(ctx, &writv1.GetPromotionRequest{Id: p.GetId(), AfterRevision: p.GetRevision(), Wait: durationpb.New(10 * time.Second)}); err != nil {
				return nil, err
			}
			if p.GetStuck() || time.Since(began) > time.Minute {
				return nil, fmt.Errorf("%s stands still in %v: %s", p.GetId(), p.GetState(), p.GetReason())
			}
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// busiest is the share of a core that the busiest server takes.
func busiest(ctx context.Context, c *cluster, d time.Duration) (float64, error) {
	var before [3]time.Duration
	for i, p := range c.processes {
		used, err := processCPU(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		before[i] = used
	}
	began := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	var most time.Duration
	for i, p := range c.processes {
		used, err := processCPU(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		most = max(most, used-before[i])
	}
	return float64(most) / float64(time.Since(began)), nil
}
