//go:build linux

package workload

import (
	"context"
	"math/rand/v2"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/people"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/wait"
)

// help gives a promotion what it waits for, or calls it off.
func (p *promotions) help(ctx context.Context, this plan, got *writv1.Promotion) {
	state := shortName(got.GetState().String(), "PROMOTION_STATE_")
	if state == this.cancelAt {
		ask(ctx, p.office, p.rng, "operator", "abort", asked{ID: this.id}, writv1.RegionServiceClient.Abort,
			&writv1.AbortRequest{Id: this.id, Reason: "we have thought better of it"}, nil)
		return
	}
	switch {
	case state == "proposed", state == "approving":
		p.agree(ctx, "operator", got.GetOperation().GetId())
		p.execute(ctx, "operator", this.id)
	case got.GetStuck():
		ask(ctx, p.office, p.rng, "operator", "resume", asked{ID: this.id}, writv1.RegionServiceClient.Resume,
			&writv1.ResumeRequest{Id: this.id, Reason: "once more"}, nil)
		wait.For(ctx, againAfter)
	case state == "tail":
		p.acceptTail(ctx)
	case state == "degraded":
		p.reinstate(ctx, this.id)
	}
}

// reinstate has people say what became of a promotion's losses.
func (p *promotions) reinstate(ctx context.Context, id string) {
	op, outcome := ask(ctx, p.office, p.rng, "operator", "reinstate", asked{ID: id}, writv1.RegionServiceClient.Reinstate,
		&writv1.ReinstateRequest{Id: id, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED, Reason: "nothing is lost"},
		func(answer *writv1.Operation, what *asked) { what.ID = answer.GetId() })
	if outcome == record.OK {
		p.carryOut(ctx, op.GetId())
	}
}

// acceptTail has people accept a loss that nobody can tell.
func (p *promotions) acceptTail(ctx context.Context) {
	listed, err := look(ctx, p.office, p.rng, writv1.RegionServiceClient.ListOperations, &writv1.ListOperationsRequest{Group: lab.PairGroup, Open: true})
	if err != nil {
		return
	}
	for _, op := range listed.GetOperations() {
		if op.GetKind() == writv1.OperationKind_OPERATION_KIND_TAIL {
			p.carryOut(ctx, op.GetId())
		}
	}
}

// carryOut has an operation signed and executed.
func (p *promotions) carryOut(ctx context.Context, id string) {
	p.agree(ctx, "operator", id)
	ask(ctx, p.office, p.rng, "operator", opExecuteOperation, asked{ID: id}, writv1.RegionServiceClient.ExecuteOperation, &writv1.ExecuteOperationRequest{Id: id}, nil)
}

// agree has two people sign.
func (p *promotions) agree(ctx context.Context, client, id string) {
	if id == "" {
		return
	}
	op, err := look(ctx, p.office, p.rng, writv1.RegionServiceClient.GetOperation, &writv1.GetOperationRequest{Id: id})
	if err != nil || op.GetState() != writv1.OperationState_OPERATION_STATE_PENDING {
		return
	}
	for _, i := range p.rng.Perm(len(p.pair.People))[:2] {
		sign(ctx, p.office, p.rng, client, p.pair.People[i], op)
	}
}

// sign has somebody sign the document of an operation, and hand that in.
func sign(ctx context.Context, o *office, rng *rand.Rand, client string, who *people.Person, op *writv1.Operation) record.Outcome {
	armored, err := who.Sign(op.GetDocument())
	if err != nil {
		return record.Fail
	}
	_, outcome := ask(ctx, o, rng, client, "approve", asked{ID: op.GetId(), Person: who.Name}, writv1.RegionServiceClient.Approve,
		&writv1.ApproveRequest{Id: op.GetId(), Signature: armored}, nil)
	return outcome
}

func (p *promotions) execute(ctx context.Context, client, id string) {
	ask(ctx, p.office, p.rng, client, "execute", asked{ID: id}, writv1.RegionServiceClient.Execute, &writv1.ExecuteRequest{Id: id}, nil)
}
