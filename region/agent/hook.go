package agent

import (
	"context"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Hook does one thing that a promotion asks for.
type Hook interface {
	// Run does it. An error means that it failed, or timed out if ctx has ended by its deadline; what is in the outcome is
	// reported all the same. When Run has returned, nothing of it goes on.
	Run(ctx context.Context, task *writv1.Task) (Outcome, error)
	// Idempotent reports whether it may be run again after an end that nobody saw.
	Idempotent() bool
}

// Outcome is what a hook has to say.
type Outcome struct {
	// Output is for people; its last 4 KiB are kept.
	Output string
	// Position is how far the data has got; nil: it says nothing of that.
	Position *writv1.Position
	// Entries are what was lost, as reinstating found it.
	Entries []string
}

// Ran is a hook that has run.
type Ran struct {
	// Traceparent is the W3C trace context of what asked for it, and Span the id of the run itself within that.
	Traceparent, Span string
	Task              *writv1.Task
	Result            *writv1.TaskResult
	Ended             time.Time
}

// Bounds of what is reported.
const (
	maxOutputBytes = 4096
	maxEntries     = 64
	maxEntryBytes  = 256
)

// traceVariable is the name that is usual for a trace context in the environment.
const traceVariable = "TRACEPARENT"

// Variables are what a hook is told, by the names of its environment.
func Variables(t *writv1.Task) map[string]string {
	v := map[string]string{
		"WRIT_GROUP":     t.GetGroup(),
		"WRIT_RESOURCE":  t.GetResource(),
		"WRIT_PROMOTION": t.GetPromotion(),
		"WRIT_STEP":      strconv.FormatUint(t.GetStep(), 10),
		"WRIT_TERM":      strconv.FormatInt(t.GetTerm(), 10),
		"WRIT_KIND":      kindName(t.GetKind()),
		"WRIT_FROM":      t.GetFrom(),
		"WRIT_TO":        t.GetTo(),
		"WRIT_MODE":      strings.ToLower(strings.TrimPrefix(t.GetMode().String(), "PROMOTION_MODE_")),
		"WRIT_TOKEN":     strconv.FormatUint(t.GetToken(), 10),
		"WRIT_OLD_TOKEN": strconv.FormatUint(t.GetOldToken(), 10),
		"WRIT_WRIT":      t.GetWrit(),
		"WRIT_OLD_WRIT":  t.GetOldWrit(),
		"WRIT_PERCENT":   strconv.FormatUint(uint64(t.GetPercent()), 10),
		"WRIT_POSITION":  t.GetPosition().GetText(),
	}
	if t.GetTraceparent() != "" {
		v[traceVariable] = t.GetTraceparent()
	}
	if v["WRIT_POSITION"] == "" && t.GetPosition() != nil {
		v["WRIT_POSITION"] = strconv.FormatUint(t.GetPosition().GetBytes(), 10)
	}
	return v
}

// KindOf is the hook of a name; false if there is none.
func KindOf(name string) (writv1.HookKind, bool) {
	k, ok := writv1.HookKind_value["HOOK_KIND_"+strings.ToUpper(name)]
	return writv1.HookKind(k), ok && k != 0 && name == strings.ToLower(name)
}

// clip keeps the end of a text, as valid UTF-8 of at most so many bytes.
func clip(text string, most int) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	for len(text) > 0 && !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return text
}

// clipEntries keeps what may be reported, and says how many there are besides.
func clipEntries(entries []string) []string {
	var kept []string
	for i, e := range entries {
		if i == maxEntries-1 && len(entries) > maxEntries {
			return append(kept, "and "+strconv.Itoa(len(entries)-i)+" more")
		}
		e = strings.ToValidUTF8(e, "?")
		for len(e) > maxEntryBytes {
			_, size := utf8.DecodeLastRuneInString(e)
			e = e[:len(e)-size]
		}
		kept = append(kept, e)
	}
	return kept
}
