package leasetest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

type leases struct {
	writv1.UnimplementedLeaseServiceServer
	node *Node
}

func caller(instance string) lease.Caller {
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
	grant, waiting, err := s.node.quorum.acquire(ctx, lease.Acquire{
		Caller: caller(r.GetInstance()), Resource: resource, RequestID: r.GetRequestId(), TTL: ttl,
		Wait: r.GetWait().AsDuration(), Priority: r.GetPriority(), Region: r.GetRegion(), Metadata: r.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	response := lease.OutcomeToProto(lease.AcquireOutcome{Grant: grant, Waiting: waiting})
	if r.GetWantWrit() && grant != nil {
		response.GetGrant().Writ = "writ of " + r.GetResource() + " under " + grant.Token.String()
	}
	return response, nil
}

// Pipeline carries each call out as if it had come alone.
func (s leases) Pipeline(stream grpc.BidiStreamingServer[writv1.PipelineRequest, writv1.PipelineResponse]) error {
	var (
		calls sync.WaitGroup
		mu    sync.Mutex
		open  = make(map[uint64]context.CancelFunc) // guarded by mu; so is sending
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
				_ = stream.Send(&writv1.PipelineResponse{Answers: []*writv1.PipelineAnswer{answer}}) // its error ends Recv, too
			})
		}
	}
}

func (s leases) pipelined(ctx context.Context, call *writv1.PipelineCall) *writv1.PipelineAnswer {
	answer := &writv1.PipelineAnswer{Id: call.GetId()}
	var response any
	var err error
	if request := call.GetAcquire(); request != nil {
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
	}
	if err != nil {
		answer.Answer = &writv1.PipelineAnswer_Error{Error: status.Convert(err).Proto()}
	}
	return answer
}

func (s leases) CancelAcquire(_ context.Context, r *writv1.CancelAcquireRequest) (*writv1.CancelAcquireResponse, error) {
	released := s.node.quorum.cancel(lease.CancelAcquire{
		Caller: caller(r.GetInstance()), Resource: lease.Resource(r.GetResource()), RequestID: r.GetRequestId(),
	})
	return &writv1.CancelAcquireResponse{ReleasedToken: uint64(released)}, nil
}

func (s leases) Renew(_ context.Context, r *writv1.RenewRequest) (*writv1.RenewResponse, error) {
	refs, _, unusable, err := lease.RefsFromProto(r.GetLeases())
	if err != nil {
		return nil, err
	}
	if unusable != nil {
		return nil, unusable[0].Err
	}
	return lease.RenewOutcomeToProto(s.node.quorum.renew(caller(r.GetInstance()), refs)), nil
}

func (s leases) Release(_ context.Context, r *writv1.ReleaseRequest) (*writv1.ReleaseResponse, error) {
	ref, err := lease.RefFromProto(r.GetResource(), r.GetToken())
	if err != nil {
		return nil, err
	}
	return &writv1.ReleaseResponse{}, s.node.quorum.release(lease.Release{Caller: caller(r.GetInstance()), Ref: ref})
}

func (s leases) Checkpoint(_ context.Context, r *writv1.CheckpointRequest) (*writv1.CheckpointResponse, error) {
	ref, err := lease.RefFromProto(r.GetResource(), r.GetToken())
	if err != nil {
		return nil, err
	}
	if len(r.GetData()) > lease.MaxCheckpointBytes {
		return nil, lease.Invalid("data", "is too long", "use at most 64 KiB")
	}
	return &writv1.CheckpointResponse{}, s.node.quorum.checkpoint(lease.Checkpoint{
		Caller: caller(r.GetInstance()), Ref: ref, Data: r.GetData(), Sequence: r.GetSequence(),
	})
}

func (s leases) ForceRelease(_ context.Context, r *writv1.ForceReleaseRequest) (*writv1.ForceReleaseResponse, error) {
	info, err := s.node.quorum.force(r.GetResource(), fence.Token(r.GetToken()))
	if err != nil {
		return nil, err
	}
	return &writv1.ForceReleaseResponse{Lease: lease.InfoToProto(&info)}, nil
}

func (s leases) Get(_ context.Context, r *writv1.GetRequest) (*writv1.GetResponse, error) {
	info := s.node.quorum.Info(r.GetResource())
	if info.Token == 0 {
		return nil, lease.Errorf(lease.ReasonNotFound, "%s was never granted", r.GetResource())
	}
	return &writv1.GetResponse{Lease: lease.InfoToProto(&info)}, nil
}

func (s leases) List(_ context.Context, r *writv1.ListRequest) (*writv1.ListResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = 100
	}
	infos := s.node.quorum.list(r.GetPrefix(), r.GetPageToken(), r.GetHeldOnly())
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

// Watch sends the present state, then each change. Its resume token is the number of changes seen.
func (s leases) Watch(r *writv1.WatchRequest, stream grpc.ServerStreamingServer[writv1.WatchResponse]) error {
	q := s.node.quorum
	q.mu.Lock()
	defer q.mu.Unlock()
	send := func(kind writv1.WatchResponse_Kind, info *lease.Info, token int) error {
		message := &writv1.WatchResponse{Kind: kind, ResumeToken: strconv.Itoa(token)}
		if info != nil {
			if !strings.HasPrefix(string(info.Resource), r.GetPrefix()) {
				return nil
			}
			message.Lease = lease.InfoToProto(info)
		}
		q.mu.Unlock()
		defer q.mu.Lock()
		return stream.Send(message)
	}
	next, err := strconv.Atoi(r.GetResumeToken())
	fresh := r.GetResumeToken() == ""
	if !fresh && (err != nil || next < q.compacted || next > len(q.history)) {
		fresh = true
		if err := send(writv1.WatchResponse_KIND_RESYNC, nil, 0); err != nil {
			return err
		}
	}
	if fresh {
		next = len(q.history)
		var state []lease.Info
		for _, r := range q.resources {
			if r.info.Token != 0 {
				state = append(state, r.info)
			}
		}
		slices.SortFunc(state, func(a, b lease.Info) int { return strings.Compare(string(a.Resource), string(b.Resource)) })
		for i := range state {
			if err := send(writv1.WatchResponse_KIND_STATE, &state[i], next); err != nil {
				return err
			}
		}
		if err := send(writv1.WatchResponse_KIND_SYNCED, nil, next); err != nil {
			return err
		}
	}
	for stream.Context().Err() == nil {
		if next == len(q.history) {
			q.wait(stream.Context(), clock.Instant(1<<62))
			continue
		}
		info := q.history[next].info
		next++
		if err := send(writv1.WatchResponse_KIND_CHANGED, &info, next); err != nil {
			return err
		}
	}
	return stream.Context().Err()
}
