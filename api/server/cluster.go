package server

import (
	"context"
	"errors"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// clusterService serves writv1.ClusterService.
type clusterService struct {
	writv1.UnimplementedClusterServiceServer
	quorum    Quorum
	forwarder *forwarder
	version   string
}

func (s *clusterService) Status(context.Context, *writv1.StatusRequest) (*writv1.StatusResponse, error) {
	st := s.quorum.Status()
	resp := &writv1.StatusResponse{
		Node:           st.Node,
		Cluster:        st.Cluster,
		Incarnation:    st.Incarnation,
		Epoch:          uint32(st.Epoch),
		Coordinator:    st.Coordinator,
		Term:           int64(st.Term),
		Ready:          st.NotReady == "",
		NotReadyReason: st.NotReady,
		Revision:       st.Revision,
		DbBytes:        st.DBBytes,
		QuotaBytes:     st.QuotaBytes,
		Version:        s.version,
		Leases:         int64(st.Leases),
		AuditAlarms:    s.quorum.AuditAlarms(),
	}
	if st.RecoveringFor > 0 {
		resp.RecoveringFor = durationpb.New(st.RecoveringFor)
	}
	for _, n := range st.Nodes {
		resp.Nodes = append(resp.Nodes, &writv1.NodeStatus{
			Name:           n.Name,
			Region:         n.Region,
			ApiAddress:     n.APIAddress,
			HttpAddress:    n.HTTPAddress,
			PeerUrl:        n.PeerURL,
			MemberId:       hexID(n.MemberID),
			Coordinator:    n.Coordinator,
			Reachable:      n.Reachable,
			Learner:        n.Learner,
			Version:        n.Version,
			WitnessedEpoch: uint32(n.WitnessedEpoch),
		})
	}
	return resp, nil
}

// hexID writes a member id as etcd's own tools do.
func hexID(id uint64) string { return strconv.FormatUint(id, 16) }

// Changes of membership are not idempotent: they are passed on once.

func (s *clusterService) MemberAdd(ctx context.Context, req *writv1.MemberAddRequest) (*writv1.MemberAddResponse, error) {
	return decide(ctx, s.forwarder, manner{once: true}, func(ctx context.Context) (*writv1.MemberAddResponse, error) {
		id, members, err := s.quorum.MemberAdd(ctx, callerOf(ctx).principal, req.GetName(), req.GetPeerUrl())
		if err != nil {
			return nil, err
		}
		return &writv1.MemberAddResponse{MemberId: hexID(id), Members: members}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.MemberAddResponse, error) {
		return l.cluster.MemberAdd(ctx, req, opts...)
	})
}

func (s *clusterService) MemberRemove(ctx context.Context, req *writv1.MemberRemoveRequest) (*writv1.MemberRemoveResponse, error) {
	return decide(ctx, s.forwarder, manner{once: true, moves: true}, func(ctx context.Context) (*writv1.MemberRemoveResponse, error) {
		if err := s.quorum.MemberRemove(ctx, callerOf(ctx).principal, req.GetName()); err != nil {
			return nil, err
		}
		return &writv1.MemberRemoveResponse{}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.MemberRemoveResponse, error) {
		return l.cluster.MemberRemove(ctx, req, opts...)
	})
}

func (s *clusterService) MoveCoordinator(ctx context.Context, req *writv1.MoveCoordinatorRequest) (*writv1.MoveCoordinatorResponse, error) {
	return decide(ctx, s.forwarder, manner{once: true, moves: true}, func(ctx context.Context) (*writv1.MoveCoordinatorResponse, error) {
		name, err := s.quorum.MoveCoordinator(ctx, req.GetTo())
		if err != nil {
			return nil, err
		}
		return &writv1.MoveCoordinatorResponse{Coordinator: name}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.MoveCoordinatorResponse, error) {
		return l.cluster.MoveCoordinator(ctx, req, opts...)
	})
}

// snapshotChunkBytes is the size of the pieces that a backup is sent in.
const snapshotChunkBytes = 256 << 10

// Snapshot comes from the node that was asked.
func (s *clusterService) Snapshot(_ *writv1.SnapshotRequest, stream grpc.ServerStreamingServer[writv1.SnapshotResponse]) (err error) {
	snapshot, err := s.quorum.Snapshot(stream.Context())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	chunk := make([]byte, snapshotChunkBytes)
	for {
		n, err := io.ReadFull(snapshot, chunk)
		if n > 0 {
			if err := stream.Send(&writv1.SnapshotResponse{Chunk: chunk[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}
