package tracing

import (
	"strconv"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/region/agent"
)

// Raises answers what a guard of that name and region tells of its raises; of a nil Tracer: nil.
func (t *Tracer) Raises(name, region string) func(guard.Raised) {
	if t == nil {
		return nil
	}
	return func(r guard.Raised) {
		t.Send(Span{
			Traceparent: r.Traceparent, Name: "guard raise", Start: r.Ended.Add(-r.Took), End: r.Ended,
			Attributes: map[string]string{
				"writ.guard": name, "writ.region": region, "writ.resource": r.Resource, "writ.token": r.Token.String(),
				"writ.proof": lower(r.Proof.String(), "GUARD_PROOF_"), "writ.drain": r.Took.String(),
			},
		})
	}
}

// Hooks answers what an agent of that name and region tells of its hooks; of a nil Tracer: nil.
func (t *Tracer) Hooks(name, region string) func(agent.Ran) {
	if t == nil {
		return nil
	}
	return func(r agent.Ran) {
		s := Span{
			Traceparent: r.Traceparent, ID: r.Span, Name: "hook " + lower(r.Task.GetKind().String(), "HOOK_KIND_"),
			Start: r.Ended.Add(-r.Result.GetTook().AsDuration()), End: r.Ended,
			Attributes: map[string]string{
				"writ.agent": name, "writ.region": region, "writ.group": r.Task.GetGroup(), "writ.promotion": r.Task.GetPromotion(),
				"writ.step": strconv.FormatUint(r.Task.GetStep(), 10), "writ.token": tokenText(r.Task.GetToken()),
				"writ.outcome": lower(r.Result.GetOutcome().String(), "HOOK_OUTCOME_"),
			},
		}
		if r.Task.GetKind() == writv1.HookKind_HOOK_KIND_SHIFT {
			s.Attributes["writ.percent"] = strconv.FormatUint(uint64(r.Task.GetPercent()), 10)
		}
		if r.Result.GetOutcome() != writv1.HookOutcome_HOOK_OUTCOME_DONE {
			s.Failure = lower(r.Result.GetOutcome().String(), "HOOK_OUTCOME_")
		}
		t.Send(s)
	}
}

func tokenText(token uint64) string {
	if token == 0 {
		return ""
	}
	return fence.Token(token).String()
}
