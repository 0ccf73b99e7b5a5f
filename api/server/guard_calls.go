package server

import (
	"context"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// What operators ask about guards. Changes are passed on once: the second attempt at one that had its effect would be told
// that there is nothing to remove, or another version.

func (s *fenceService) Guard(stream guardStream) error { return s.guards.serve(stream) }

func (s *fenceService) ListGuards(ctx context.Context, req *writv1.ListGuardsRequest) (*writv1.ListGuardsResponse, error) {
	resource, err := resourceOrNone(req.GetResource())
	if err != nil {
		return nil, err
	}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.ListGuardsResponse, error) {
		return s.quorum.ListGuards(ctx, lease.ListGuards{Resource: resource})
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.ListGuardsResponse, error) {
		return l.fence.ListGuards(ctx, req, append(opts, grpc.MaxCallRecvMsgSize(maxSeedBytes))...)
	})
}

// resourceOrNone reads a resource that may be left out.
func resourceOrNone(name string) (lease.Resource, error) {
	if name == "" {
		return "", nil
	}
	return lease.ParseResource(name)
}

func (s *fenceService) RemoveGuard(ctx context.Context, req *writv1.RemoveGuardRequest) (*writv1.RemoveGuardResponse, error) {
	if req.GetAttest() && req.GetReason() == "" {
		return nil, lease.Invalid("reason", "is missing", "say who answers for it, and why: it is recorded")
	}
	cmd := lease.RemoveGuard{
		Caller: lease.Caller{Principal: callerOf(ctx).principal}, Name: req.GetName(), Attest: req.GetAttest(), Reason: req.GetReason(),
	}
	return decide(ctx, s.forwarder, manner{once: true}, func(ctx context.Context) (*writv1.RemoveGuardResponse, error) {
		if err := s.quorum.RemoveGuard(ctx, cmd); err != nil {
			return nil, err
		}
		return &writv1.RemoveGuardResponse{}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.RemoveGuardResponse, error) {
		return l.fence.RemoveGuard(ctx, req, opts...)
	})
}

// VerifyGuards is about the guards that are connected to the node that was asked.
func (s *fenceService) VerifyGuards(ctx context.Context, req *writv1.VerifyGuardsRequest) (*writv1.VerifyGuardsResponse, error) {
	resource, err := resourceOrNone(req.GetResource())
	if err != nil {
		return nil, err
	}
	return &writv1.VerifyGuardsResponse{Verdicts: s.guards.verify(ctx, req.GetName(), resource)}, nil
}

func (s *fenceService) GetGuarding(ctx context.Context, req *writv1.GetGuardingRequest) (*writv1.GetGuardingResponse, error) {
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.GetGuardingResponse, error) {
		record, err := s.quorum.GetGuarding(ctx, lease.GetGuarding{})
		if err != nil {
			return nil, err
		}
		return &writv1.GetGuardingResponse{Guarding: record}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.GetGuardingResponse, error) {
		return l.fence.GetGuarding(ctx, req, opts...)
	})
}

func (s *fenceService) SetGuarding(ctx context.Context, req *writv1.SetGuardingRequest) (*writv1.SetGuardingResponse, error) {
	cmd := lease.SetGuarding{
		Caller: lease.Caller{Principal: callerOf(ctx).principal}, Rule: req.GetRule(), Remove: req.GetRemove(),
		Version: req.GetVersion(), Reason: req.GetReason(),
	}
	return decide(ctx, s.forwarder, manner{once: true}, func(ctx context.Context) (*writv1.SetGuardingResponse, error) {
		record, err := s.quorum.SetGuarding(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return &writv1.SetGuardingResponse{Guarding: record}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.SetGuardingResponse, error) {
		return l.fence.SetGuarding(ctx, req, opts...)
	})
}
