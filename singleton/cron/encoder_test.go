package cron

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease"
)

func aState() State {
	return State{
		Version: StateVersion, Job: "billing/nightly", Spec: "* * * * *", Zone: "UTC", Policy: Policy{}.WithDefaults(),
		Cursor: time.Date(2026, time.March, 1, 2, 3, 0, 0, time.UTC),
	}
}

func aRecord(s State, n int) Record {
	started := s.Cursor.Add(time.Duration(n) * time.Minute)
	return Record{
		ID: SlotID(s.Job, started), Slot: started, Attempt: 1, Outcome: Done, StartedAt: &started, DurationMs: 12,
		Holder: "spiffe://prod.example/billing as billing-7", Token: 1<<48 | 77,
	}
}

// However a history goes on, the encoder writes what Encode does, and nobody changes what was written.
func TestEncoderWritesWhatEncodeDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, e := aState(), encoder{}
		var written, copies [][]byte
		for n := range rapid.IntRange(1, 10).Draw(t, "steps") {
			for range rapid.IntRange(0, 2*HistoryLength).Draw(t, "records")%(HistoryLength+3) + rapid.IntRange(0, 1).Draw(t, "more") {
				r := aRecord(s, n)
				if rapid.Bool().Draw(t, "skipped") {
					r = Record{Slot: r.Slot, Outcome: Skipped, Reason: reasonPaused} // the next such record changes this one
				}
				s.record(r)
			}
			s.Running = nil
			if rapid.Bool().Draw(t, "running") {
				s.Running = &Claim{ID: fmt.Sprint("a<b", n), Attempt: 1}
			}
			if rapid.IntRange(0, 3).Draw(t, "policy") == 0 {
				s.Policy.Jitter += time.Second
			}
			s.Cursor = s.Cursor.Add(time.Minute)
			data := e.encode(s)
			if want := s.Encode(); !bytes.Equal(data, want) {
				t.Fatalf("got\n%s\nwant\n%s", data, want)
			}
			written, copies = append(written, data), append(copies, bytes.Clone(data))
		}
		for i := range written {
			if !bytes.Equal(written[i], copies[i]) {
				t.Fatalf("the document %d was changed afterwards", i)
			}
		}
	})
}

// Where a state is too large for a checkpoint, old records go, as in Encode.
func TestEncoderKeepsToTheLimit(t *testing.T) {
	s, e := aState(), encoder{}
	for n := range HistoryLength {
		s.record(aRecord(s, n))
	}
	room := lease.MaxCheckpointBytes - len(s.Encode()) + len(s.Spec)
	for length := room - 5; length < room+5; length++ {
		s.Spec = strings.Repeat("*", length)
		data := e.encode(s)
		if want := s.Encode(); !bytes.Equal(data, want) || len(data) > lease.MaxCheckpointBytes {
			t.Fatalf("with %d bytes more, %d bytes were written, want %d", length, len(data), len(want))
		}
	}
}

// BenchmarkEncoder writes the two documents of a tick, with a full history.
func BenchmarkEncoder(b *testing.B) {
	s, e := aState(), encoder{}
	for n := range HistoryLength {
		s.record(aRecord(s, n))
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		s.Running = &Claim{ID: SlotID(s.Job, s.Cursor), Slot: s.Cursor, Attempt: 1, ClaimedAt: s.Cursor, Holder: "billing-7"}
		e.encode(s)
		s.Running = nil
		s.record(aRecord(s, n))
		e.encode(s)
	}
}
