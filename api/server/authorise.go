package server

import (
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// authorise asks the policy. What is not listed here is denied.
func (c *chain) authorise(from *caller, req any) error {
	switch m := req.(type) {
	case *writv1.AcquireRequest:
		return c.need(from, policy.Acquire, m.GetResource())
	case *writv1.RenewRequest:
		return nil // lease by lease, in the handler
	case *writv1.PipelineRequest:
		return nil // call by call, in the handler
	case *writv1.CancelAcquireRequest:
		return c.need(from, policy.Acquire, m.GetResource())
	case *writv1.ReleaseRequest:
		return c.need(from, policy.Acquire, m.GetResource())
	case *writv1.CheckpointRequest:
		return c.need(from, policy.Acquire, m.GetResource())
	case *writv1.IssueWritRequest:
		return c.need(from, policy.Acquire, m.GetResource())
	case *writv1.GetRequest:
		return c.need(from, policy.Read, m.GetResource())
	case *writv1.ListRequest:
		return c.need(from, policy.Read, m.GetPrefix())
	case *writv1.WatchRequest:
		return c.need(from, policy.Read, m.GetPrefix())
	case *writv1.ForceReleaseRequest:
		return c.need(from, policy.Force, m.GetResource())
	case *writv1.MemberAddRequest, *writv1.MemberRemoveRequest, *writv1.MoveCoordinatorRequest, *writv1.SnapshotRequest:
		return c.need(from, policy.Admin, "")
	case *writv1.RenewBatchRequest:
		if from.forwarded || !c.auth.mayForward(from) {
			return lease.Errorf(lease.ReasonDenied, "%s is not a node of this quorum as far as this node knows", from.direct)
		}
		return nil
	case *writv1.StatusRequest, *writv1.KeysRequest,
		*healthpb.HealthCheckRequest, *healthpb.HealthListRequest,
		*reflectionpb.ServerReflectionRequest:
		return nil // everybody with an identity
	}
	return lease.Errorf(lease.ReasonDenied, "%T is not known to the policy", req)
}

func (c *chain) need(from *caller, verb policy.Verb, name string) error {
	if c.access.Allows(from.principal, verb, name) {
		return nil
	}
	c.limiter.metrics.refusedPolicy.Inc()
	return denied(from.principal, verb, name)
}

func denied(principal lease.Principal, verb policy.Verb, name string) *lease.Error {
	e := lease.Errorf(lease.ReasonDenied, "the policy does not let %s %v %q", principal, verb, name)
	e.Fix = "add a grant to the policy file of this node"
	e.Resource = lease.Resource(name)
	return e
}
