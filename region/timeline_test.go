package region

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// wantTimeline holds that the moments named in order are set, each not before the one ahead of it, and no others.
func (w *world) wantTimeline(id string, order ...string) *writv1.Timeline {
	w.t.Helper()
	p := w.promotions[id]
	line := p.GetTimeline()
	moments := map[string]*timestamppb.Timestamp{
		"detected": line.GetDetected(), "acknowledged": line.GetAcknowledged(), "decided": line.GetDecided(), "fenced": line.GetFenced(),
		"serving": line.GetServing(), "reconciled": line.GetReconciled(),
	}
	var last time.Time
	for _, name := range order {
		switch at := moments[name]; {
		case at == nil:
			w.t.Errorf("%s is %s: %s is not set: %v", id, stateName(p.GetState()), name, line)
		case at.AsTime().Before(last):
			w.t.Errorf("%s: %s comes too early: %v", id, name, line)
		default:
			last = at.AsTime()
		}
		delete(moments, name)
	}
	for name, at := range moments {
		if at != nil {
			w.t.Errorf("%s: %s is set: %v", id, name, line)
		}
	}
	if p.GetPlannedAt() == nil {
		w.t.Errorf("%s: it is not known when it was planned", id)
	}
	return line
}

func TestTimelineOfEachMode(t *testing.T) {
	none := func(spec *writv1.GroupSpec) {}
	t.Run("switchover and failback", func(t *testing.T) {
		w := newOrders(t, none)
		there := w.begun(writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, "us", nil)
		w.pass(10 * time.Second)
		line := w.wantTimeline(there, "decided", "fenced", "serving")
		if took := line.GetServing().AsTime().Sub(line.GetDecided().AsTime()); line.GetTimeToHealthy().AsDuration() != took {
			t.Errorf("time to healthy is %v, want %v from when it was decided", line.GetTimeToHealthy().AsDuration(), took)
		}
		back := w.begun(writv1.PromotionMode_PROMOTION_MODE_FAILBACK, "", nil)
		w.pass(10 * time.Second)
		w.wantTimeline(back, "decided", "fenced", "serving")
	})
	t.Run("failover", func(t *testing.T) {
		w := newOrders(t, none)
		w.agents["eu"].dead = true
		w.pass(5 * time.Second)
		noticed := w.moment().Wall.Add(-3 * time.Second)
		p := w.must("ops", &writv1.PlanRequest{
			Group: "orders", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER, LossCap: &writv1.Loss{}, DetectedAt: timestamppb.New(noticed),
		}).(*writv1.Promotion)
		w.pass(time.Second)
		w.must("ops", &writv1.AcknowledgeRequest{Id: p.Id})
		w.pass(time.Second)
		if err := w.sign(p.Id); err != nil {
			t.Fatal(err)
		}
		w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
		w.pass(20 * time.Second)
		line := w.wantTimeline(p.Id, "detected", "acknowledged", "decided", "fenced", "serving")
		if !line.GetDetected().AsTime().Equal(noticed) || line.GetTimeToHealthy().AsDuration() != line.GetServing().AsTime().Sub(noticed) {
			t.Errorf("it does not count from when it was noticed, %v: %v", noticed, line)
		}
		again := line.GetAcknowledged()
		w.must("ops", &writv1.AcknowledgeRequest{Id: p.Id})
		if got := w.promotions[p.Id].GetTimeline().GetAcknowledged(); !got.AsTime().Equal(again.AsTime()) {
			t.Errorf("acknowledged again: %v, was %v", got, again)
		}
		w.agents["eu"].dead = false
		w.pass(5 * time.Second)
		settle := w.must("ops", &writv1.ReinstateRequest{Id: p.Id, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED}).(*writv1.Operation)
		if err := w.sign(settle.Id); err != nil {
			t.Fatal(err)
		}
		w.must("ops", &writv1.ExecuteOperationRequest{Id: settle.Id})
		w.pass(10 * time.Second)
		w.wantTimeline(p.Id, "detected", "acknowledged", "decided", "fenced", "serving", "reconciled")
	})
	t.Run("recover", func(t *testing.T) {
		w := newOrders(t, none)
		w.rebuild()
		w.pass(30 * time.Second)
		id := w.begun(writv1.PromotionMode_PROMOTION_MODE_RECOVER, "us", &writv1.Loss{})
		w.pass(30 * time.Second)
		w.wantTimeline(id, "decided", "fenced", "serving")
	})
	t.Run("rolled back", func(t *testing.T) {
		w := newOrders(t, none)
		w.agents["us"].silent[writv1.HookKind_HOOK_KIND_PROMOTE] = true
		id := w.begun(writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, "us", nil)
		w.pass(5 * time.Second)
		w.must("ops", &writv1.AbortRequest{Id: id})
		w.pass(20 * time.Second)
		w.wantTimeline(id, "decided", "fenced") // nobody served who had not before
	})
}

// What an agent is asked for is a part of the state that asks for it.
func TestTasksBelongToTheTrace(t *testing.T) {
	w := newOrders(t, nil)
	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	id := w.begun(writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, "us", nil)
	if _, _, _, ok := TraceContext(w.promotions[id].GetTraceparent()); !ok {
		t.Errorf("a promotion without a caller's trace has %q", w.promotions[id].GetTraceparent())
	}
	w.pass(10 * time.Second)
	w.last++
	w.machineAsks = append(w.machineAsks, Request{ID: w.last, Intake: w.now, Command: Command{Traceparent: caller, Ask: &writv1.PlanRequest{
		Group: "orders", To: "eu", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER}}})
	w.machineAsks[len(w.machineAsks)-1].Command.Principal = "ops"
	w.settle()
	for other, p := range w.promotions {
		if other != id && p.GetTraceparent() != caller {
			t.Errorf("the caller's trace became %q", p.GetTraceparent())
		}
	}
	if len(w.promotions) != 2 {
		t.Errorf("%d promotions", len(w.promotions))
	}
}
