package server

import (
	"context"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// healthService serves the gRPC health protocol: a node serves if and only if it is ready. Check looks at that moment,
// watches learn of a change within healthEvery.
type healthService struct {
	*health.Server
	quorum   Quorum
	draining context.Context
}

const healthEvery = 250 * time.Millisecond

// healthServices are the names that may be asked for; "" is the node as a whole. PeerService is not for outsiders.
var healthServices = []string{
	"", writv1.LeaseService_ServiceDesc.ServiceName, writv1.FenceService_ServiceDesc.ServiceName, writv1.ClusterService_ServiceDesc.ServiceName,
	writv1.RegionService_ServiceDesc.ServiceName, writv1.AuditService_ServiceDesc.ServiceName,
}

func newHealthService(q Quorum, draining context.Context) *healthService {
	s := &healthService{Server: health.NewServer(), quorum: q, draining: draining}
	s.refresh()
	return s
}

// notReady says why the node is not ready, and nothing if it is.
func (s *healthService) notReady() string {
	if s.draining.Err() != nil {
		return errDraining.Error()
	}
	return s.quorum.Status().NotReady
}

func (s *healthService) refresh() {
	status := healthpb.HealthCheckResponse_SERVING
	if s.notReady() != "" {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range healthServices {
		s.SetServingStatus(name, status)
	}
}

func (s *healthService) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.refresh()
	return s.Server.Check(ctx, req)
}

// run keeps watches up to date until ctx ends.
func (s *healthService) run(ctx context.Context) {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.draining.Done():
			s.refresh()
			return
		case <-ticker.C:
			s.refresh()
		}
	}
}
