//writ:core

package cron

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/lease"
)

// encoder writes the states of one term, one after the other, as [State.Encode] does. It remembers what it made of the
// history, which is most of a state, and of which each claim and each outcome changes one record at most.
//
// Invariant: text is that of records, each followed by a comma, and ends where each of them ends.
type encoder struct {
	fixed State  // what begin was made of
	begin []byte // the fields before the cursor

	records []Record
	text    []byte
	ends    []int
}

// encode returns what s.Encode does.
func (e *encoder) encode(s State) []byte {
	history := s.History
	if len(history) == 0 {
		return s.Encode()
	}
	e.follow(history)
	e.settle(s)
	rest := encoded(stateRest{s.Cursor, s.Running, s.Backlog, s.Handled})
	const before, after = `,"history":[`, `]}`
	size := len(e.begin) + len(rest) + len(before) + len(e.text) + len(after)
	if size > lease.MaxCheckpointBytes+3 { // the pieces overlap by a brace each, and a comma
		return s.Encode()
	}
	data := make([]byte, 0, size)
	data = append(append(data, e.begin...), rest[1:len(rest)-1]...)
	data = append(append(data, before...), e.text[:len(e.text)-1]...)
	return append(data, after...)
}

// stateRest is what follows in a State after what is the same in most of them, and before the history.
type stateRest struct {
	Cursor  time.Time `json:"cursor"`
	Running *Claim    `json:"running,omitempty"`
	Backlog []Slot    `json:"backlog,omitempty"`
	Handled []string  `json:"handled,omitempty"`
}

// settle writes what is the same in most states, if it is not.
func (e *encoder) settle(s State) {
	type stateBegin struct {
		Version int    `json:"version"`
		Job     string `json:"job"`
		Spec    string `json:"spec"`
		Zone    string `json:"zone"`
		Policy  Policy `json:"policy"`
	}
	f := &e.fixed
	if e.begin != nil && f.Version == s.Version && f.Job == s.Job && f.Spec == s.Spec && f.Zone == s.Zone && f.Policy == s.Policy {
		return
	}
	*f = State{Version: s.Version, Job: s.Job, Spec: s.Spec, Zone: s.Zone, Policy: s.Policy}
	begin := encoded(stateBegin{s.Version, s.Job, s.Spec, s.Zone, s.Policy})
	begin[len(begin)-1] = ','
	e.begin = begin
}

// encoded is a part of a state as it stands in one.
func encoded(part any) []byte {
	data, err := json.Marshal(part)
	if err != nil {
		panic(fmt.Sprintf("cron: a state cannot be written: %v", err)) // as Encode does
	}
	return data
}

// follow takes in what has become of the history: it has more records than before, fewer of the oldest, and the last one may
// have changed.
func (e *encoder) follow(history []Record) {
	gone, known := e.overlap(history)
	if gone+known < len(e.records) {
		e.records, e.ends = e.records[:gone+known], e.ends[:gone+known]
		e.text = e.text[:e.start(gone+known)]
	}
	if gone > 0 {
		cut := e.start(gone)
		e.records, e.text, e.ends = slices.Delete(e.records, 0, gone), slices.Delete(e.text, 0, cut), slices.Delete(e.ends, 0, gone)
		for i := range e.ends {
			e.ends[i] -= cut
		}
	}
	for _, r := range history[known:] {
		e.text = append(append(e.text, encoded(r)...), ',')
		e.records, e.ends = append(e.records, r), append(e.ends, len(e.text))
	}
}

// start is where the text of a record begins.
func (e *encoder) start(i int) int {
	if i == 0 {
		return 0
	}
	return e.ends[i-1]
}

// overlap tells how many of the oldest records are gone, and how many after these the history begins with. It may miss that
// some are the same, and never takes others for the same.
func (e *encoder) overlap(history []Record) (gone, known int) {
	for gone := range e.records {
		rest := e.records[gone:]
		for known = 0; known < min(len(rest), len(history)) && rest[known] == history[known]; {
			known++
		}
		if known > 0 && known >= len(rest)-1 {
			return gone, known
		}
	}
	return len(e.records), 0
}
