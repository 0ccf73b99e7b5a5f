package region

import (
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const (
	modeSwitchover = writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER
	modeFailover   = writv1.PromotionMode_PROMOTION_MODE_FAILOVER
	modeFailback   = writv1.PromotionMode_PROMOTION_MODE_FAILBACK
	modeRecover    = writv1.PromotionMode_PROMOTION_MODE_RECOVER
)

func TestASwitchoverTakesAtMostTenCommits(t *testing.T) {
	w := newOrders(t, nil)
	p, err := w.plan(modeSwitchover, "us", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.commits = 0
	w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
	for range 40 {
		if w.state(p.Id) == done {
			break
		}
		w.round()
	}
	if w.state(p.Id) != done || w.commits > 10 {
		t.Errorf("after %d commits, of 10, it is %s: %s", w.commits, stateName(w.state(p.Id)), w.tell())
	}
	g := w.groups["orders"]
	if g.Primary != "us" || g.State != writv1.GroupState_GROUP_STATE_STEADY || len(g.Quarantined) != 0 || g.Promotion != "" {
		t.Errorf("the group is %v", g)
	}
	t.Logf("%d commits; us did %q, eu did %q", w.commits, w.agents["us"].did, w.agents["eu"].did)
	w.pass(time.Second)
	back := w.begun(modeFailback, "", nil)
	w.pass(2 * time.Second)
	if w.state(back) != done || w.groups["orders"].Primary != "eu" {
		t.Errorf("the failback: %s", w.tell())
	}
}
