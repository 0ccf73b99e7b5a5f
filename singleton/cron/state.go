//writ:core

package cron

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/writ-io/writ/lease"
)

// StateVersion is the version of the document that this package writes, and the only one that it reads.
const StateVersion = 1

const (
	// HistoryLength is how many records a state keeps.
	HistoryLength = 20
	maxText       = 200 // bytes of an error or a holder in a record
)

// State is what is known of a job: the checkpoint of its resource. The next slots are not part of it: they follow from the
// spec and the cursor.
type State struct {
	Version int    `json:"version"`
	Job     string `json:"job"`
	Spec    string `json:"spec"`
	Zone    string `json:"zone"`
	Policy  Policy `json:"policy"`
	// Cursor: every slot up to here has been run, is waiting in the backlog, or has been disposed of.
	Cursor time.Time `json:"cursor"`
	// Running was claimed and has no outcome: it runs, or its holder died.
	Running *Claim `json:"running,omitempty"`
	// Backlog are slots that wait for their turn, the oldest first.
	Backlog []Slot `json:"backlog,omitempty"`
	// Handled are the triggers of the control document that were claimed or have lapsed.
	Handled []string `json:"handled,omitempty"`
	// History are the last slots, the oldest first.
	History []Record `json:"history,omitempty"`
}

// Slot is an instant at which a job is due.
type Slot struct {
	At time.Time `json:"at"`
	// Missed is how many slots before it were missed and skipped, counted up to 1,000.
	Missed int `json:"missed,omitempty"`
}

// Claim is a run that was claimed.
type Claim struct {
	ID   string    `json:"id"`
	Slot time.Time `json:"slot"` // of a manual run: when it was triggered
	// Manual: somebody triggered it, who is By.
	Manual    bool      `json:"manual,omitempty"`
	By        string    `json:"by,omitempty"`
	Attempt   int       `json:"attempt"` // from 1
	Missed    int       `json:"missed,omitempty"`
	ClaimedAt time.Time `json:"claimed_at"`
	Holder    string    `json:"holder"`
	Token     uint64    `json:"token,string"`
}

// Outcome says what became of a slot.
type Outcome string

// The outcomes.
const (
	Done      Outcome = "done"      // the function returned nil
	Failed    Outcome = "failed"    // it returned an error
	Panicked  Outcome = "panicked"  // it panicked, or ended its goroutine
	Cancelled Outcome = "cancelled" // the next slot cancelled it
	Skipped   Outcome = "skipped"   // it was not run, for Reason
	Abandoned Outcome = "abandoned" // a holder died, and it is not run again, for Reason
)

// Record is what became of a slot, or of several one after the other that were skipped for one reason.
type Record struct {
	ID      string    `json:"id,omitempty"` // empty: it was never claimed
	Slot    time.Time `json:"slot"`
	Manual  bool      `json:"manual,omitempty"`
	By      string    `json:"by,omitempty"`
	Outcome Outcome   `json:"outcome"`
	// Reason is why it was skipped or abandoned, or the function's error.
	Reason string `json:"reason,omitempty"`
	// Count is of how many slots the record tells, up to 1,000, and Last the last of them; 0 stands for one.
	Count      int        `json:"count,omitempty"`
	Last       *time.Time `json:"last,omitempty"`
	Attempt    int        `json:"attempt,omitempty"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	DurationMs int64      `json:"duration_ms,omitempty"`
	Holder     string     `json:"holder,omitempty"`
	Token      uint64     `json:"token,string,omitempty"`
}

// ParseState reads a state. Errors: INVALID for the field "state", also where the checkpoint is not that of a job.
func ParseState(data []byte) (State, error) {
	var head struct {
		Version *int `json:"version"`
	}
	const fix = "use a resource that nothing else stores checkpoints for"
	if err := json.Unmarshal(data, &head); err != nil || head.Version == nil {
		return State{}, lease.Invalid("state", "is not that of a cron job", fix)
	}
	if *head.Version != StateVersion {
		return State{}, lease.Invalid("state", fmt.Sprintf("has version %d, and this program knows %d", *head.Version, StateVersion),
			"upgrade this program; the state was left as it is")
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, lease.Invalid("state", "cannot be read: "+clip(err.Error()), fix)
	}
	if problem := s.problem(); problem != "" {
		return State{}, lease.Invalid("state", problem, fix)
	}
	return s, nil
}

func (s *State) problem() string {
	if _, err := lease.ParseResource(s.Job); err != nil {
		return "names a job that cannot be"
	}
	switch {
	case len(s.Backlog) > MaxBacklog:
		return fmt.Sprintf("has %d slots that wait", len(s.Backlog))
	case len(s.Handled) > MaxTriggers:
		return fmt.Sprintf("has %d triggers", len(s.Handled))
	case len(s.History) > HistoryLength:
		return fmt.Sprintf("has %d records", len(s.History))
	case s.Running != nil && (s.Running.ID == "" || s.Running.Attempt < 1 || s.Running.Attempt > MaxMaxAttempts):
		return "has a run without an id or attempt"
	}
	times := []time.Time{s.Cursor}
	if s.Running != nil {
		times = append(times, s.Running.Slot, s.Running.ClaimedAt)
	}
	for _, at := range times {
		if !writable(at) {
			return "has a time in a year that cannot be written"
		}
	}
	for i, slot := range s.Backlog {
		if !writable(slot.At) {
			return "has a slot in a year that cannot be written"
		}
		if i > 0 && !slot.At.After(s.Backlog[i-1].At) {
			return "has slots out of order"
		}
	}
	return ""
}

// writable tells whether a time can be written in UTC.
func writable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 0 && year <= 9999
}

// Encode writes a state, within what a checkpoint may hold: old records go where it would be too large.
func (s State) Encode() []byte {
	for {
		data, err := json.Marshal(s)
		if err != nil {
			panic(fmt.Sprintf("cron: a state cannot be written: %v", err)) // years beyond 9999, which schedules do not have
		}
		if len(data) <= lease.MaxCheckpointBytes || len(s.History) == 0 {
			return data
		}
		s.History = s.History[1:]
	}
}

// record appends to the history, which forgets its oldest.
func (s *State) record(r Record) {
	r.Reason, r.Holder, r.By = clip(r.Reason), clip(r.Holder), clip(r.By)
	if n := len(s.History); n > 0 && r.Outcome == Skipped && !r.Manual {
		last := &s.History[n-1]
		if last.Outcome == Skipped && !last.Manual && last.Reason == r.Reason {
			last.merge(r)
			return
		}
	}
	s.History = append(s.History, r)
	if extra := len(s.History) - HistoryLength; extra > 0 {
		s.History = append([]Record(nil), s.History[extra:]...)
	}
}

// merge makes one record of two that follow each other.
func (r *Record) merge(next Record) {
	r.Count = min(max(r.Count, 1)+max(next.Count, 1), countLimit)
	last := next.Slot
	if next.Last != nil {
		last = *next.Last
	}
	r.Last = &last
}

// clip bounds a text that comes from elsewhere.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxText {
		return text
	}
	cut := maxText - len("…")
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
