package region

import (
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// The region that was given up for lost had been opened by a certificate, and its guard meets the quorum that went on.
func TestContradictionIsAConflict(t *testing.T) {
	w := newOrders(t, nil)
	before := w.machine.groups["orders"].rec
	id := w.begun(writv1.PromotionMode_PROMOTION_MODE_FAILOVER, "us", &writv1.Loss{})
	w.settle()
	if token := w.machine.groups["orders"].rec.Token; token <= before.Token {
		t.Fatalf("%s is %v: no newer tenure", id, w.state(id))
	}
	report := Contradicted{lease.Reported{
		Guard: "guard-eu", GuardRegion: "eu", Certificate: "c1", Group: "orders", Resource: resourceOf(before.Spec), Region: "eu",
		Token: fence.Token(before.Token), After: fence.Token(before.Token), Admitted: 3,
	}}
	for range 2 { // told again, it changes nothing
		w.effects(w.machine.Step(w.moment(), report))
	}
	g := w.machine.groups["orders"].rec
	if g.State != writv1.GroupState_GROUP_STATE_CONFLICT || len(g.Tails) != 2 || g.Tails[0].From != "eu" || g.Tails[1].From != "us" || g.Primary != "us" {
		t.Fatalf("the group is %v", g)
	}
	if _, err := w.plan(writv1.PromotionMode_PROMOTION_MODE_FAILOVER, "eu", &writv1.Loss{}); err == nil || err.Reason != lease.ReasonConflict {
		t.Errorf("a failover is taken: %v", err)
	}
	recovering := w.begun(writv1.PromotionMode_PROMOTION_MODE_RECOVER, "us", nil)
	w.settle()
	g = w.machine.groups["orders"].rec
	p := w.machine.promotions[recovering].rec
	if g.State == writv1.GroupState_GROUP_STATE_CONFLICT || len(g.Tails) != 0 || len(p.Tails) < 2 || g.Primary != "us" {
		t.Errorf("the group is %v, the promotion %v", g, p)
	}
}

// What the quorum did not touch since is no conflict.
func TestReportWithoutContradiction(t *testing.T) {
	w := newOrders(t, nil)
	rec := w.machine.groups["orders"].rec
	w.effects(w.machine.Step(w.moment(), Contradicted{lease.Reported{
		Guard: "guard-eu", Certificate: "c1", Resource: resourceOf(rec.Spec), Region: "eu", Token: fence.Token(rec.Token), After: fence.Token(rec.Token),
	}}))
	if g := w.machine.groups["orders"].rec; g.State != writv1.GroupState_GROUP_STATE_STEADY {
		t.Errorf("the group is %v", g)
	}
}
