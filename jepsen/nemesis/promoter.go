//go:build linux

package nemesis

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// promoters harm what takes part in promotions.
var promoters = []Kind{
	{Name: "kill-promoter", Doc: "SIGKILL the coordinator when a promotion has come to a state that is drawn", Needs: lab.NeedsPair, strike: func(ctx context.Context, s *strike) error {
		return s.promoter(ctx)
	}},
	{Name: "kill-agent", Doc: "SIGKILL the agent of a region, and start it again", Needs: lab.NeedsPair, strike: func(ctx context.Context, s *strike) error {
		region := lab.PairRegions[s.rng.IntN(len(lab.PairRegions))]
		if !s.take(lab.Agent(region)) {
			return nil
		}
		agent := s.lab.Pair.Agents[region]
		return s.during(ctx, region, s.between(0, 3000), agent.Kill, agent.Start)
	}},
	{Name: "cut-region", Doc: "take a region off the network: its node, its guard, its agent and its writer", Needs: lab.NeedsPair, strike: func(ctx context.Context, s *strike) error {
		i := s.rng.IntN(len(lab.PairRegions))
		region := lab.PairRegions[i]
		return s.unplug(ctx, s.out(), region, lab.Guard(i), lab.Agent(region), lab.PairWriter(region))
	}},
}

// lookPause is between two looks at a promotion.
const lookPause = 20 * time.Millisecond

// harmed are the states in which a promoter is struck.
var harmed = []writv1.PromotionState{
	writv1.PromotionState_PROMOTION_STATE_APPROVING, writv1.PromotionState_PROMOTION_STATE_PREFLIGHT, writv1.PromotionState_PROMOTION_STATE_DRAINING,
	writv1.PromotionState_PROMOTION_STATE_FENCING, writv1.PromotionState_PROMOTION_STATE_TAIL, writv1.PromotionState_PROMOTION_STATE_GRANTED,
	writv1.PromotionState_PROMOTION_STATE_VERIFYING, writv1.PromotionState_PROMOTION_STATE_DEGRADED, writv1.PromotionState_PROMOTION_STATE_RECONCILED,
	writv1.PromotionState_PROMOTION_STATE_ROLLING_BACK, writv1.PromotionState_PROMOTION_STATE_UNDRAINING,
}

// promoter waits until a promotion is in a state that is drawn, and strikes whoever decides. Some states are rare, and some
// are over before anybody looks, so the wait is bounded.
func (s *strike) promoter(ctx context.Context) error {
	want := harmed[s.rng.IntN(len(harmed))]
	i, ok := s.lab.Nodes.Coordinator(ctx)
	if !ok {
		return nil
	}
	conn, err := s.lab.Nodes.Dial(i)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := writv1.NewRegionServiceClient(conn)
	within, cancel := context.WithTimeout(ctx, 2*lab.Lapse)
	defer cancel()
	for wait.For(within, lookPause) {
		listed, err := client.ListPromotions(within, &writv1.ListPromotionsRequest{Group: lab.PairGroup, Open: true})
		if err != nil || len(listed.GetPromotions()) == 0 {
			continue
		}
		p := listed.GetPromotions()[0]
		for p.GetState() != want && within.Err() == nil {
			got, err := client.GetPromotion(within, &writv1.GetPromotionRequest{Id: p.GetId(), AfterRevision: p.GetRevision(), Wait: durationpb.New(time.Second)})
			if err != nil || got.GetRevision() == p.GetRevision() {
				break // perhaps it has ended
			}
			p = got
		}
		if p.GetState() != want {
			continue
		}
		if i, ok = s.lab.Nodes.Coordinator(ctx); !ok || !s.take("nodes") {
			return nil
		}
		state := strings.ToLower(strings.TrimPrefix(p.GetState().String(), "PROMOTION_STATE_"))
		return s.during(ctx, fmt.Sprintf("%s, with %s %s", region(i), p.GetId(), state), s.between(100, 2000),
			func() error { return s.lab.Nodes.Kill(i) }, func() error { return s.lab.Nodes.Restart(i) })
	}
	return nil
}
