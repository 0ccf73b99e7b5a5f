package slots

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/singleton/cron"
)

// Violation says how a job broke a promise.
type Violation string

// The violations.
const (
	Missed  Violation = "missed"        // a slot has no effect
	Twice   Violation = "twice"         // a slot has two
	Late    Violation = "late"          // its effect came after the window
	Overlap Violation = "two at a time" // another run was accepted between the beginning of a run and its effect
	Stale   Violation = "stale"         // something was accepted under an older token after something under a newer one
	Unasked Violation = "unasked"       // an effect for what is no slot
)

// Finding is a violation, with the slot.
type Finding struct {
	What Violation
	ID   string
	// Row is the index of the row that shows it; the number of rows if the end does.
	Row int
}

func (f Finding) String() string { return fmt.Sprintf("row %d: %s: %s", f.Row, f.ID, f.What) }

// Check holds the rows of one job to what is promised: of every slot from the first to the last, both included, exactly
// one effect, within the window and a little; never two at a time; and never anything under an older token.
func Check(job string, rows []Effect, first, last time.Time) (found []Finding) {
	at := 0
	accuse := func(what Violation, id string) { found = append(found, Finding{what, id, at}) }
	effects := make(map[string]int)
	var before Effect
	for i, row := range rows {
		at = i
		if row.Token < before.Token {
			accuse(Stale, row.ID)
		}
		if row.Kind == Ended {
			if before.Kind != Began || before.Run != row.Run || before.ID != row.ID || before.Token != row.Token {
				accuse(Overlap, row.ID)
			}
			if effects[row.ID]++; effects[row.ID] == 2 {
				accuse(Twice, row.ID)
			}
			switch slot, err := slotOf(job, row.ID); {
			case err != nil || !slot.Equal(slot.Truncate(Every)) || slot.Before(first):
				accuse(Unasked, row.ID)
			case row.At.Sub(slot) > Window+cron.Punctual:
				accuse(Late, row.ID)
			}
		}
		before = row
	}
	at = len(rows)
	for slot := first; !slot.After(last); slot = slot.Add(Every) {
		if id := cron.SlotID(job, slot); effects[id] == 0 {
			accuse(Missed, id)
		}
	}
	return found
}

// slotOf returns the slot that an id names.
func slotOf(job, id string) (time.Time, error) {
	text, ok := strings.CutPrefix(id, job+"@")
	if !ok {
		return time.Time{}, fmt.Errorf("%q is no slot of %s", id, job)
	}
	return time.Parse(time.RFC3339, text)
}

// Span returns the first slot that any row names, and the last that has an effect.
func Span(job string, rows []Effect) (first, last time.Time) {
	for _, row := range rows {
		slot, err := slotOf(job, row.ID)
		if err != nil {
			continue // the judge says so
		}
		if first.IsZero() || slot.Before(first) {
			first = slot
		}
		if row.Kind == Ended && slot.After(last) {
			last = slot
		}
	}
	return first, last
}

// Count counts effects, runs that were not the first of their slot, and changes of the token.
func Count(rows []Effect) (ended, again, takeovers int) {
	for i, row := range rows {
		switch {
		case row.Kind == Ended:
			ended++
		case row.Attempt > 1:
			again++
		}
		if i > 0 && row.Token > rows[i-1].Token {
			takeovers++
		}
	}
	return ended, again, takeovers
}

// Doubled tells whether an effect happened twice, two runs were at work at a time, and something late was accepted.
func Doubled(found []Finding) bool {
	has := func(what Violation) bool {
		return slices.ContainsFunc(found, func(f Finding) bool { return f.What == what })
	}
	return has(Twice) && has(Overlap) && has(Stale)
}
