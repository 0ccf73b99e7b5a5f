package server

import (
	"context"
	"slices"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

// tenureFor answers the tenure that cmd names, for which the caller may have a writ: a writer of the region that has it, or
// that region's agent. Where there is no tenure, or another one, it fails with refusal.
func (s *fenceService) tenureFor(ctx context.Context, cmd lease.Inspect, refusal error) (lease.Info, error) {
	switch lease.ReasonOf(refusal) {
	case lease.ReasonDenied, lease.ReasonNotHolder:
	default:
		return lease.Info{}, refusal
	}
	info, err := s.quorum.Inspect(ctx, lease.Inspect{Caller: cmd.Caller, Ref: lease.Ref{Resource: cmd.Resource}})
	if err != nil || info.TenureGroup == "" {
		return lease.Info{}, refusal
	}
	if info.State != lease.Held || info.Token != cmd.Token {
		e := lease.Errorf(lease.ReasonStaleToken, "is not that of the present tenure of group %s", info.TenureGroup)
		e.Field, e.Resource, e.Token = "token", info.Resource, info.Token
		e.Fix = "ask for the writ of the token that the group has"
		return lease.Info{}, e
	}
	group, err := localRegion[*writv1.Group](ctx, s.quorum, region.Command{
		Caller: lease.Caller{Principal: cmd.Principal}, Ask: &writv1.GetGroupRequest{Name: info.TenureGroup},
	})
	if err != nil {
		return lease.Info{}, err
	}
	for _, r := range group.GetSpec().GetRegions() {
		named := r.GetAgent() == string(cmd.Principal) || slices.Contains(r.GetWriters(), string(cmd.Principal))
		if r.GetName() == info.Holder.Region && named {
			return info, nil
		}
	}
	e := lease.Errorf(lease.ReasonDenied, "%s is no writer of region %s, which has the tenure of group %s", cmd.Principal, info.Holder.Region, info.TenureGroup)
	e.Fix, e.Resource = "add it to the writers of that region with writ group apply", info.Resource
	return lease.Info{}, e
}
