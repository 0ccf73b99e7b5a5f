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
		if c.access.Allows(from.principal, policy.Agent, m.GetResource()) {
			return nil // whose tenure it is, in the handler
		}
		return c.need(from, policy.Acquire, m.GetResource())
	case *writv1.GetRequest:
		return c.need(from, policy.Read, m.GetResource())
	case *writv1.ListRequest:
		return c.need(from, policy.Read, m.GetPrefix())
	case *writv1.WatchRequest:
		return c.need(from, policy.Read, m.GetPrefix())
	case *writv1.ForceReleaseRequest:
		return c.need(from, policy.Force, m.GetResource())
	case *writv1.GuardRequest:
		return c.authoriseGuard(from, m)
	case *writv1.ListGuardsRequest:
		return c.needRead(from, m.GetResource())
	case *writv1.GetGuardRequest:
		return c.needRead(from, m.GetPrefix())
	case *writv1.VerifyGuardsRequest:
		return c.needRead(from, m.GetResource())
	case *writv1.GetGuardingRequest:
		return c.needRead(from, "")
	case *writv1.MemberAddRequest, *writv1.MemberRemoveRequest, *writv1.MoveCoordinatorRequest, *writv1.SnapshotRequest,
		*writv1.RemoveGuardRequest, *writv1.SetGuardingRequest:
		return c.need(from, policy.Admin, "")
	case *writv1.ListAuditRequest, *writv1.WhoCouldWriteRequest, *writv1.ExportAuditRequest, *writv1.PruneAuditRequest:
		return c.need(from, policy.Audit, "")
	case *writv1.RenewBatchRequest:
		if from.forwarded {
			return lease.Errorf(lease.ReasonDenied, "is for nodes, which do not pass it on")
		}
		if e := c.auth.mayForward(from); e != nil {
			e.Field = keyForwarded // so that the other node asks again: this one may learn of it late
			return e
		}
		return nil
	case *writv1.GuardCallRequest:
		if !from.forwarded || m.GetPrincipal() != string(from.principal) {
			return lease.Errorf(lease.ReasonDenied, "is for nodes, which say for whom they ask")
		}
		return nil // what is carried, in the handler
	case *writv1.GuardFloorsRequest:
		if !from.forwarded || m.GetPrincipal() != string(from.principal) {
			return lease.Errorf(lease.ReasonDenied, "is for nodes, which say for whom they ask")
		}
		return c.needRead(from, m.GetAsk().GetPrefix())
	case *writv1.StatusRequest, *writv1.KeysRequest,
		*healthpb.HealthCheckRequest, *healthpb.HealthListRequest,
		*reflectionpb.ServerReflectionRequest:
		return nil // everybody with an identity
	}
	if known, err := c.authoriseRegion(from, req); known {
		return err
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

// needRead is for what whoever runs the quorum may read, too.
func (c *chain) needRead(from *caller, name string) error {
	if c.access.Allows(from.principal, policy.Admin, "") {
		return nil
	}
	return c.need(from, policy.Read, name)
}

// readsAll tells whether a caller may read what concerns every resource.
func (c *chain) readsAll(from *caller) bool {
	return c.access.Allows(from.principal, policy.Admin, "") || c.access.Allows(from.principal, policy.Read, "")
}

// authoriseGuard looks at what a guard says that it covers, and at what it acknowledges.
func (c *chain) authoriseGuard(from *caller, req *writv1.GuardRequest) error {
	covers, stamps := patternsOf(req)
	if err := c.needGuard(from, covers, stamps); err != nil {
		return err
	}
	for _, ack := range req.GetAcks().GetAcks() {
		if err := c.need(from, policy.Guard, ack.GetResource()); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) needGuard(from *caller, covers, stamps []string) error {
	for _, patterns := range [][]string{covers, stamps} {
		for _, p := range patterns {
			if err := c.need(from, policy.Guard, patternName(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

func denied(principal lease.Principal, verb policy.Verb, name string) *lease.Error {
	e := lease.Errorf(lease.ReasonDenied, "the policy does not let %s %v %q", principal, verb, name)
	e.Fix = "add a grant to the policy file of this node"
	e.Resource = lease.Resource(name)
	return e
}
