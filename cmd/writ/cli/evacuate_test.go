package cli

import (
	"context"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// evacuated is a double of the machine for many groups: a promotion is done when it has been looked at twice after it was
// executed.
type evacuated struct {
	mu       sync.Mutex
	open     map[string]*writv1.Promotion // guarded by mu; by group
	looks    map[string]int               // guarded by mu
	missing  map[string]string            // guarded by mu; signatures, by group
	fails    map[string]bool              // guarded by mu
	order    []string                     // guarded by mu; in which promotions were executed
	running  int                          // guarded by mu
	most     int                          // guarded by mu; at a time
	onLook   func()
	planFail error
}

func groupIn(name, primary string, priority int32, drill string) *writv1.Group {
	return &writv1.Group{Primary: primary, Spec: &writv1.GroupSpec{
		Name: name, DrillOf: drill, Regions: []*writv1.GroupRegion{{Name: "eu", Priority: priority}, {Name: "us"}},
	}}
}

func newEvacuated(t *testing.T) (*promoter, *evacuated) {
	p := newPromoter(t)
	e := &evacuated{open: map[string]*writv1.Promotion{}, looks: map[string]int{}, missing: map[string]string{}, fails: map[string]bool{}}
	p.answers("ListGroups", &writv1.ListGroupsResponse{Groups: []*writv1.Group{
		groupIn("a", "eu", 1, ""), groupIn("b", "eu", 9, ""), groupIn("c", "us", 5, ""), groupIn("d", "eu", 5, ""), groupIn("drill", "eu", 99, "a"), groupIn("e", "eu", 5, ""),
	}})
	p.on("ListPromotions", func(req proto.Message) (proto.Message, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		list := &writv1.ListPromotionsResponse{}
		if o := e.open[req.(*writv1.ListPromotionsRequest).GetGroup()]; o != nil {
			list.Promotions = append(list.Promotions, o)
		}
		return list, nil
	})
	p.on("Plan", func(req proto.Message) (proto.Message, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		group := req.(*writv1.PlanRequest).GetGroup()
		if e.planFail != nil {
			return nil, e.planFail
		}
		e.open[group] = &writv1.Promotion{
			Id: group + "-1.1", Group: group, From: "eu", To: "us", State: writv1.PromotionState_PROMOTION_STATE_APPROVING,
			Operation: &writv1.Operation{Missing: e.missing[group]},
		}
		return proto.CloneOf(e.open[group]), nil
	})
	p.on("Execute", func(req proto.Message) (proto.Message, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		group := strings.TrimSuffix(req.(*writv1.ExecuteRequest).GetId(), "-1.1")
		e.order = append(e.order, group)
		e.running++
		e.most = max(e.most, e.running)
		e.open[group].State = writv1.PromotionState_PROMOTION_STATE_FENCING
		return proto.CloneOf(e.open[group]), nil
	})
	p.on("GetPromotion", func(req proto.Message) (proto.Message, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.onLook != nil {
			e.onLook()
		}
		o := e.open[strings.TrimSuffix(req.(*writv1.GetPromotionRequest).GetId(), "-1.1")]
		if o.GetState() == writv1.PromotionState_PROMOTION_STATE_FENCING {
			if e.looks[o.GetGroup()]++; e.looks[o.GetGroup()] == 2 {
				e.running--
				o.State = writv1.PromotionState_PROMOTION_STATE_DONE
				if e.fails[o.GetGroup()] {
					o.State, o.Reason = writv1.PromotionState_PROMOTION_STATE_CANCELLED, "it did not drain"
				}
			}
		}
		o.Operation = &writv1.Operation{Missing: e.missing[o.GetGroup()]}
		return proto.CloneOf(o), nil
	})
	return p, e
}

// Every group that the region leads leaves it: the most important ones first, and no more at a time than allowed.
func TestEvacuate(t *testing.T) {
	p, e := newEvacuated(t)
	r := writ(t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "2", "--reason", "flood")
	if r.code != 0 {
		t.Fatalf("got %+v", r)
	}
	if got := strings.Join(e.order, " "); got != "b d e a" {
		t.Errorf("executed %s", got)
	}
	if e.most != 2 {
		t.Errorf("%d at a time", e.most)
	}
	golden(t, "evacuate.txt", r.stdout)
	if got := p.asked(); !strings.Contains(got, `Plan group:"b" mode:PROMOTION_MODE_SWITCHOVER reason:"flood"`) || strings.Contains(got, `group:"c"`) || strings.Contains(got, "drill") {
		t.Errorf("asked %s", got)
	}
	if r := writ(t, "region", "evacuate", "mars", "--mode", "switchover"); r.code != 1 || !strings.Contains(r.stderr, `"mars" is in no group`) {
		t.Errorf("no such region: %+v", r)
	}
}

func TestEvacuateInAnOrderOfOnesOwn(t *testing.T) {
	_, e := newEvacuated(t)
	order := writeFile(t, "order", "# first\ne\n\na\n")
	if r := writ(t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "1", "--order", order); r.code != 0 {
		t.Fatalf("got %+v", r)
	}
	if got := strings.Join(e.order, " "); got != "e a b d" || e.most != 1 {
		t.Errorf("executed %s, %d at a time", got, e.most)
	}
}

// What has not been approved does not hold up the rest, and is carried through when it is.
func TestEvacuateWaitsForSignatures(t *testing.T) {
	_, e := newEvacuated(t)
	e.missing["b"] = "2 more people"
	e.onLook = func() {
		if len(e.order) == 3 && e.running == 0 {
			e.missing["b"] = ""
		}
	}
	r := writ(t, "region", "evacuate", "eu", "--mode", "failover")
	if got := strings.Join(e.order, " "); r.code != 0 || got != "d e a b" {
		t.Errorf("executed %s: %+v", got, r)
	}
	if !strings.Contains(r.stderr, "b-1.1: 2 more people; sign it with: writ promote approve b-1.1 --key FILE") {
		t.Errorf("told %s", r.stderr)
	}
}

// When one has failed, none is begun any more, unless that is asked for.
func TestEvacuateStopsAtFailures(t *testing.T) {
	_, e := newEvacuated(t)
	e.fails["b"] = true
	r := writ(t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "1")
	if got := strings.Join(e.order, " "); r.code != 2 || got != "b" || !strings.Contains(r.stderr, "not all groups have left eu: b") {
		t.Errorf("executed %s: %+v", got, r)
	}
	_, e = newEvacuated(t)
	e.fails["b"] = true
	r = writ(t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "1", "--max-failures", "0")
	if got := strings.Join(e.order, " "); r.code != 2 || got != "b d e a" {
		t.Errorf("executed %s: %+v", got, r)
	}
	p, e := newEvacuated(t)
	e.planFail = lease.Errorf(lease.ReasonConflict, "us cannot be primary")
	if r := writ(t, "region", "evacuate", "eu", "--mode", "switchover"); r.code != 2 || strings.Contains(p.asked(), "Execute") || !strings.Contains(r.stdout, "us cannot be primary") {
		t.Errorf("nothing could be planned: %+v", r)
	}
}

// The same command again goes on with what there is.
func TestEvacuateIsResumed(t *testing.T) {
	p, e := newEvacuated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e.onLook = func() {
		if e.running > 0 {
			cancel()
		}
	}
	r := writWith(ctx, t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "1")
	if r.code != 6 || len(e.order) != 1 {
		t.Fatalf("interrupted: %+v, executed %v", r, e.order)
	}
	p.asked()
	e.onLook = nil
	r = writ(t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "1")
	if got := strings.Join(e.order, " "); r.code != 0 || got != "b d e a" {
		t.Errorf("executed %s: %+v", got, r)
	}
	if got := p.asked(); strings.Contains(got, "Plan ") {
		t.Errorf("planned anew: %s", got)
	}
}

func TestEvacuatePlansOnly(t *testing.T) {
	p, _ := newEvacuated(t)
	r := writ(t, "region", "evacuate", "eu", "--mode", "failover", "--plan-only", "-o", "json")
	if r.code != 6 || strings.Count(r.stdout, `"id"`) != 4 || !strings.Contains(r.stderr, "4 of 4 groups") || strings.Contains(p.asked(), "Execute") {
		t.Errorf("got %+v", r)
	}
}

// A group that the region has lost already, and that has not arrived yet, counts among those that are under way; one that comes to
// the region, or that another one gives away, does not.
func TestEvacuateCountsWhatIsUnderWay(t *testing.T) {
	p, e := newEvacuated(t)
	gone, came := groupIn("a", "", 1, ""), groupIn("c", "", 5, "")
	gone.Promotion, came.Promotion = "a-1.1", "c-1.1"
	p.answers("ListGroups", &writv1.ListGroupsResponse{Groups: []*writv1.Group{gone, groupIn("b", "eu", 9, ""), came}})
	for group, from := range map[string]string{"a": "eu", "c": "us"} {
		e.open[group] = &writv1.Promotion{Id: group + "-1.1", Group: group, From: from, State: writv1.PromotionState_PROMOTION_STATE_FENCING}
	}
	e.running = 1
	r := writ(t, "region", "evacuate", "eu", "--mode", "switchover", "--max-parallel", "1")
	if got := strings.Join(e.order, " "); r.code != 0 || got != "b" || e.most != 1 || strings.Contains(r.stdout, "c-1.1") || !strings.Contains(r.stdout, "a-1.1") {
		t.Errorf("executed %s, %d at a time: %+v", got, e.most, r)
	}
}
