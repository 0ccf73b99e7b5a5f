package server

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// leaseService serves writv1.LeaseService. What reaches it is authenticated, validated and authorised, except for the
// leases within a renewal.
type leaseService struct {
	writv1.UnimplementedLeaseServiceServer
	quorum    Quorum
	forwarder *forwarder
	renewer   *renewer
	access    Access
	signer    *signer
	watcher   *watcher
	chain     *chain // for the calls within a pipeline
	metrics   *metrics
	draining  context.Context
}

func (s *leaseService) caller(ctx context.Context, instance string) lease.Caller {
	return lease.Caller{Principal: callerOf(ctx).principal, Instance: instance}
}

func (s *leaseService) Acquire(ctx context.Context, req *writv1.AcquireRequest) (*writv1.AcquireResponse, error) {
	cmd, err := s.acquireCommand(callerOf(ctx), req)
	if err != nil {
		return nil, err
	}
	if cmd.Wait > 0 {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(s.draining, func() { cancel(errDraining) })()
	}
	resp, err := decide(ctx, s.forwarder, manner{wait: cmd.Wait}, func(ctx context.Context) (*writv1.AcquireResponse, error) {
		outcome, err := s.quorum.Acquire(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return s.acquired(outcome, req.GetWantWrit())
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.AcquireResponse, error) {
		return l.lease.Acquire(ctx, req, opts...)
	})
	interrupted := errors.Is(err, errDraining) || (err != nil && lease.ReasonOf(err) == "")
	if interrupted && errors.Is(context.Cause(ctx), errDraining) {
		return nil, drainingError()
	}
	return resp, err
}

func (s *leaseService) acquireCommand(from *caller, req *writv1.AcquireRequest) (lease.Acquire, error) {
	resource, err := lease.ParseResource(req.GetResource())
	if err != nil {
		return lease.Acquire{}, err
	}
	if req.RequestId == "" {
		// Chosen before the request is passed on, so that every attempt is the same request.
		req.RequestId = rand.Text()
	}
	return lease.Acquire{
		Caller:    lease.Caller{Principal: from.principal, Instance: req.GetInstance()},
		Resource:  resource,
		RequestID: req.GetRequestId(),
		TTL:       req.GetTtl().AsDuration(), // saturates
		Wait:      clampWait(req.GetWait()),
		Priority:  req.GetPriority(),
		Region:    req.GetRegion(),
		Metadata:  req.GetMetadata(),
	}, nil
}

// drainingError sends a call that waits for a lease to another node.
func drainingError() error {
	e := lease.Errorf(lease.ReasonUnknownOutcome, "%v", errDraining)
	e.Fix = "ask another node with the same request id"
	return e
}

// acquired adds the writ, which the holder of a guarded resource needs. If it cannot be signed, the caller can ask again with
// the same request id.
func (s *leaseService) acquired(outcome lease.AcquireOutcome, wantWrit bool) (*writv1.AcquireResponse, error) {
	resp := lease.OutcomeToProto(outcome)
	g := outcome.Grant
	if g == nil || (!wantWrit && !g.Guarded) {
		return resp, nil
	}
	writ, err := s.signer.sign(fence.Writ{
		Resource: string(g.Resource), Holder: string(g.Holder.Principal), Region: g.Holder.Region,
		Token: g.Token, IssuedAt: g.GrantedAt, RequestID: g.RequestID,
	})
	if err != nil {
		return nil, err
	}
	resp.GetGrant().Writ = writ
	return resp, nil
}

func (s *leaseService) CancelAcquire(ctx context.Context, req *writv1.CancelAcquireRequest) (*writv1.CancelAcquireResponse, error) {
	resource, err := lease.ParseResource(req.GetResource())
	if err != nil {
		return nil, err
	}
	cmd := lease.CancelAcquire{Caller: s.caller(ctx, req.GetInstance()), Resource: resource, RequestID: req.GetRequestId()}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.CancelAcquireResponse, error) {
		token, err := s.quorum.CancelAcquire(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return &writv1.CancelAcquireResponse{ReleasedToken: uint64(token)}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.CancelAcquireResponse, error) {
		return l.lease.CancelAcquire(ctx, req, opts...)
	})
}

func (s *leaseService) Renew(ctx context.Context, req *writv1.RenewRequest) (*writv1.RenewResponse, error) {
	from := callerOf(ctx)
	part, err := s.prepare(from.principal, req)
	if err != nil {
		return nil, err
	}
	var out lease.RenewOutcome
	switch {
	case len(part.cmd.Refs) == 0:
	case from.forwarded:
		// A node that passes on renewals one by one is served, but never passed on to yet another.
		outs, err := s.quorum.Renew(ctx, []lease.Renew{part.cmd})
		if err != nil {
			return nil, err
		}
		out = outs[0]
	default:
		if out, err = s.renewer.renew(ctx, part.cmd, part.leases); err != nil {
			return nil, err
		}
	}
	return part.answer(out), nil
}

// renewPart is a client's renewal without the leases that cannot or must not be renewed.
type renewPart struct {
	cmd     lease.Renew
	leases  []*writv1.LeaseRef // what cmd.Refs were made of
	indices []int              // where each of them stood in the request; nil: where it stands now
	refused []lease.RenewFailure
}

// prepare takes out what is unusable or denied.
func (s *leaseService) prepare(principal lease.Principal, req *writv1.RenewRequest) (*renewPart, error) {
	refs, indices, unusable, err := lease.RefsFromProto(req.GetLeases())
	if err != nil {
		return nil, err
	}
	part := &renewPart{
		cmd:     lease.Renew{Caller: lease.Caller{Principal: principal, Instance: req.GetInstance()}, Refs: refs},
		leases:  req.GetLeases(),
		indices: indices,
		refused: unusable,
	}
	allowed := func(i int) bool { return s.access.Allows(principal, policy.Acquire, string(refs[i].Resource)) }
	firstDenied := 0
	for firstDenied < len(refs) && allowed(firstDenied) {
		firstDenied++
	}
	if firstDenied == len(refs) && indices == nil {
		return part, nil // all of them: the usual case copies nothing
	}
	part.cmd.Refs, part.leases, part.indices = nil, nil, make([]int, 0, len(refs))
	for i, ref := range refs {
		at := i
		if indices != nil {
			at = indices[i]
		}
		if i >= firstDenied && !allowed(i) {
			part.refused = append(part.refused, lease.RenewFailure{Index: at, Err: denied(principal, policy.Acquire, string(ref.Resource))})
			continue
		}
		part.cmd.Refs = append(part.cmd.Refs, ref)
		part.leases = append(part.leases, req.GetLeases()[at])
		part.indices = append(part.indices, at)
	}
	return part, nil
}

// answer joins what was refused here with what came of the rest, by the indices of the request.
func (p *renewPart) answer(out lease.RenewOutcome) *writv1.RenewResponse {
	if p.indices != nil {
		failures := slices.Clone(p.refused)
		for _, f := range out.Failures {
			failures = append(failures, lease.RenewFailure{Index: p.indices[f.Index], Err: f.Err})
		}
		slices.SortFunc(failures, func(a, b lease.RenewFailure) int { return a.Index - b.Index })
		contended := make([]int, len(out.Contended))
		for i, index := range out.Contended {
			contended[i] = p.indices[index]
		}
		out = lease.RenewOutcome{Failures: failures, Contended: contended}
	}
	return lease.RenewOutcomeToProto(out)
}

func (s *leaseService) Release(ctx context.Context, req *writv1.ReleaseRequest) (*writv1.ReleaseResponse, error) {
	cmd, err := s.releaseCommand(callerOf(ctx), req)
	if err != nil {
		return nil, err
	}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.ReleaseResponse, error) {
		if err := s.quorum.Release(ctx, cmd); err != nil {
			return nil, err
		}
		return &writv1.ReleaseResponse{}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.ReleaseResponse, error) {
		return l.lease.Release(ctx, req, opts...)
	})
}

func (s *leaseService) releaseCommand(from *caller, req *writv1.ReleaseRequest) (lease.Release, error) {
	ref, err := lease.RefFromProto(req.GetResource(), req.GetToken())
	return lease.Release{Caller: lease.Caller{Principal: from.principal, Instance: req.GetInstance()}, Ref: ref}, err
}

func (s *leaseService) Checkpoint(ctx context.Context, req *writv1.CheckpointRequest) (*writv1.CheckpointResponse, error) {
	cmd, err := s.checkpointCommand(callerOf(ctx), req)
	if err != nil {
		return nil, err
	}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.CheckpointResponse, error) {
		if err := s.quorum.Checkpoint(ctx, cmd); err != nil {
			return nil, err
		}
		return &writv1.CheckpointResponse{}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.CheckpointResponse, error) {
		return l.lease.Checkpoint(ctx, req, opts...)
	})
}

func (s *leaseService) checkpointCommand(from *caller, req *writv1.CheckpointRequest) (lease.Checkpoint, error) {
	ref, err := lease.RefFromProto(req.GetResource(), req.GetToken())
	return lease.Checkpoint{
		Caller: lease.Caller{Principal: from.principal, Instance: req.GetInstance()}, Ref: ref, Data: req.GetData(), Sequence: req.GetSequence(),
	}, err
}

func (s *leaseService) ForceRelease(ctx context.Context, req *writv1.ForceReleaseRequest) (*writv1.ForceReleaseResponse, error) {
	ref, err := anyRef(req.GetResource(), req.GetToken())
	if err != nil {
		return nil, err
	}
	cmd := lease.ForceRelease{Caller: s.caller(ctx, ""), Ref: ref, Reason: req.GetReason(), Now: req.GetNow()}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.ForceReleaseResponse, error) {
		info, err := s.quorum.ForceRelease(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return &writv1.ForceReleaseResponse{Lease: lease.InfoToProto(&info)}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.ForceReleaseResponse, error) {
		return l.lease.ForceRelease(ctx, req, opts...)
	})
}

// anyRef reads a ref whose token may be 0, for whichever grant there is.
func anyRef(resource string, token uint64) (lease.Ref, error) {
	if token != 0 {
		return lease.RefFromProto(resource, token)
	}
	name, err := lease.ParseResource(resource)
	return lease.Ref{Resource: name}, err
}

func (s *leaseService) Get(ctx context.Context, req *writv1.GetRequest) (*writv1.GetResponse, error) {
	resource, err := lease.ParseResource(req.GetResource())
	if err != nil {
		return nil, err
	}
	if !req.GetWithDeadline() {
		consistency, err := consistencyOf(req.GetConsistency())
		if err != nil {
			return nil, err
		}
		info, err := s.quorum.Get(ctx, quorum.GetQuery{Resource: resource, Consistency: consistency, WithCheckpoint: req.GetWithCheckpoint()})
		if err != nil {
			return nil, err
		}
		return &writv1.GetResponse{Lease: lease.InfoToProto(&info)}, nil
	}
	cmd := lease.Inspect{Caller: s.caller(ctx, ""), Ref: lease.Ref{Resource: resource}, WithCheckpoint: req.GetWithCheckpoint()}
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.GetResponse, error) {
		info, err := s.quorum.Inspect(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return &writv1.GetResponse{Lease: lease.InfoToProto(&info)}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.GetResponse, error) {
		return l.lease.Get(ctx, req, opts...)
	})
}

func consistencyOf(c writv1.ReadConsistency) (quorum.Consistency, error) {
	switch c {
	case writv1.ReadConsistency_READ_CONSISTENCY_UNSPECIFIED, writv1.ReadConsistency_READ_CONSISTENCY_LINEARIZABLE:
		return quorum.Linearizable, nil
	case writv1.ReadConsistency_READ_CONSISTENCY_LOCAL:
		return quorum.Local, nil
	}
	return 0, lease.Invalid("consistency", "is not known", "use READ_CONSISTENCY_LINEARIZABLE or READ_CONSISTENCY_LOCAL")
}

const defaultPageSize = 100

func (s *leaseService) List(ctx context.Context, req *writv1.ListRequest) (*writv1.ListResponse, error) {
	consistency, err := consistencyOf(req.GetConsistency())
	if err != nil {
		return nil, err
	}
	query := quorum.ListQuery{
		Prefix: req.GetPrefix(), Limit: int(req.GetPageSize()), HeldOnly: req.GetHeldOnly(), Consistency: consistency,
	}
	if query.Limit == 0 {
		query.Limit = defaultPageSize
	}
	if token := req.GetPageToken(); token != "" {
		after, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, lease.Invalid("page_token", "is not one of this API's", "use next_page_token of the answer before, or none")
		}
		query.After = string(after)
	}
	page, err := s.quorum.List(ctx, query)
	if err != nil {
		return nil, err
	}
	resp := &writv1.ListResponse{Leases: make([]*writv1.Lease, len(page.Leases)), Revision: page.Revision}
	for i := range page.Leases {
		resp.Leases[i] = lease.InfoToProto(&page.Leases[i])
	}
	if n := len(page.Leases); page.More && n > 0 {
		resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(page.Leases[n-1].Resource))
	}
	return resp, nil
}

func (s *leaseService) Watch(req *writv1.WatchRequest, stream grpc.ServerStreamingServer[writv1.WatchResponse]) error {
	return s.watcher.serve(req, stream)
}
