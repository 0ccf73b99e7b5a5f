package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// Outcome is what is known of a call.
type Outcome string

// The outcomes.
const (
	// OK: it had its effect.
	OK Outcome = "ok"
	// Fail: it had none, and never will.
	Fail Outcome = "fail"
	// Unknown: it may have had its effect, may have it yet, or never.
	Unknown Outcome = "unknown"
)

// historyLine is a line of history.jsonl. What "call" and "event" say of who does what, "return" does not repeat.
type historyLine struct {
	At       time.Duration   `json:"at"`
	What     string          `json:"what"` // call, return or event
	ID       uint64          `json:"id,omitempty"`
	Round    int             `json:"round,omitempty"`
	Workload string          `json:"workload,omitempty"`
	Client   string          `json:"client,omitempty"`
	Op       string          `json:"op,omitempty"`
	Outcome  Outcome         `json:"outcome,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
}

// The values of historyLine.What, and those of faultLine.What.
const (
	whatCall   = "call"
	whatReturn = "return"
	whatEvent  = "event"

	whatRound  = "round"
	whatBegin  = "begin"
	whatEnd    = "end"
	whatHealed = "healed"
)

func (l *historyLine) validate() error {
	if l.At < 0 {
		return fieldError{"at", fmt.Sprintf("is %d: give nanoseconds since the start", l.At)}
	}
	named := l.Workload != "" && l.Client != "" && l.Op != ""
	switch l.What {
	case whatCall, whatEvent:
		switch {
		case !named:
			return fieldError{"workload", "or client or op is missing: a " + l.What + " has all three"}
		case l.Outcome != "":
			return fieldError{"outcome", "belongs to a return: leave it out"}
		case (l.ID == 0) != (l.What == whatEvent):
			return fieldError{"id", fmt.Sprintf("is %d: a call has one above 0, an event none", l.ID)}
		case l.Round < 0:
			return fieldError{"round", fmt.Sprintf("is %d: give 0 or more", l.Round)}
		}
	case whatReturn:
		switch {
		case l.ID == 0:
			return fieldError{"id", "is missing: give that of the call"}
		case l.Outcome != OK && l.Outcome != Fail && l.Outcome != Unknown:
			return fieldError{"outcome", fmt.Sprintf("is %q: give %s, %s or %s", l.Outcome, OK, Fail, Unknown)}
		case l.Workload != "" || l.Client != "" || l.Op != "" || l.Round != 0:
			return fieldError{"workload", "or client, op or round is given: a return has what its call has"}
		}
	default:
		return fieldError{"what", fmt.Sprintf("is %q: give %s, %s or %s", l.What, whatCall, whatReturn, whatEvent)}
	}
	return nil
}

// faultLine is a line of faults.jsonl.
type faultLine struct {
	At      time.Duration `json:"at"`
	What    string        `json:"what"` // round, begin, end or healed
	Round   int           `json:"round,omitempty"`
	Nemeses []string      `json:"nemeses,omitempty"`
	ID      uint64        `json:"id,omitempty"`
	Nemesis string        `json:"nemesis,omitempty"`
	Detail  string        `json:"detail,omitempty"`
}

func (l *faultLine) validate() error {
	switch {
	case l.At < 0:
		return fieldError{"at", fmt.Sprintf("is %d: give nanoseconds since the start", l.At)}
	case l.What != whatRound && l.What != whatBegin && l.What != whatEnd && l.What != whatHealed:
		return fieldError{"what", fmt.Sprintf("is %q: give %s, %s, %s or %s", l.What, whatRound, whatBegin, whatEnd, whatHealed)}
	case (l.What == whatRound || l.What == whatHealed) != (l.Round > 0):
		return fieldError{"round", fmt.Sprintf("is %d: rounds count from 1, and stand in %s and %s", l.Round, whatRound, whatHealed)}
	case (l.What == whatBegin || l.What == whatEnd) != (l.ID > 0):
		return fieldError{"id", fmt.Sprintf("is %d: faults count from 1, in %s and %s", l.ID, whatBegin, whatEnd)}
	case (l.What == whatBegin) != (l.Nemesis != ""):
		return fieldError{"nemesis", fmt.Sprintf("is %q: a beginning names it, and nothing else does", l.Nemesis)}
	case l.Nemeses != nil && l.What != whatRound:
		return fieldError{"nemeses", "belongs to a round: leave it out"}
	}
	return nil
}
