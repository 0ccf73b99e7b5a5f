package cron

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/schedule"
)

func TestParseStateRefuses(t *testing.T) {
	for _, test := range []struct{ text, says string }{
		{"", "not that of a cron job"}, {"{}", "not that of a cron job"}, {"offset=7", "not that of a cron job"}, {"[1]", "not that of a cron job"},
		{`{"version":2}`, "version 2"}, {`{"version":0}`, "version 0"}, {`{"version":1,"cursor":7}`, "cannot be read"},
		{`{"version":1}`, "names a job"}, {`{"version":1,"job":"a//b"}`, "names a job"},
		{`{"version":1,"job":"j","running":{"id":"","attempt":1,"token":"1"}}`, "without an id"},
		{`{"version":1,"job":"j","running":{"id":"x","attempt":0,"token":"1"}}`, "without an id"},
		{`{"version":1,"job":"j","backlog":[{"at":"2026-01-02T00:00:00Z"},{"at":"2026-01-01T00:00:00Z"}]}`, "out of order"},
		{`{"version":1,"job":"j","cursor":"9999-12-31T23:59:59-01:00"}`, "a year that cannot"},
		{`{"version":1,"job":"j","backlog":[{"at":"9999-12-31T23:59:59-01:00"}]}`, "a year that cannot"},
		{`{"version":1,"job":"j","history":[` + strings.Repeat("{},", HistoryLength) + `{}]}`, "records"},
		{`{"version":1,"job":"j","handled":[` + strings.Repeat(`"",`, MaxTriggers) + `""]}`, "triggers"},
	} {
		_, err := ParseState([]byte(test.text))
		var invalid *lease.Error
		if !errors.As(err, &invalid) || invalid.Field != "state" || invalid.Fix == "" || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want that it %s", test.text, err, test.says)
		}
	}
}

func TestParseControlRefuses(t *testing.T) {
	for _, text := range []string{
		"{}", "x", `{"version":2}`, `{"version":1,"triggers":[{"id":""}]}`, `{"version":1,"triggers":[{"id":"a b"}]}`,
		`{"version":1,"triggers":[{"id":"a"},{"id":"a"}]}`, `{"version":1,"triggers":[` + strings.Repeat(`{"id":"x"},`, 20) + `{}]}`,
		`{"version":1,"pause":7}`,
	} {
		_, err := ParseControl([]byte(text))
		var invalid *lease.Error
		if !errors.As(err, &invalid) || invalid.Field != "control" || invalid.Fix == "" {
			t.Errorf("%s: %v", text, err)
		}
	}
	if c, err := ParseControl(nil); err != nil || c.Pause != nil || len(c.Triggers) != 0 {
		t.Errorf("nothing at all: %+v, %v", c, err)
	}
}

func TestTriggersAreBounded(t *testing.T) {
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var c Control
	var err error
	for i := range MaxTriggers {
		if c, err = c.WithTrigger(Trigger{ID: fmt.Sprint(i), At: at}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.WithTrigger(Trigger{ID: "more", At: at.Add(TriggerWindow)}); !errors.Is(err, lease.ErrLimit) {
		t.Errorf("one too many: %v", err)
	}
	if c, err = c.WithTrigger(Trigger{ID: "later", At: at.Add(TriggerWindow + time.Second)}); err != nil || len(c.Triggers) != 1 {
		t.Errorf("once the others have lapsed: %+v, %v", c, err)
	}
}

// The largest state that can come about fits into a checkpoint, and loses records rather than what counts.
func TestStateFits(t *testing.T) {
	job := strings.Repeat("<", 500)
	long := strings.Repeat("\x01", 10_000)
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	s := State{Version: StateVersion, Job: job, Spec: strings.Repeat("*", 256), Cursor: at}
	for i := range 3 * HistoryLength {
		s.record(Record{ID: SlotID(job, at), Slot: at, By: long, Outcome: Failed, Reason: long, Holder: long, Attempt: i + 1, Token: 1<<63 - 1})
	}
	for i := range MaxBacklog {
		s.Backlog = append(s.Backlog, Slot{At: at.Add(time.Duration(i) * time.Second), Missed: 1000})
	}
	s.Running = &Claim{ID: SlotID(job, at), Attempt: 1}
	data := s.Encode()
	again, err := ParseState(data)
	if err != nil || len(data) > lease.MaxCheckpointBytes || len(again.Backlog) != MaxBacklog || again.Running == nil || len(again.History) == 0 {
		t.Errorf("%d bytes with %d records: %v", len(data), len(again.History), err)
	}
}

func TestPolicyValidate(t *testing.T) {
	for field, p := range map[string]Policy{
		"catch_up": {CatchUp: "some"}, "overlap": {Overlap: "queue"}, "window": {Window: -1}, "max": {CatchUp: CatchUpAll, Max: 101},
		"jitter": {Jitter: 2 * time.Hour}, "max_attempts": {MaxAttempts: -1},
	} {
		var invalid *lease.Error
		if err := p.Validate(); !errors.As(err, &invalid) || invalid.Field != field || invalid.Fix == "" {
			t.Errorf("%+v: %v, want INVALID for %s", p, err, field)
		}
	}
	for _, p := range []Policy{{CatchUp: CatchUpNone, Window: time.Hour}, {Window: 367 * 24 * time.Hour}, {Max: 1}} {
		if p.Validate() == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
	full := Policy{CatchUp: CatchUpAll, Window: 90 * time.Minute, Max: 7, Overlap: OverlapBufferOne, Jitter: time.Second, MaxAttempts: 3}
	data, err := json.Marshal(full)
	var again Policy
	if err != nil || json.Unmarshal(data, &again) != nil || again != full || again.Validate() != nil {
		t.Errorf("%s reads as %+v", data, again)
	}
}

func TestJitterIsBoundedAndSpread(t *testing.T) {
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var sum time.Duration
	for i := range 1000 {
		d := Jitter(fmt.Sprint("job-", i), at, time.Minute)
		if d < 0 || d >= time.Minute || d != Jitter(fmt.Sprint("job-", i), at, time.Minute) {
			t.Fatalf("jitter %v", d)
		}
		sum += d
	}
	if mean := sum / 1000; mean < 27*time.Second || mean > 33*time.Second {
		t.Errorf("the mean of 1,000 jobs is %v", mean)
	}
}

func TestAClockInTheYear10000(t *testing.T) {
	s, err := schedule.Parse("@daily", "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMachine(Config{Job: "job", Schedule: s})
	if err != nil {
		t.Fatal(err)
	}
	out := m.Step(time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), Granted{Token: 1})
	if _, err := ParseState(out.Store); err != nil {
		t.Error(err)
	}
	if out = m.Step(time.Date(12000, 1, 2, 0, 0, 0, 0, time.UTC), Stored{}); out.Run != nil || !out.Wake.IsZero() {
		t.Errorf("there is a slot: %+v", out)
	}
}

func FuzzParseState(f *testing.F) {
	s, err := schedule.Parse("*/5 * * * *", "")
	if err != nil {
		f.Fatal(err)
	}
	m, err := NewMachine(Config{Job: "job", Schedule: s})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	f.Add(m.Step(now, Granted{Token: 1, Holder: "h"}).Store)
	m.Step(now, Stored{})
	f.Add(m.Step(now.Add(time.Hour), Elapsed{}).Store)
	f.Add([]byte(`{"version":1,"job":"job","policy":{"window_ms":9223372036854775807}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := ParseState(data)
		if err != nil {
			return
		}
		encoded := state.Encode()
		again, err := ParseState(encoded)
		if err != nil || !bytes.Equal(again.Encode(), encoded) {
			t.Fatalf("%q reads as %q, and that as %v", data, encoded, err)
		}
		if state.Job != "job" {
			return
		}
		// A holder goes on from whatever it reads, and what it stores can be read.
		m, err := NewMachine(Config{Job: "job", Schedule: s, Policy: state.Policy})
		if err != nil {
			m, err = NewMachine(Config{Job: "job", Schedule: s})
		}
		if err != nil {
			t.Fatal(err)
		}
		out := m.Step(now, Granted{Token: 2, Holder: "h", Checkpoint: data})
		for range 5 {
			if out.Store != nil {
				if _, err := ParseState(out.Store); err != nil {
					t.Fatalf("%q becomes %q: %v", data, out.Store, err)
				}
				out = m.Step(now, Stored{})
				continue
			}
			if out.Run != nil {
				out = m.Step(now, Returned{Outcome: Done})
			}
		}
	})
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte(`{"version":1,"pause":{"note":"n","at":"2026-11-22T00:00:00Z"},"triggers":[{"id":"a","at":"2026-11-22T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseControl(data)
		if err != nil {
			return
		}
		again, err := ParseControl(c.Encode())
		if err != nil || !bytes.Equal(again.Encode(), c.Encode()) {
			t.Fatalf("%q reads as %+v, and that as %+v, %v", data, c, again, err)
		}
	})
}
