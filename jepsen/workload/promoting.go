//go:build linux

package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/wait"
)

// Promotion is the name of the workload of promotions. What operators ask for on the way, and what the writers write, is
// recorded under names of their own.
const (
	Promotion       = "promotion"
	promotionCalls  = "promotion-calls"
	promotionWrites = "promotion-writes"
)

// What is recorded of it.
const (
	opPromote = "promote" // a call: one promotion, from its plan to its end
	opState   = "state"   // an event: what was seen of a promotion
	opGroup   = "group"   // an event: what was seen of the group
	opHook    = "hook"    // an event: a hook has begun
	opOpen    = "open"    // an event: all promotions that were open at a time, as one node told
	// opExecuteOperation is a call of operators that has an operation which is no promotion executed.
	opExecuteOperation = "execute-operation"
)

const (
	// finishTime is how long a promotion that was begun is followed when the round is over. Guards that do not answer are
	// given up before, and hooks too.
	finishTime = 90 * time.Second
	followWait = 500 * time.Millisecond
	againAfter = 500 * time.Millisecond
	// lookOnPause is between two looks at all that is open.
	lookOnPause = 200 * time.Millisecond
)

var promoting = Kind{
	Name: Promotion, Doc: "a group is promoted to and fro while writers in both regions write whenever they believe that it is their turn",
	// A promotion takes a guard lease and more if a guard or a hook is in trouble.
	Rate: 0.02, Bound: lab.Lapse + lab.GuardLease + lab.Slack + 10*time.Second + allowance,
	Needs: lab.NeedsPair,
	Start: startPromoting,
	Check: checkPromotion,
}

// promoted is what was seen of a promotion.
type promoted struct {
	ID       string      `json:"id"`
	State    string      `json:"state"`
	From     string      `json:"from,omitempty"`
	To       string      `json:"to,omitempty"`
	Mode     string      `json:"mode,omitempty"`
	Expected fence.Token `json:"expected,omitzero"`
	Token    fence.Token `json:"token,omitzero"`
	Step     uint64      `json:"step,omitempty"`
	Revision int64       `json:"revision,omitempty"`
	// Proofs says how each guard was proved, by its name.
	Proofs map[string]string `json:"proofs,omitempty"`
	Stuck  bool              `json:"stuck,omitempty"`
	Reason string            `json:"reason,omitempty"`
}

func seenOf(p *writv1.Promotion) promoted {
	s := promoted{
		ID: p.GetId(), State: shortName(p.GetState().String(), "PROMOTION_STATE_"), From: p.GetFrom(), To: p.GetTo(),
		Mode: shortName(p.GetMode().String(), "PROMOTION_MODE_"), Expected: fence.Token(p.GetExpectedToken()), Token: fence.Token(p.GetToken()),
		Step: p.GetStep(), Revision: p.GetRevision(), Stuck: p.GetStuck(), Reason: p.GetReason(), Proofs: make(map[string]string),
	}
	for _, proof := range p.GetProofs() {
		s.Proofs[proof.GetGuard()] = shortName(proof.GetHow().String(), "GUARD_PROOF_")
	}
	return s
}

func shortName(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// grouped is what was seen of the group.
type grouped struct {
	State   string      `json:"state"`
	Primary string      `json:"primary,omitempty"`
	Token   fence.Token `json:"token,omitzero"`
	Version uint64      `json:"version,omitempty"`
	// Number is what a change of the group asked for last.
	Number uint64 `json:"number,omitempty"`
}

func groupOf(g *writv1.Group) grouped {
	return grouped{
		State: shortName(g.GetState().String(), "GROUP_STATE_"), Primary: g.GetPrimary(), Token: fence.Token(g.GetToken()),
		Version: g.GetVersion(), Number: g.GetSpec().GetRpo().GetBytes(),
	}
}

// promotions plans one promotion after the other, and carries each to its end.
type promotions struct {
	world  World
	pair   *lab.Pair
	office *office
	rng    *rand.Rand
	seen   map[string]int64 // the newest revision of each promotion
	count  int
	// undone is the last promotion that was rolled back: where its target had the tenure for a moment, that has to be settled.
	undone string
}

func startPromoting(w World) (Workload, error) {
	o, err := w.open(promotionCalls, lab.Ops)
	if err != nil {
		return nil, err
	}
	p := &promotions{world: w, pair: w.Lab.Pair, office: o, rng: rand.New(rand.NewPCG(w.Seed, 0x9a17)), seen: make(map[string]int64)}
	p.group(context.Background())
	return p, nil
}

// Run promotes until ctx ends, and follows what it has begun to its end. Somebody else looks on.
func (p *promotions) Run(ctx context.Context, round int) error {
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { p.lookOn(looking, rand.New(rand.NewPCG(p.world.Seed, uint64(round)<<16|0x9a18))) })
	defer running.Wait()
	defer stop()
	for wait.For(ctx, time.Duration(p.rng.IntN(500))*time.Millisecond) {
		g, ok := p.group(ctx)
		if !ok || g.GetState() != writv1.GroupState_GROUP_STATE_STEADY || g.GetPrimary() == "" {
			if open := p.open(ctx); open != "" {
				p.finish(ctx, plan{id: open})
			}
			continue
		}
		if len(g.GetQuarantined()) > 0 && p.undone != "" {
			p.reinstate(ctx, p.undone)
			continue
		}
		p.promote(ctx, g)
	}
	return nil
}

// plan is what is to be done with a promotion.
type plan struct {
	id string
	// cancelAt is the state in which it is called off; empty: it is not.
	cancelAt string
}

// group asks for the group, and records what it finds.
func (p *promotions) group(ctx context.Context) (*writv1.Group, bool) {
	g, err := look(ctx, p.office, p.rng, writv1.RegionServiceClient.GetGroup, &writv1.GetGroupRequest{Name: lab.PairGroup})
	if err != nil {
		return nil, false
	}
	p.world.Record.Event(Promotion, "operator", opGroup, groupOf(g))
	return g, true
}

// lookOn records what is open, all of it at a time, which those who carry promotions out one after the other cannot see.
func (p *promotions) lookOn(ctx context.Context, rng *rand.Rand) {
	for wait.For(ctx, lookOnPause) {
		listed, err := p.listOpen(ctx, rng)
		if err != nil || len(listed) == 0 {
			continue
		}
		var open []promoted
		for _, one := range listed {
			open = append(open, seenOf(one))
		}
		p.world.Record.Event(Promotion, "onlooker", opOpen, open)
	}
}

func (p *promotions) listOpen(ctx context.Context, rng *rand.Rand) ([]*writv1.Promotion, error) {
	listed, err := look(ctx, p.office, rng, writv1.RegionServiceClient.ListPromotions, &writv1.ListPromotionsRequest{Group: lab.PairGroup, Open: true})
	return listed.GetPromotions(), err
}

// open is a promotion that has not ended, as when the answer to its plan was lost.
func (p *promotions) open(ctx context.Context) string {
	listed, err := p.listOpen(ctx, p.rng)
	if err != nil || len(listed) == 0 {
		return ""
	}
	return listed[0].GetId()
}

// promote makes one promotion to the other region.
func (p *promotions) promote(ctx context.Context, g *writv1.Group) {
	request := &writv1.PlanRequest{
		Group: lab.PairGroup, To: lab.PairRegions[0], Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, Reason: "to and fro",
		RequestId: p.request(), ValidFor: durationpb.New(10 * time.Minute),
	}
	if g.GetPrimary() == request.GetTo() {
		request.To = lab.PairRegions[1]
	}
	if p.rng.IntN(2) == 0 {
		request.Mode = writv1.PromotionMode_PROMOTION_MODE_FAILOVER
		request.LossCap = &writv1.Loss{} // any
		if p.rng.IntN(3) == 0 {
			request.LossCap.Bytes = new(uint64) // none
		}
	}
	done := p.world.Record.Call(Promotion, "operator", opPromote, promoted{From: g.GetPrimary(), To: request.GetTo(), Mode: shortName(request.GetMode().String(), "PROMOTION_MODE_")})
	planned, outcome := ask(ctx, p.office, p.rng, "operator", "plan", asked{}, writv1.RegionServiceClient.Plan, request,
		func(answer *writv1.Promotion, what *asked) { what.ID = answer.GetId() })
	if outcome != record.OK {
		done(outcome, nil)
		// One that was planned without anybody being told stands in the way, also of a group that is steady.
		if open := p.open(ctx); open != "" {
			p.finish(ctx, plan{id: open})
		}
		return
	}
	this := plan{id: planned.GetId()}
	if p.rng.IntN(4) == 0 {
		states := []string{"approving", "preflight", "draining", "fencing", "tail", "granted"}
		this.cancelAt = states[p.rng.IntN(len(states))]
	}
	if p.rng.IntN(5) == 0 { // somebody else has planned the same, and begins it first or not
		request.RequestId = p.request()
		if rival, outcome := ask(ctx, p.office, p.rng, "rival", "plan", asked{}, writv1.RegionServiceClient.Plan, request,
			func(answer *writv1.Promotion, what *asked) { what.ID = answer.GetId() }); outcome == record.OK {
			defer func() { p.finish(ctx, plan{id: rival.GetId(), cancelAt: "approving"}) }()
			p.agree(ctx, "rival", rival.GetOperation().GetId())
			p.execute(ctx, "rival", rival.GetId())
		}
	}
	last, ended := p.finish(ctx, this)
	switch {
	case !ended:
		done(record.Unknown, last)
	case last.State == "done":
		done(record.OK, last)
	default:
		done(record.Fail, last)
	}
}

func (p *promotions) request() string {
	p.count++
	return fmt.Sprintf("r%d", p.count)
}

// finish does what a promotion needs until it has ended, for a while also when ctx has.
func (p *promotions) finish(ctx context.Context, this plan) (last promoted, ended bool) {
	within, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		wait.For(within, finishTime)
		cancel()
	})
	defer stop()
	var after int64
	for within.Err() == nil {
		request := &writv1.GetPromotionRequest{Id: this.id, AfterRevision: after, Wait: durationpb.New(followWait)}
		got, err := look(within, p.office, p.rng, writv1.RegionServiceClient.GetPromotion, request)
		if err != nil {
			wait.For(within, askPause)
			continue
		}
		last, after = p.saw(got), got.GetRevision()
		if p.over(got) {
			p.group(within)
			return last, true
		}
		p.help(within, this, got)
	}
	return last, false
}

// over tells whether a promotion has come to an end.
func (p *promotions) over(got *writv1.Promotion) bool {
	switch got.GetState() {
	case writv1.PromotionState_PROMOTION_STATE_DONE, writv1.PromotionState_PROMOTION_STATE_CANCELLED, writv1.PromotionState_PROMOTION_STATE_EXPIRED,
		writv1.PromotionState_PROMOTION_STATE_SUPERSEDED, writv1.PromotionState_PROMOTION_STATE_VOID, writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK:
		return true
	default:
		return false
	}
}

// saw records what is new of a promotion.
func (p *promotions) saw(got *writv1.Promotion) promoted {
	s := seenOf(got)
	if s.State == "rolled_back" {
		p.undone = s.ID
	}
	if p.seen[s.ID] != s.Revision {
		p.seen[s.ID] = s.Revision
		p.world.Record.Event(Promotion, "operator", opState, s)
	}
	return s
}

// Close records how everything has ended, has the writers end, and the store.
func (p *promotions) Close(ctx context.Context) error {
	defer p.office.close()
	var all error
	for all == nil {
		open, err := p.listOpen(ctx, p.rng)
		if err == nil && len(open) == 0 {
			break
		}
		for _, one := range open {
			p.finish(ctx, plan{id: one.GetId()})
		}
		if !wait.For(ctx, askPause) {
			all = errors.Join(errors.New("workload: promotions are open though no fault is left"), err)
		}
	}
	request := &writv1.ListPromotionsRequest{Group: lab.PairGroup, Limit: 1000}
	listed, err := look(ctx, p.office, p.rng, writv1.RegionServiceClient.ListPromotions, request)
	for err != nil && wait.For(ctx, askPause) {
		listed, err = look(ctx, p.office, p.rng, writv1.RegionServiceClient.ListPromotions, request)
	}
	all = errors.Join(all, err)
	for _, got := range listed.GetPromotions() {
		p.saw(got)
	}
	p.group(ctx)
	for _, w := range p.pair.Writers {
		all = errors.Join(all, w.Finish(ctx))
	}
	all = errors.Join(all, p.hooks())
	// It says nothing more from now on, so everything has been heard when it is gone.
	return errors.Join(all, p.pair.Store.Kill())
}

// ran is a hook that has begun.
type ran struct {
	ID     string `json:"id"`
	Step   string `json:"step"`
	Kind   string `json:"kind"`
	Region string `json:"region"`
}

// hooks records what the hooks have written down.
func (p *promotions) hooks() error {
	f, err := os.Open(p.pair.Ran)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 4 {
			return fmt.Errorf("workload: a hook says %q", lines.Text())
		}
		p.world.Record.Event(Promotion, "agent", opHook, ran{words[0], words[1], words[2], words[3]})
	}
	return lines.Err()
}
