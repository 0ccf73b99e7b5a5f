package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region"
)

// regionService serves writv1.RegionService. Everything is decided by the coordinator: what people are shown before they sign
// must not be older than what they have seen before.
type regionService struct {
	writv1.UnimplementedRegionServiceServer
	quorum    Quorum
	forwarder *forwarder
	chain     *chain
	signer    *signer
	clock     clock.Clock
	draining  context.Context
	span      func(context.Context) string // nil: calls are not traced
}

// remoteRegion is a method of the client of another node's regionService.
type remoteRegion[Q, A proto.Message] func(writv1.RegionServiceClient, context.Context, Q, ...grpc.CallOption) (A, error)

// askRegion has the coordinator's machine answer.
func askRegion[Q, A proto.Message](ctx context.Context, s *regionService, req Q, how manner, remote remoteRegion[Q, A]) (A, error) {
	cmd := region.Command{Caller: lease.Caller{Principal: callerOf(ctx).principal}, Ask: req, Traceparent: s.traceparent(ctx)}
	return decide(ctx, s.forwarder, how, func(ctx context.Context) (A, error) {
		return localRegion[A](ctx, s.quorum, cmd)
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (A, error) {
		if cmd.Traceparent != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, keyTraceparent, cmd.Traceparent)
		}
		return remote(l.region, ctx, req, append(opts, grpc.MaxCallRecvMsgSize(maxSeedBytes))...)
	})
}

// traceparent is the trace context of a call: that of this node's part in it, or the caller's; empty if there is none.
func (s *regionService) traceparent(ctx context.Context) string {
	if s.span != nil {
		if traceparent := s.span(ctx); traceparent != "" {
			return traceparent
		}
	}
	for _, said := range metadata.ValueFromIncomingContext(ctx, keyTraceparent) {
		if _, _, _, ok := region.TraceContext(said); ok {
			return said
		}
	}
	return ""
}

func localRegion[A proto.Message](ctx context.Context, q Quorum, cmd region.Command) (A, error) {
	var none A
	resp, err := q.Region(ctx, cmd)
	if err != nil {
		return none, err
	}
	answer, ok := resp.(A)
	if !ok {
		return none, fmt.Errorf("%T was answered with %T", cmd.Ask, resp)
	}
	return answer, nil
}

// What makes an operation, or lets a hook be passed over, is passed on once: the second attempt at one that had its effect
// would do it again.
var passOnce = manner{once: true}

func (s *regionService) ApplyGroup(ctx context.Context, req *writv1.ApplyGroupRequest) (*writv1.ApplyGroupResponse, error) {
	return askRegion(ctx, s, req, manner{once: !req.GetDryRun()}, writv1.RegionServiceClient.ApplyGroup)
}

func (s *regionService) RemoveGroup(ctx context.Context, req *writv1.RemoveGroupRequest) (*writv1.ApplyGroupResponse, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.RemoveGroup)
}

func (s *regionService) GetGroup(ctx context.Context, req *writv1.GetGroupRequest) (*writv1.Group, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.GetGroup)
}

func (s *regionService) Plan(ctx context.Context, req *writv1.PlanRequest) (*writv1.Promotion, error) {
	return askRegion(ctx, s, req, manner{once: req.GetRequestId() == ""}, writv1.RegionServiceClient.Plan)
}

func (s *regionService) Execute(ctx context.Context, req *writv1.ExecuteRequest) (*writv1.Promotion, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.Execute)
}

func (s *regionService) Abort(ctx context.Context, req *writv1.AbortRequest) (*writv1.Promotion, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.Abort)
}

func (s *regionService) Resume(ctx context.Context, req *writv1.ResumeRequest) (*writv1.Promotion, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.Resume)
}

func (s *regionService) Acknowledge(ctx context.Context, req *writv1.AcknowledgeRequest) (*writv1.Promotion, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.Acknowledge)
}

func (s *regionService) Reinstate(ctx context.Context, req *writv1.ReinstateRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.Reinstate)
}

func (s *regionService) AttestGuard(ctx context.Context, req *writv1.AttestGuardRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.AttestGuard)
}

func (s *regionService) Explain(ctx context.Context, req *writv1.ExplainRequest) (*writv1.ExplainResponse, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.Explain)
}

func (s *regionService) Confidence(ctx context.Context, req *writv1.ConfidenceRequest) (*writv1.ConfidenceResponse, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.Confidence)
}

func (s *regionService) RecordDrill(ctx context.Context, req *writv1.RecordDrillRequest) (*writv1.Drill, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.RecordDrill) // again, it changes nothing
}

func (s *regionService) GetOperation(ctx context.Context, req *writv1.GetOperationRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.GetOperation)
}

func (s *regionService) Approve(ctx context.Context, req *writv1.ApproveRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.Approve) // the same signature again changes nothing
}

func (s *regionService) Withdraw(ctx context.Context, req *writv1.WithdrawRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.Withdraw)
}

func (s *regionService) ExecuteOperation(ctx context.Context, req *writv1.ExecuteOperationRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.ExecuteOperation)
}

func (s *regionService) GetApprovers(ctx context.Context, req *writv1.GetApproversRequest) (*writv1.ApproverSet, error) {
	return askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.GetApprovers)
}

func (s *regionService) ChangeApprovers(ctx context.Context, req *writv1.ChangeApproversRequest) (*writv1.Operation, error) {
	return askRegion(ctx, s, req, passOnce, writv1.RegionServiceClient.ChangeApprovers)
}

// Lists that name no group hold what the caller may read, and say nothing of the rest.

func (s *regionService) ListGroups(ctx context.Context, req *writv1.ListGroupsRequest) (*writv1.ListGroupsResponse, error) {
	resp, err := askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.ListGroups)
	if err != nil {
		return nil, err
	}
	return &writv1.ListGroupsResponse{Groups: readable(ctx, s, resp.GetGroups(), func(g *writv1.Group) string { return g.GetSpec().GetName() })}, nil
}

func (s *regionService) ListPromotions(ctx context.Context, req *writv1.ListPromotionsRequest) (*writv1.ListPromotionsResponse, error) {
	resp, err := askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.ListPromotions)
	if err != nil {
		return nil, err
	}
	return &writv1.ListPromotionsResponse{Promotions: readable(ctx, s, resp.GetPromotions(), (*writv1.Promotion).GetGroup)}, nil
}

func (s *regionService) ListOperations(ctx context.Context, req *writv1.ListOperationsRequest) (*writv1.ListOperationsResponse, error) {
	resp, err := askRegion(ctx, s, req, manner{}, writv1.RegionServiceClient.ListOperations)
	if err != nil {
		return nil, err
	}
	ops := readable(ctx, s, resp.GetOperations(), func(o *writv1.Operation) string { return groupOf(o.GetId()) })
	return &writv1.ListOperationsResponse{Operations: ops}, nil
}

// readable leaves out what the caller may not read, in a list of its own: what the coordinator answers is not ours to change.
func readable[T any](ctx context.Context, s *regionService, all []T, group func(T) string) []T {
	access, principal := s.chain.access, callerOf(ctx).principal
	if access.Allows(principal, policy.Admin, "") {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !access.Allows(principal, policy.Read, group(v)) })
}

// maxLongPoll bounds how long a call may wait for something new, as the .proto file has it.
const maxLongPoll = 30 * time.Second

// longPoll is how long a call may wait: what it asks for, but so that the answer comes before the caller gives up.
func longPoll(ctx context.Context, asked *durationpb.Duration) time.Duration {
	wait := min(clampWait(asked), maxLongPoll)
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, max(0, left-min(left/4, answerSlack)))
	}
	return wait
}

// answerSlack is what is left of a caller's time for the answer's way back.
const answerSlack = 500 * time.Millisecond

// GetPromotion waits at the coordinator for a newer revision, if it is asked to. A node that stops says at once what there is.
func (s *regionService) GetPromotion(ctx context.Context, req *writv1.GetPromotionRequest) (*writv1.Promotion, error) {
	wait := longPoll(ctx, req.GetWait())
	if req.GetAfterRevision() == 0 || wait == 0 || s.draining.Err() != nil {
		plain := &writv1.GetPromotionRequest{Id: req.GetId()}
		return askRegion(ctx, s, plain, manner{}, writv1.RegionServiceClient.GetPromotion)
	}
	waiting, cancel := s.untilDraining(ctx)
	defer cancel()
	bounded := &writv1.GetPromotionRequest{Id: req.GetId(), AfterRevision: req.GetAfterRevision(), Wait: durationpb.New(wait)}
	resp, err := askRegion(waiting, s, bounded, manner{wait: wait}, writv1.RegionServiceClient.GetPromotion)
	if interrupted(waiting, err) {
		plain := &writv1.GetPromotionRequest{Id: req.GetId()}
		return askRegion(ctx, s, plain, manner{}, writv1.RegionServiceClient.GetPromotion)
	}
	return resp, err
}

// untilDraining ends a wait when the node begins to stop.
func (s *regionService) untilDraining(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.draining, func() { cancel(errDraining) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// interrupted reports whether a call failed because the node stops, and for nothing else.
func interrupted(ctx context.Context, err error) bool {
	return err != nil && (errors.Is(err, errDraining) || lease.ReasonOf(err) == "") && errors.Is(context.Cause(ctx), errDraining)
}
