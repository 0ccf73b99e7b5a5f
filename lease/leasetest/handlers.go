package leasetest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

type leases struct {
	writv1.UnimplementedLeaseServiceServer
	node *Node
}

func (n *Node) caller(instance string) lease.Caller {
	return lease.Caller{Principal: Principal, Instance: instance}
}

func (s leases) Acquire(ctx context.Context, r *writv1.AcquireRequest) (*writv1.AcquireResponse, error) {
	resource, err := lease.ParseResource(r.GetResource())
	if err != nil {
		return nil, err
	}
	ttl := r.GetTtl().AsDuration()
	if ttl <= 0 {
		return nil, lease.Invalid("ttl", "is not positive", "use 10s")
	}
	value, err := s.node.state.Do(ctx, lease.Acquire{
		Caller: s.node.caller(r.GetInstance()), Resource: resource, RequestID: r.GetRequestId(), TTL: ttl,
		Wait: r.GetWait().AsDuration(), Priority: r.GetPriority(), Region: r.GetRegion(), Metadata: r.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	grant, granted := value.(*lease.Grant)
	if !granted {
		waiting, _ := value.(*lease.Waiting)
		return lease.OutcomeToProto(lease.AcquireOutcome{Waiting: waiting}), nil
	}
	response := lease.OutcomeToProto(lease.AcquireOutcome{Grant: grant})
	if r.GetWantWrit() || grant.Guarded {
		response.GetGrant().Writ, err = s.node.state.Sign(fence.Writ{
			Resource: string(grant.Resource), Holder: string(grant.Holder.Principal), Region: grant.Holder.Region,
			Token: grant.Token, IssuedAt: grant.GrantedAt, RequestID: grant.RequestID,
		})
	}
	return response, err
}

// Pipeline carries each call out as if it had come alone.
func (s leases) Pipeline(stream grpc.BidiStreamingServer[writv1.PipelineRequest, writv1.PipelineResponse]) error {
	var (
		calls sync.WaitGroup
		mu    sync.Mutex
		open  = make(map[uint64]context.CancelFunc) // guarded by mu; so is sending
		told  string                                // guarded by mu; who decides
	)
	defer calls.Wait()
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, call := range request.GetCalls() {
			mu.Lock()
			if call.GetAbandon() {
				if cancel := open[call.GetId()]; cancel != nil {
					cancel()
				}
				mu.Unlock()
				continue
			}
			ctx, cancel := context.WithCancel(stream.Context())
			open[call.GetId()] = cancel
			mu.Unlock()
			calls.Go(func() {
				answer := s.pipelined(ctx, call)
				cancel()
				mu.Lock()
				defer mu.Unlock()
				delete(open, call.GetId())
				response := &writv1.PipelineResponse{Answers: []*writv1.PipelineAnswer{answer}, Coordinator: s.node.coordinator(told)}
				told = cmp.Or(response.GetCoordinator(), told)
				_ = stream.Send(response) // its error ends Recv, too
			})
		}
	}
}

func (s leases) pipelined(ctx context.Context, call *writv1.PipelineCall) *writv1.PipelineAnswer {
	answer := &writv1.PipelineAnswer{Id: call.GetId()}
	var response any
	var err error
	if request := call.GetCheckpoint(); request != nil {
		response, err = s.node.unary(ctx, request, &grpc.UnaryServerInfo{FullMethod: writv1.LeaseService_Checkpoint_FullMethodName},
			func(ctx context.Context, _ any) (any, error) { return s.Checkpoint(ctx, request) })
	} else if request := call.GetAcquire(); request != nil {
		response, err = s.node.unary(ctx, request, &grpc.UnaryServerInfo{FullMethod: writv1.LeaseService_Acquire_FullMethodName},
			func(ctx context.Context, _ any) (any, error) { return s.Acquire(ctx, request) })
	} else {
		request := call.GetRelease()
		response, err = s.node.unary(ctx, request, &grpc.UnaryServerInfo{FullMethod: writv1.LeaseService_Release_FullMethodName},
			func(ctx context.Context, _ any) (any, error) { return s.Release(ctx, request) })
	}
	switch response := response.(type) {
	case *writv1.AcquireResponse:
		answer.Answer = &writv1.PipelineAnswer_Acquire{Acquire: response}
	case *writv1.ReleaseResponse:
		answer.Answer = &writv1.PipelineAnswer_Release{Release: response}
	case *writv1.CheckpointResponse:
		answer.Answer = &writv1.PipelineAnswer_Checkpoint{Checkpoint: response}
	}
	if err != nil {
		answer.Answer = &writv1.PipelineAnswer_Error{Error: status.Convert(err).Proto()}
	}
	return answer
}

func (s leases) CancelAcquire(ctx context.Context, r *writv1.CancelAcquireRequest) (*writv1.CancelAcquireResponse, error) {
	value, err := s.node.state.Do(ctx, lease.CancelAcquire{
		Caller: s.node.caller(r.GetInstance()), Resource: lease.Resource(r.GetResource()), RequestID: r.GetRequestId(),
	})
	if err != nil {
		return nil, err
	}
	released, _ := value.(fence.Token)
	return &writv1.CancelAcquireResponse{ReleasedToken: uint64(released)}, nil
}

func (s leases) Renew(ctx context.Context, r *writv1.RenewRequest) (*writv1.RenewResponse, error) {
	refs, _, unusable, err := lease.RefsFromProto(r.GetLeases())
	if err != nil {
		return nil, err
	}
	if unusable != nil {
		return nil, unusable[0].Err
	}
	value, err := s.node.state.Do(ctx, lease.Renew{Caller: s.node.caller(r.GetInstance()), Refs: refs})
	if err != nil {
		return nil, err
	}
	outcome, _ := value.(lease.RenewOutcome)
	return lease.RenewOutcomeToProto(outcome), nil
}

func (s leases) Release(ctx context.Context, r *writv1.ReleaseRequest) (*writv1.ReleaseResponse, error) {
	ref, err := lease.RefFromProto(r.GetResource(), r.GetToken())
	if err != nil {
		return nil, err
	}
	_, err = s.node.state.Do(ctx, lease.Release{Caller: s.node.caller(r.GetInstance()), Ref: ref})
	return &writv1.ReleaseResponse{}, err
}

func (s leases) Checkpoint(ctx context.Context, r *writv1.CheckpointRequest) (*writv1.CheckpointResponse, error) {
	ref, err := lease.RefFromProto(r.GetResource(), r.GetToken())
	if err != nil {
		return nil, err
	}
	if len(r.GetData()) > lease.MaxCheckpointBytes {
		return nil, lease.Invalid("data", "is too long", "use at most 64 KiB")
	}
	_, err = s.node.state.Do(ctx, lease.Checkpoint{
		Caller: s.node.caller(r.GetInstance()), Ref: ref, Data: r.GetData(), Sequence: r.GetSequence(),
	})
	return &writv1.CheckpointResponse{}, err
}

func (s leases) ForceRelease(ctx context.Context, r *writv1.ForceReleaseRequest) (*writv1.ForceReleaseResponse, error) {
	value, err := s.node.state.Do(ctx, lease.ForceRelease{
		Caller: s.node.caller(""), Reason: r.GetReason(), Now: r.GetNow(),
		Ref: lease.Ref{Resource: lease.Resource(r.GetResource()), Token: fence.Token(r.GetToken())},
	})
	if err != nil {
		return nil, err
	}
	info, _ := value.(lease.Info)
	return &writv1.ForceReleaseResponse{Lease: lease.InfoToProto(&info)}, nil
}

func (s leases) Get(ctx context.Context, r *writv1.GetRequest) (*writv1.GetResponse, error) {
	value, err := s.node.state.Do(ctx, lease.Inspect{
		Caller: s.node.caller(""), Ref: lease.Ref{Resource: lease.Resource(r.GetResource())},
		WithCheckpoint: r.GetWithCheckpoint(),
	})
	if err != nil {
		return nil, err
	}
	info, _ := value.(lease.Info)
	return &writv1.GetResponse{Lease: lease.InfoToProto(&info)}, nil
}

func (s leases) List(_ context.Context, r *writv1.ListRequest) (*writv1.ListResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = 100
	}
	infos := s.node.state.List(r.GetPrefix(), r.GetPageToken(), r.GetHeldOnly())
	response := &writv1.ListResponse{}
	for i := range infos {
		if i == size {
			response.NextPageToken = string(infos[i-1].Resource)
			break
		}
		response.Leases = append(response.Leases, lease.InfoToProto(&infos[i]))
	}
	return response, nil
}

// Watch sends the present state, then each change.
func (s leases) Watch(r *writv1.WatchRequest, stream grpc.ServerStreamingServer[writv1.WatchResponse]) error {
	return s.node.state.Journal().serve(r, stream)
}
