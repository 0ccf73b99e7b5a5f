package region

import (
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

func TestTraceContext(t *testing.T) {
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	good := "00-" + trace + "-" + span + "-01"
	if gotTrace, gotSpan, sampled, ok := TraceContext(good); gotTrace != trace || gotSpan != span || !sampled || !ok {
		t.Error(gotTrace, gotSpan, sampled, ok)
	}
	if _, _, sampled, ok := TraceContext("00-" + trace + "-" + span + "-00"); sampled || !ok {
		t.Error("not sampled:", sampled, ok)
	}
	for _, bad := range []string{
		"", "x", good + "-", "01" + good[2:], good[:len(good)-1], "00-" + trace + "-0000000000000000-01", "00-00000000000000000000000000000000-" + span + "-01",
		"00-0AF7651916cd43dd8448eb211c80319c-" + span + "-01", "00-" + trace + "-" + span + "-0g", "00-" + trace + "0-" + span + "-01",
	} {
		if _, _, _, ok := TraceContext(bad); ok || WithSpan(bad, span) != "" {
			t.Errorf("%q is taken", bad)
		}
	}
	if got := WithSpan(good, "1111111111111111"); got != "00-"+trace+"-1111111111111111-01" {
		t.Error(got)
	}
}

// Ids are names: the same for everybody, and others for other things.
func TestSpansHaveIDsOfTheirOwn(t *testing.T) {
	seen := map[string]bool{PromotionSpan("orders-1.1"): true, PromotionSpan("orders-1.2"): true}
	for state := range writv1.PromotionState_name {
		seen[StateSpan("orders-1.1", writv1.PromotionState(state))] = true
	}
	if want := len(writv1.PromotionState_name) + 2; len(seen) != want {
		t.Errorf("%d ids for %d spans", len(seen), want)
	}
	for id := range seen {
		if !isID(id, spanDigits) {
			t.Errorf("%q is no id", id)
		}
	}
	p := &writv1.Promotion{Id: "orders-1.1", State: fencing, Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	if _, span, _, _ := TraceContext(PresentSpan(p)); span != StateSpan(p.Id, fencing) {
		t.Error(PresentSpan(p))
	}
	p.State = done
	if _, span, _, _ := TraceContext(PresentSpan(p)); span != PromotionSpan(p.Id) {
		t.Error(PresentSpan(p))
	}
	x := &Machine{}
	if own := x.traceOf("orders-1.1", "nonsense"); own != x.traceOf("orders-1.1", "") || own == x.traceOf("orders-1.2", "") {
		t.Error(own)
	} else if _, span, sampled, ok := TraceContext(own); !ok || !sampled || span != PromotionSpan("orders-1.1") {
		t.Error(own)
	}
}
