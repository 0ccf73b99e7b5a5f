package server

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// fenceService serves writv1.FenceService.
type fenceService struct {
	writv1.UnimplementedFenceServiceServer
	quorum    Quorum
	forwarder *forwarder
	signer    *signer
	keys      *keyring
	guards    *guards
}

// signer signs writs with the node's key.
type signer struct {
	quorum Quorum
	logger hclog.Logger
}

func (s *signer) sign(w fence.Writ) (string, error) {
	w.Issuer = s.quorum.Status().Cluster
	signed, err := s.quorum.Sign(w)
	if err != nil {
		s.logger.Error("a writ could not be signed", "resource", w.Resource, "error", err)
		return "", lease.Errorf(lease.ReasonInternal, "the lease is held, but the writ for it could not be signed: %v", err)
	}
	return signed, nil
}

// IssueWrit signs at the coordinator, which alone knows that the grant is still the caller's.
func (s *fenceService) IssueWrit(ctx context.Context, req *writv1.IssueWritRequest) (*writv1.IssueWritResponse, error) {
	ref, err := lease.RefFromProto(req.GetResource(), req.GetToken())
	if err != nil {
		return nil, err
	}
	cmd := lease.Inspect{Caller: lease.Caller{Principal: callerOf(ctx).principal, Instance: req.GetInstance()}, Ref: ref}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.IssueWritResponse, error) {
		info, err := s.quorum.Inspect(ctx, cmd)
		if err != nil {
			info, err = s.tenureFor(ctx, cmd, err)
		}
		if err != nil {
			return nil, err
		}
		signed, err := s.signer.sign(fence.Writ{
			Resource: string(info.Resource), Holder: string(info.Holder.Principal), Region: info.Holder.Region,
			Token: info.Token, IssuedAt: info.GrantedAt, RequestID: info.RequestID,
		})
		if err != nil {
			return nil, err
		}
		return &writv1.IssueWritResponse{Writ: signed}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.IssueWritResponse, error) {
		return l.fence.IssueWrit(ctx, req, opts...)
	})
}

func (s *fenceService) Keys(context.Context, *writv1.KeysRequest) (*writv1.KeysResponse, error) {
	jwks, err := s.keys.jwks()
	if err != nil {
		return nil, err
	}
	return &writv1.KeysResponse{Jwks: string(jwks)}, nil
}

// keyring joins the public keys of all nodes.
type keyring struct {
	quorum Quorum
	logger hclog.Logger

	mu     sync.Mutex
	source string // guarded by mu; what joined was made of
	joined []byte // guarded by mu
}

// jwks answers the keys of every node as one JWK set. A node whose keys cannot be read is logged and left out, so that it
// does not take the keys of the others away.
func (k *keyring) jwks() ([]byte, error) {
	var sets []string
	for _, n := range k.quorum.Nodes() {
		if n.JWKS != "" {
			sets = append(sets, n.JWKS)
		}
	}
	slices.Sort(sets)
	source := strings.Join(sets, "\n")
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.joined != nil && source == k.source {
		return k.joined, nil
	}
	var all fence.KeySet
	for _, text := range sets {
		set, err := fence.ParseJWKS([]byte(text))
		if err != nil {
			k.logger.Error("the keys of a node are not usable", "error", err)
			continue
		}
		all = all.Merge(set)
	}
	joined, err := all.MarshalJWKS()
	if err != nil {
		return nil, err
	}
	k.source, k.joined = source, joined
	return joined, nil
}
