//writ:core

package region

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

func (x *Machine) findGroup(name string) (*group, *lease.Error) {
	g := x.groups[name]
	if g == nil {
		return nil, &lease.Error{Reason: lease.ReasonNotFound, Message: fmt.Sprintf("there is no group %q", name), Fix: "see writ group list"}
	}
	return g, nil
}

func (x *Machine) listGroups(m lease.Moment) (*writv1.ListGroupsResponse, *lease.Error) {
	list := &writv1.ListGroupsResponse{}
	for _, name := range x.names {
		shown := x.showGroup(m, x.groups[name], false)
		shown.Drills = shown.Drills[max(0, len(shown.Drills)-1):]
		list.Groups = append(list.Groups, shown)
	}
	return list, nil
}

func (x *Machine) getGroup(m lease.Moment, ask *writv1.GetGroupRequest) (*writv1.Group, *lease.Error) {
	g, err := x.findGroup(ask.Name)
	if err != nil {
		return nil, err
	}
	return x.showGroup(m, g, true), nil
}

// showGroup is a group for people, with what is known of it at the moment; whole with its reports and guards.
func (x *Machine) showGroup(m lease.Moment, g *group, whole bool) *writv1.Group {
	shown := proto.CloneOf(g.rec)
	var guards []*writv1.Guard
	if whole {
		guards = x.tenures.ShowGuards(m, resourceOf(g.rec.Spec))
	}
	for _, r := range g.regions {
		status := &writv1.RegionStatus{Region: r.name}
		if r.report != nil {
			status.Age = durationpb.New(max(0, m.Now.Sub(r.at)))
			if whole {
				status.Report = r.report
			}
		}
		if fresh := x.fresh(m, g, r.name); fresh != nil {
			status.Health = fresh.Health
		}
		for _, guard := range guards {
			if guard.Region == r.name {
				status.Guards = append(status.Guards, guard)
			}
		}
		shown.Regions = append(shown.Regions, status)
	}
	switch g.rec.State {
	case writv1.GroupState_GROUP_STATE_ESTABLISHING, writv1.GroupState_GROUP_STATE_REMOVING:
		shown.Waits = tenureWaits(m, x.tenures.Tenure(resourceOf(g.rec.Spec)))
	case writv1.GroupState_GROUP_STATE_CONFLICT:
		shown.Waits = []*writv1.Wait{{What: "two regions may have written: people have to name the primary (writ promote plan, with the mode recover), and to settle both tails afterwards"}}
	case writv1.GroupState_GROUP_STATE_RECOVERED:
		shown.Waits = []*writv1.Wait{{What: "people have to name the primary: writ promote plan, with the mode recover"}}
	default:
	}
	return shown
}

func tenureWaits(m lease.Moment, t lease.Tenure) []*writv1.Wait {
	var waits []*writv1.Wait
	for _, a := range t.Awaits {
		w := &writv1.Wait{What: fmt.Sprintf("guard %s in %s has to acknowledge %v, or to lapse", a.Guard, a.Region, t.Fencing)}
		if a.Lapses != clock.Never {
			w.Left = durationpb.New(max(0, a.Lapses.Sub(m.Now)))
		} else {
			w.What = fmt.Sprintf("guard %s in %s has to acknowledge %v: it may go on without contact, so if it is gone, people have to answer for it with `writ guard attest`", a.Guard, a.Region, t.Fencing)
		}
		waits = append(waits, w)
	}
	return waits
}
