//writ:core

package region

import (
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

// One promotion is one trace. Its context goes with the record, and the ids of spans are made of what they are of, so that
// every node knows them without being told, and two that tell of the same one tell the same.

// Sizes in a W3C trace context: 00-<trace>-<span>-<flags>, in lower-case hexadecimal.
const (
	traceDigits = 32
	spanDigits  = 16
)

// TraceContext takes a W3C trace context apart; false if it is none.
func TraceContext(traceparent string) (trace, span string, sampled, ok bool) {
	parts := strings.Split(traceparent, "-")
	if len(parts) != 4 || parts[0] != "00" || !isID(parts[1], traceDigits) || !isID(parts[2], spanDigits) || !isHex(parts[3], 2) {
		return "", "", false, false
	}
	return parts[1], parts[2], strings.ContainsRune("13579bdf", rune(parts[3][1])), true
}

func isID(s string, digits int) bool { return isHex(s, digits) && strings.Trim(s, "0") != "" }

func isHex(s string, digits int) bool {
	return len(s) == digits && strings.Trim(s, "0123456789abcdef") == ""
}

// SpanID is the id of what parts name.
func SpanID(parts ...string) string {
	return "1" + approval.Digest([]byte(strings.Join(parts, "\x00")))[:spanDigits-1] // never all zeros
}

// WithSpan is the context of a part of a trace; empty if traceparent is none.
func WithSpan(traceparent, span string) string {
	trace, _, _, ok := TraceContext(traceparent)
	if !ok {
		return ""
	}
	return "00-" + trace + "-" + span + traceparent[len(traceparent)-3:]
}

// PromotionSpan is the id of the span that a whole promotion is.
func PromotionSpan(id string) string { return SpanID(id) }

// StateSpan is the id of the span that a promotion's stay in a state is. It enters no state twice.
func StateSpan(id string, state writv1.PromotionState) string { return SpanID(id, stateName(state)) }

// PresentSpan is the context for what a promotion has others do in its present state; empty if it has none.
func PresentSpan(p *writv1.Promotion) string {
	if PromotionEnded(p.State) {
		return WithSpan(p.Traceparent, PromotionSpan(p.Id))
	}
	return WithSpan(p.Traceparent, StateSpan(p.Id, p.State))
}

// traceOf is the context of a new promotion: the caller's, or a trace of its own, which begins with the promotion's span.
func (x *Machine) traceOf(id, caller string) string {
	if _, _, _, ok := TraceContext(caller); ok {
		return caller
	}
	return "00-" + approval.Digest([]byte(x.config.Cluster + "\x00" + x.config.Incarnation + "\x00" + id))[:traceDigits] + "-" + PromotionSpan(id) + "-01"
}
