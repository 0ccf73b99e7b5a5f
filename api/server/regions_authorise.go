package server

import (
	"strings"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// authoriseRegion asks the policy about failover groups, by the group's name; known is false for anything else.
func (c *chain) authoriseRegion(from *caller, req any) (known bool, err error) {
	switch m := req.(type) {
	case *writv1.ApplyGroupRequest:
		return true, c.need(from, policy.Group, m.GetSpec().GetName())
	case *writv1.RemoveGroupRequest:
		return true, c.need(from, policy.Group, m.GetName())
	case *writv1.ChangeApproversRequest:
		return true, c.need(from, policy.Admin, "")
	case *writv1.PlanRequest:
		return true, c.need(from, policy.Promote, m.GetGroup())
	case *writv1.RecordDrillRequest:
		return true, c.need(from, policy.Promote, m.GetGroup())
	case *writv1.ExecuteRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.AbortRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.ResumeRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.AcknowledgeRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.ReinstateRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.AttestGuardRequest:
		if m.GetId() == "" {
			return true, c.need(from, policy.Promote, m.GetGroup())
		}
		return true, c.needPromote(from, m.GetId())
	case *writv1.ApproveRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.WithdrawRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.ExecuteOperationRequest:
		return true, c.needPromote(from, m.GetId())
	case *writv1.AgentPollRequest:
		return true, c.authoriseAgent(from, m)
	}
	return c.authoriseRegionRead(from, req)
}

func (c *chain) authoriseRegionRead(from *caller, req any) (known bool, err error) {
	switch m := req.(type) {
	case *writv1.GetGroupRequest:
		return true, c.needRead(from, m.GetName())
	case *writv1.ExplainRequest:
		return true, c.needRead(from, m.GetGroup())
	case *writv1.ConfidenceRequest:
		return true, c.needRead(from, m.GetGroup())
	case *writv1.GetPromotionRequest:
		return true, c.needRead(from, groupOf(m.GetId()))
	case *writv1.GetOperationRequest:
		return true, c.needRead(from, groupOf(m.GetId()))
	case *writv1.ListPromotionsRequest:
		return true, c.needReadOrNone(from, m.GetGroup())
	case *writv1.ListOperationsRequest:
		return true, c.needReadOrNone(from, m.GetGroup())
	case *writv1.ListGroupsRequest:
		return true, nil // group by group, in the handler
	case *writv1.GetApproversRequest:
		return true, nil // names and public keys, which everybody needs who checks a signature
	}
	return false, nil
}

// needReadOrNone leaves lists that name no group to the handler, which goes through them group by group.
func (c *chain) needReadOrNone(from *caller, group string) error {
	if group == "" {
		return nil
	}
	return c.needRead(from, group)
}

// approversName is the name that operations on the set of approvers have in place of a group's.
const approversName = "approvers"

// needPromote is for promotions and operations, whose ids begin with the group's name. What is about the approvers themselves
// is also for whoever runs the quorum.
func (c *chain) needPromote(from *caller, id string) error {
	group := groupOf(id)
	if group == approversName && c.access.Allows(from.principal, policy.Admin, "") {
		return nil
	}
	return c.need(from, policy.Promote, group)
}

// groupOf is the group that a promotion or an operation belongs to: ids are <group>-<epoch>.<number>. What is not such an id
// stands for itself.
func groupOf(id string) string {
	if i := strings.LastIndexByte(id, '-'); i >= 0 {
		return id[:i]
	}
	return id
}

// authoriseAgent looks at the groups that an agent speaks for. What it is answered is looked at in the handler.
func (c *chain) authoriseAgent(from *caller, req *writv1.AgentPollRequest) error {
	for _, r := range req.GetReports() {
		if err := c.need(from, policy.Agent, r.GetGroup()); err != nil {
			return err
		}
	}
	for _, r := range req.GetResults() {
		if err := c.need(from, policy.Agent, r.GetGroup()); err != nil {
			return err
		}
	}
	return nil
}
