package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

// evacuate starts the command as people do.
func (th *theater) evacuate(args ...string) *process {
	th.t.Helper()
	var endpoints []string
	for _, c := range th.configs {
		endpoints = append(endpoints, c.API.Listen)
	}
	env := []string{"WRIT_ENDPOINTS=" + strings.Join(endpoints, ","), "WRIT_INSECURE=true"}
	return run(th.t, env, append([]string{"region", "evacuate"}, args...)...)
}

// openIn answers the promotions that are open, by group.
func (th *theater) openIn() map[string]*writv1.Promotion {
	th.t.Helper()
	list := ask(th, func(ctx context.Context) (*writv1.ListPromotionsResponse, error) {
		return th.regions().ListPromotions(ctx, &writv1.ListPromotionsRequest{Open: true})
	})
	open := make(map[string]*writv1.Promotion)
	for _, p := range list.GetPromotions() {
		open[p.GetGroup()] = p
	}
	return open
}

// sign waits until all groups have a plan, and has two people sign each.
func (th *theater) sign(groups ...string) (ids map[string]string) {
	th.t.Helper()
	ids = make(map[string]string)
	eventually(th.t, func() string {
		open := th.openIn()
		for _, group := range groups {
			if open[group] == nil {
				return "no plan for " + group
			}
			ids[group] = open[group].GetId()
		}
		return ""
	})
	for _, group := range groups {
		op := ask(th, func(ctx context.Context) (*writv1.Operation, error) {
			return th.regions().GetOperation(ctx, &writv1.GetOperationRequest{Id: ids[group]})
		})
		for _, name := range []string{"ann", "bob"} {
			signature, err := approval.Sign(th.keys[name], approval.Namespace, op.GetDocument())
			must(th.t, err)
			ask(th, func(ctx context.Context) (*writv1.Operation, error) {
				return th.regions().Approve(ctx, &writv1.ApproveRequest{Id: ids[group], Signature: signature})
			})
		}
	}
	return ids
}

// told is what the audit log says of promotions: in which order they began, and how many were under way at a time.
func (th *theater) told(ids map[string]string) (order []string, most int) {
	th.t.Helper()
	records := ask(th, func(ctx context.Context) (*writv1.ListAuditResponse, error) {
		return writv1.NewAuditServiceClient(th.conns[th.configs[1].API.Listen]).ListAudit(ctx, &writv1.ListAuditRequest{Limit: 1000})
	})
	running := 0
	for _, r := range records.GetRecords() {
		for group, id := range ids {
			switch {
			case r.GetTarget() == id && r.GetAction() == "promotion.preflight":
				order = append(order, group)
				running++
				most = max(most, running)
			case r.GetTarget() == id && r.GetAction() == "promotion.done":
				running--
			}
		}
	}
	return order, most
}

// A region is evacuated before real nodes, guards and agents: the groups that matter most leave first, two at a time. Whoever
// follows it may go: what has begun goes on, and the same command again goes on with the rest. A group that cannot leave does
// not hold up the others, and is told of.
func TestEvacuation(t *testing.T) {
	groups := []string{"d", "a", "c", "b"} // as they matter
	th := newTheaterOf(t, nil, groups...)
	th.steady("eu")

	p := th.evacuate("eu", "--mode", "switchover", "--max-parallel", "2", "--reason", "flood", "--plan-only")
	p.exits(6)
	ids := th.sign(groups...) // all of them: whoever is signed first would go first
	p = th.evacuate("eu", "--mode", "switchover", "--max-parallel", "2", "--reason", "flood")
	eventually(t, func() string {
		if open := th.openIn()["d"]; open != nil && (open.GetState() == writv1.PromotionState_PROMOTION_STATE_PROPOSED || open.GetState() == writv1.PromotionState_PROMOTION_STATE_APPROVING) {
			return "the first has not begun: " + open.String()
		}
		return ""
	})
	p.signal(syscall.SIGINT)
	p.exits(6)
	if order, _ := th.told(ids); len(order) == 0 || len(order) == len(groups) {
		t.Fatalf("executed %v by the time it was interrupted: this shows nothing", order)
	}
	p = th.evacuate("eu", "--mode", "switchover", "--max-parallel", "2", "--reason", "flood")
	p.exits(0)
	th.steady("us")
	order, most := th.told(ids) // of the first plans: none was made anew
	if !slices.Equal(order, groups) || most > 2 {
		t.Errorf("executed %v, %d at a time", order, most)
	}
	if stdout, _ := p.output(); !strings.Contains(stdout, ids["b"]) || !strings.Contains(stdout, "done") {
		t.Errorf("it said %s", stdout)
	}

	// One whose agents know nothing of it.
	th.apply("shy", "us", 9)
	eventually(t, func() string {
		g, err := th.regions().GetGroup(t.Context(), &writv1.GetGroupRequest{Name: "shy"})
		if err != nil || g.GetPrimary() != "us" {
			return fmt.Sprintf("%v, %v", g, err)
		}
		return ""
	})
	p = th.evacuate("us", "--mode", "switchover", "--max-failures", "0", "--reason", "the flood is over")
	th.sign(append(groups, "shy")...)
	p.exits(2)
	th.steady("eu")
	if _, stderr := p.output(); !strings.Contains(stderr, "not all groups have left us: shy") {
		t.Errorf("it said %s", stderr)
	}
	if g := ask(th, func(ctx context.Context) (*writv1.Group, error) {
		return th.regions().GetGroup(ctx, &writv1.GetGroupRequest{Name: "shy"})
	}); g.GetPrimary() != "us" || g.GetState() != writv1.GroupState_GROUP_STATE_STEADY {
		t.Errorf("what could not leave is %v", g)
	}
}
