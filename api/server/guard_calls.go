package server

import (
	"context"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
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
	return s.guards.list(ctx, resource)
}

// list asks the coordinator for the guards that cover a resource; empty: for all.
func (g *guards) list(ctx context.Context, resource lease.Resource) (*writv1.ListGuardsResponse, error) {
	return decide(ctx, g.forwarder, manner{}, func(ctx context.Context) (*writv1.ListGuardsResponse, error) {
		return g.quorum.ListGuards(ctx, lease.ListGuards{Resource: resource})
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.ListGuardsResponse, error) {
		return l.fence.ListGuards(ctx, &writv1.ListGuardsRequest{Resource: string(resource)}, append(opts, grpc.MaxCallRecvMsgSize(maxSeedBytes))...)
	})
}

// GetGuard is about a guard that is connected to any of the nodes.
func (s *fenceService) GetGuard(ctx context.Context, req *writv1.GetGuardRequest) (*writv1.GetGuardResponse, error) {
	ask, err := floorsAsk(req)
	if err != nil {
		return nil, err
	}
	return s.guards.get(ctx, req.GetName(), ask, req.GetPageToken() == "")
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
	token := fence.Token(req.GetToken())
	switch {
	case token.IsZero():
	case resource == "":
		return nil, lease.Invalid("token", "is set without a resource", "name the resource that it is a token of")
	case !token.Valid():
		return nil, lease.Invalid("token", "is no token", "use one of the resource, in decimal")
	}
	return &writv1.VerifyGuardsResponse{Verdicts: s.guards.verify(ctx, req.GetName(), resource, token)}, nil
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
