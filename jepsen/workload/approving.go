//go:build linux

package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/people"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/wait"
)

// Approvals is the name of the workload of people who agree, or do not.
const Approvals = "approvals"

// What is recorded of it beside approve, withdraw and execute-operation.
const (
	opPropose  = "propose"
	opApprove  = "approve"
	opWithdraw = "withdraw"
)

// What is signed instead of an operation's document.
const (
	ofAnother = "another" // the document of another operation: a replay
	ofChanged = "changed" // the document with another number
)

const (
	clerks     = 3
	clerkPause = 150 * time.Millisecond
)

var approving = Kind{
	Name: Approvals, Doc: "people agree to conflicting changes, withdraw, sign twice or something else; nothing happens without two of them",
	Rate: 0.5, Bound: 3*time.Second + allowance,
	Needs: lab.NeedsPair, Start: startApproving, Check: checkApprovals,
}

// approvals has clerks change how much a group may lose. A larger number loosens the group, so two people have to sign.
type approvals struct {
	world   World
	offices []*office // the first is that of ops; the second of ann, who may approve too
	people  []*people.Person
	number  atomic.Uint64

	mu  sync.Mutex
	old []byte // guarded by mu; the document of an earlier operation
}

func startApproving(w World) (Workload, error) {
	a := &approvals{world: w, people: w.Lab.Pair.People}
	for _, identity := range []string{lab.Ops, "ann"} {
		o, err := w.open(Approvals, identity)
		if err != nil {
			return nil, err
		}
		a.offices = append(a.offices, o)
	}
	spec := &writv1.GroupSpec{Name: lab.OfficeGroup, Rpo: &writv1.Loss{Bytes: new(uint64)}, Regions: []*writv1.GroupRegion{
		{Name: lab.PairRegions[0], Role: writv1.RegionRole_REGION_ROLE_PRIMARY}, {Name: lab.PairRegions[1], Role: writv1.RegionRole_REGION_ROLE_STANDBY},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), allowance)
	defer cancel()
	rng := rand.New(rand.NewPCG(w.Seed, 0))
	if _, outcome := ask(ctx, a.offices[0], rng, "clerk", "apply", asked{}, writv1.RegionServiceClient.ApplyGroup, &writv1.ApplyGroupRequest{Spec: spec}, nil); outcome != record.OK {
		return nil, fmt.Errorf("workload: group %s cannot be made", lab.OfficeGroup)
	}
	return a, nil
}

func (a *approvals) Close(context.Context) error {
	for _, o := range a.offices {
		o.close()
	}
	return nil
}

func (a *approvals) Run(ctx context.Context, round int) error {
	var running sync.WaitGroup
	for i := range clerks {
		rng := rand.New(rand.NewPCG(a.world.Seed, uint64(round)<<16|0x4000|uint64(i)))
		running.Go(func() {
			for wait.For(ctx, time.Duration(rng.Int64N(int64(2*clerkPause)))) {
				a.turn(context.WithoutCancel(ctx), rng, fmt.Sprintf("clerk%d", i))
			}
		})
	}
	running.Wait()
	return nil
}

// turn proposes a change, has people sign it or do something else, and has it executed, sometimes by two at once. Each call is
// made once.
func (a *approvals) turn(ctx context.Context, rng *rand.Rand, clerk string) {
	o := a.offices[rng.IntN(len(a.offices))]
	g, ok := a.look(ctx, rng, o, clerk)
	if !ok {
		return
	}
	spec, ok := proto.Clone(g.GetSpec()).(*writv1.GroupSpec)
	if !ok {
		return
	}
	number := a.number.Add(1)
	spec.Rpo = &writv1.Loss{Bytes: &number}
	what := asked{Number: number, Version: g.GetVersion()}
	proposed, outcome := attemptAt(ctx, o, o.any(rng), clerk, opPropose, what, writv1.RegionServiceClient.ApplyGroup,
		&writv1.ApplyGroupRequest{Spec: spec, Version: g.GetVersion(), Reason: "more"},
		func(answer *writv1.ApplyGroupResponse, what *asked) { what.ID = answer.GetOperation().GetId() })
	op := proposed.GetOperation()
	if outcome != record.OK || op == nil {
		return
	}
	for range 3 + rng.IntN(3) {
		a.act(ctx, rng, o, clerk, op)
	}
	var executing sync.WaitGroup
	for n := range 1 + rng.IntN(2) {
		node := o.any(rng)
		executing.Go(func() {
			attemptAt(ctx, o, node, fmt.Sprintf("%s-%d", clerk, n), opExecuteOperation, asked{ID: op.GetId()}, writv1.RegionServiceClient.ExecuteOperation,
				&writv1.ExecuteOperationRequest{Id: op.GetId()}, nil)
		})
	}
	executing.Wait()
	a.look(ctx, rng, o, clerk)
	a.mu.Lock()
	a.old = op.GetDocument()
	a.mu.Unlock()
}

// act has somebody do something with an operation: mostly sign it.
func (a *approvals) act(ctx context.Context, rng *rand.Rand, o *office, clerk string, op *writv1.Operation) {
	who := a.people[rng.IntN(len(a.people))]
	what := asked{ID: op.GetId(), Person: who.Name}
	doc := op.GetDocument()
	switch rng.IntN(8) {
	case 0:
		attemptAt(ctx, o, o.any(rng), clerk, opWithdraw, what, writv1.RegionServiceClient.Withdraw,
			&writv1.WithdrawRequest{Id: op.GetId(), Approver: who.Name, Reason: "not so"}, nil)
		return
	case 1:
		a.mu.Lock()
		doc, what.Of = a.old, ofAnother
		a.mu.Unlock()
	case 2:
		doc, what.Of = append([]byte(nil), doc...), ofChanged
		doc[len(doc)/2] ^= 1
	}
	if len(doc) == 0 {
		return
	}
	armored, err := who.Sign(doc)
	if err != nil {
		return
	}
	attemptAt(ctx, o, o.any(rng), clerk, opApprove, what, writv1.RegionServiceClient.Approve,
		&writv1.ApproveRequest{Id: op.GetId(), Signature: armored}, nil)
}

// look asks for the group, and records what it finds.
func (a *approvals) look(ctx context.Context, rng *rand.Rand, o *office, clerk string) (*writv1.Group, bool) {
	g, err := look(ctx, o, rng, writv1.RegionServiceClient.GetGroup, &writv1.GetGroupRequest{Name: lab.OfficeGroup})
	if err != nil {
		return nil, false
	}
	a.world.Record.Event(Approvals, clerk, opGroup, groupOf(g))
	return g, true
}
