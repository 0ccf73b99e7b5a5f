package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Call is a call that somebody made.
type Call struct {
	ID               uint64
	Round            int // 0: before the first
	Workload, Client string
	Op               string
	Value            json.RawMessage // as it was made
	At               time.Duration   // before it was made
	// Returned is after its answer was there. Outcome is [Unknown] if there is none, and Open is true then.
	Returned time.Duration
	Outcome  Outcome
	Result   json.RawMessage // with the answer
	Open     bool
}

// Event is something that a process said.
type Event struct {
	At               time.Duration
	Round            int
	Workload, Client string
	Op               string
	Value            json.RawMessage
}

// Round is a time in which some nemeses did harm.
type Round struct {
	Number  int
	Nemeses []string
	Began   time.Duration
	// Healed is when every fault of it was over; 0: that is not known.
	Healed time.Duration
}

// Fault is harm that was done.
type Fault struct {
	ID              uint64
	Round           int
	Nemesis, Detail string
	Began           time.Duration
	// Ended is 0 if that is not known.
	Ended time.Duration
}

// History is a directory that was read.
type History struct {
	Dir    string
	Run    *Run
	Calls  []*Call // by when they were made
	Events []Event
	Rounds []Round
	Faults []Fault
	// Last is the latest time in the record.
	Last time.Duration
	// Torn: the last line of a file was cut short.
	Torn bool

	byWorkload map[string][]*Call
}

// Of returns the calls of a workload, by when they were made.
func (h *History) Of(workload string) []*Call { return h.byWorkload[workload] }

// Complete tells whether the run came to its end, so that what is not in the record did not happen.
func (h *History) Complete() bool { return h.Run.Ended && !h.Torn }

// maxLine bounds a line, in bytes.
const maxLine = 16 << 20

// Read reads a directory.
func Read(dir string) (*History, error) {
	data, err := os.ReadFile(filepath.Join(dir, RunFile))
	if err != nil {
		return nil, err
	}
	run, err := ParseRun(data)
	if err != nil {
		return nil, err
	}
	h := &History{Dir: dir, Run: run, byWorkload: make(map[string][]*Call)}
	calls, faults := make(map[uint64]*Call), make(map[uint64]int)
	for _, file := range []struct {
		name string
		take func([]byte) (time.Duration, error)
	}{
		{HistoryFile, func(line []byte) (time.Duration, error) { return h.takeHistory(line, calls) }},
		{FaultsFile, func(line []byte) (time.Duration, error) { return h.takeFault(line, faults) }},
	} {
		f, err := os.Open(filepath.Join(dir, file.name))
		if err != nil {
			return nil, err
		}
		err = h.lines(f, file.name, file.take)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// lines reads a file whose times must not decrease.
func (h *History) lines(r io.Reader, name string, take func([]byte) (time.Duration, error)) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	var last time.Duration
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			if len(line) > 0 {
				h.Torn = true
			}
			return nil
		case err != nil:
			return fmt.Errorf("record: %s: %w", name, err)
		case len(line) > maxLine:
			return fmt.Errorf("record: %s:%d: %d bytes: %d is the most", name, n, len(line), maxLine)
		}
		at, err := take(line)
		if err == nil && at < last {
			err = fieldError{"at", fmt.Sprintf("is %d, after %d: times never decrease", at, last)}
		}
		if err != nil {
			return fmt.Errorf("record: %s:%d: %w", name, n, err)
		}
		last = at
		h.Last = max(h.Last, at)
	}
}

func (h *History) takeHistory(line []byte, calls map[uint64]*Call) (time.Duration, error) {
	var l historyLine
	if err := strict(line, &l); err != nil {
		return 0, err
	}
	if err := l.validate(); err != nil {
		return 0, err
	}
	known := calls[l.ID]
	switch {
	case l.What == whatEvent:
		h.Events = append(h.Events, Event{l.At, l.Round, l.Workload, l.Client, l.Op, l.Value})
	case l.What == whatCall && known != nil:
		return 0, fieldError{"id", fmt.Sprintf("is %d again: each call has its own", l.ID)}
	case l.What == whatCall:
		c := &Call{
			ID: l.ID, Round: l.Round, Workload: l.Workload, Client: l.Client, Op: l.Op, Value: l.Value, At: l.At,
			Outcome: Unknown, Open: true,
		}
		calls[l.ID] = c
		h.Calls = append(h.Calls, c)
		h.byWorkload[c.Workload] = append(h.byWorkload[c.Workload], c)
	case known == nil || !known.Open:
		return 0, fieldError{"id", fmt.Sprintf("is %d: no such call is open", l.ID)}
	default:
		known.Returned, known.Outcome, known.Result, known.Open = l.At, l.Outcome, l.Value, false
	}
	return l.At, nil
}

func (h *History) takeFault(line []byte, faults map[uint64]int) (time.Duration, error) {
	var l faultLine
	if err := strict(line, &l); err != nil {
		return 0, err
	}
	if err := l.validate(); err != nil {
		return 0, err
	}
	i, known := faults[l.ID]
	switch l.What {
	case whatRound:
		if want := len(h.Rounds) + 1; l.Round != want {
			return 0, fieldError{"round", fmt.Sprintf("is %d: %d comes next", l.Round, want)}
		}
		h.Rounds = append(h.Rounds, Round{Number: l.Round, Nemeses: l.Nemeses, Began: l.At})
	case whatHealed:
		if l.Round != len(h.Rounds) {
			return 0, fieldError{"round", fmt.Sprintf("is %d: %d is under way", l.Round, len(h.Rounds))}
		}
		h.Rounds[l.Round-1].Healed = l.At
	case whatBegin:
		if known {
			return 0, fieldError{"id", fmt.Sprintf("is %d again: each fault has its own", l.ID)}
		}
		faults[l.ID] = len(h.Faults)
		h.Faults = append(h.Faults, Fault{ID: l.ID, Round: len(h.Rounds), Nemesis: l.Nemesis, Detail: l.Detail, Began: l.At})
	case whatEnd:
		if !known || h.Faults[i].Ended != 0 {
			return 0, fieldError{"id", fmt.Sprintf("is %d: no such fault is under way", l.ID)}
		}
		h.Faults[i].Ended = l.At
	}
	return l.At, nil
}

// RoundAt returns the number of the round that a time is in: 0 before the first.
func (h *History) RoundAt(at time.Duration) int {
	n := 0
	for _, r := range h.Rounds {
		if r.Began <= at {
			n = r.Number
		}
	}
	return n
}

// Decode reads the value of a call or an event into v, strictly.
func Decode(value json.RawMessage, v any) error { return strict(value, v) }
