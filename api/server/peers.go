package server

import (
	"context"
	"fmt"

	"github.com/writ-io/writ/api/server/identity"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// peerService serves writv1.PeerService, to nodes only: see authorise.
type peerService struct {
	writv1.UnimplementedPeerServiceServer
	quorum Quorum
	leases *leaseService
	guards *guards
	chain  *chain
}

// Guard answers a guard that is connected to another node. What it asks is validated and authorised here again.
func (s *peerService) Guard(ctx context.Context, req *writv1.GuardCallRequest) (*writv1.GuardResponse, error) {
	from := callerOf(ctx)
	if req.GetRequest() == nil {
		return nil, lease.Invalid("request", "is missing", "pass on what the guard said")
	}
	if err := s.chain.check(from, req.GetRequest()); err != nil {
		return nil, err
	}
	return s.quorum.GuardCall(ctx, lease.GuardCall{Caller: lease.Caller{Principal: from.principal}, Request: req.GetRequest()})
}

// GuardFloors asks a guard that is connected here.
func (s *peerService) GuardFloors(ctx context.Context, req *writv1.GuardFloorsRequest) (*writv1.GuardFloorsResponse, error) {
	ask := req.GetAsk()
	if err := checkFloorsAsk(ask); err != nil {
		return nil, err
	}
	return s.guards.floorsHere(ctx, req.GetGuard(), ask), nil
}

// RenewBatch renews for the clients of another node. Each part is authorised as what its principal asks for, here again.
func (s *peerService) RenewBatch(ctx context.Context, req *writv1.RenewBatchRequest) (*writv1.RenewBatchResponse, error) {
	total := 0
	for _, part := range req.GetParts() {
		total += len(part.GetRequest().GetLeases())
	}
	if total > lease.MaxRenewals {
		return nil, lease.Invalid("parts", fmt.Sprintf("name %d leases", total), fmt.Sprintf("send at most %d at a time", lease.MaxRenewals))
	}
	parts := make([]*renewPart, len(req.GetParts()))
	cmds := make([]lease.Renew, len(parts))
	for i, part := range req.GetParts() {
		principal, err := identity.ParsePrincipal(part.GetPrincipal())
		if err != nil {
			return nil, err
		}
		if parts[i], err = s.leases.prepare(principal, part.GetRequest()); err != nil {
			return nil, err
		}
		cmds[i] = parts[i].cmd
	}
	outcomes, err := s.quorum.Renew(ctx, cmds)
	if err != nil {
		return nil, err
	}
	if len(outcomes) != len(parts) {
		return nil, fmt.Errorf("%d renewals were answered with %d outcomes", len(parts), len(outcomes))
	}
	resp := &writv1.RenewBatchResponse{Parts: make([]*writv1.RenewResponse, len(parts))}
	for i, part := range parts {
		resp.Parts[i] = part.answer(outcomes[i])
	}
	return resp, nil
}
