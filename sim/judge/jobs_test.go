package judge_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/schedule"
)

// midnight is the time of day at T 0.
var midnight = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// slotAt is the slot of that minute.
func slotAt(minute int) time.Time { return midnight.Add(time.Duration(minute) * time.Minute) }

// nightly has the court know a job with a slot a minute, held under the first token.
func (c *court) nightly(policy cron.Policy) {
	c.t.Helper()
	slots, err := schedule.Parse("@every 1m", "")
	if err != nil {
		c.t.Fatal(err)
	}
	c.Job(judge.Job{Name: string(jobs), Schedule: slots, Policy: policy, Start: midnight, Agree: true})
	c.hold(token(1), "s1/a")
	c.write()
}

// store commits a state under the present token.
func (c *court) store(s cron.State) {
	c.t.Helper()
	s.Version, s.Job = cron.StateVersion, string(jobs)
	data := s.Encode()
	c.Asked(lease.Checkpoint{Caller: lease.Caller{Principal: "s1"}, Ref: c.ref(), Data: data, Sequence: uint64(c.revision)})
	c.commit(quorum.Entry{Key: quorum.CheckpointKey(jobs), Value: data}, c.entry(c.rec))
}

func tickOf(minute, attempt int) *cron.Tick {
	return &cron.Tick{Job: string(jobs), ID: cron.SlotID(string(jobs), slotAt(minute)), Slot: slotAt(minute), Attempt: attempt}
}

func claimOf(minute, attempt int) *cron.Claim {
	return &cron.Claim{ID: cron.SlotID(string(jobs), slotAt(minute)), Slot: slotAt(minute), Attempt: attempt, ClaimedAt: slotAt(minute), Token: uint64(token(1))}
}

func recordOf(minute, attempt int, outcome cron.Outcome) cron.Record {
	return cron.Record{ID: cron.SlotID(string(jobs), slotAt(minute)), Slot: slotAt(minute), Attempt: attempt, Outcome: outcome}
}

func skipped(first, last int, reason string) cron.Record {
	end := slotAt(last)
	return cron.Record{Slot: slotAt(first), Last: &end, Count: last - first + 1, Outcome: cron.Skipped, Reason: reason}
}

// J1: slots are claimed before they run, have their effect at most once and in order, and are accounted for.
func TestJobs(t *testing.T) {
	all := cron.Policy{CatchUp: cron.CatchUpAll, Window: time.Hour, Max: 3}
	claimed := func(c *court) {
		c.nightly(all)
		c.store(cron.State{Cursor: slotAt(0)})
		c.store(cron.State{Cursor: slotAt(1), Running: claimOf(1, 1)})
		c.now = 70 * time.Second
	}
	ran := func(c *court) {
		claimed(c)
		c.SlotRuns(jobs, tickOf(1, 1), token(1))
		c.SlotEffect(jobs, tickOf(1, 1))
	}
	done := cron.State{Cursor: slotAt(1), History: []cron.Record{recordOf(1, 1, cron.Done)}}
	try(t, []twin{
		{"run without a claim", "J1",
			func(c *court) { c.nightly(all); c.SlotRuns(jobs, tickOf(1, 1), token(1)) },
			func(c *court) { claimed(c); c.SlotRuns(jobs, tickOf(1, 1), token(1)) }},
		{"another attempt than was claimed", "J1", func(c *court) { claimed(c); c.SlotRuns(jobs, tickOf(1, 2), token(1)) }, nil},
		{"claimed by another", "J1", func(c *court) { claimed(c); c.SlotRuns(jobs, tickOf(1, 1), token(2)) }, nil},
		{"an attempt twice", "J1", func(c *court) { ran(c); c.SlotRuns(jobs, tickOf(1, 1), token(1)) }, nil},
		{"run when it is done", "J1",
			func(c *court) {
				claimed(c)
				c.SlotEffect(jobs, tickOf(1, 1))
				c.store(done)
				c.SlotRuns(jobs, tickOf(1, 1), token(1))
			}, nil},
		{"done without an effect", "J1",
			func(c *court) { claimed(c); c.store(done) },
			func(c *court) { ran(c); c.store(done) }},
		{"the claim is forgotten", "J1",
			func(c *court) { claimed(c); c.store(cron.State{Cursor: slotAt(1)}) },
			func(c *court) { claimed(c); c.store(cron.State{Cursor: slotAt(1), Running: claimOf(1, 2)}) }},
		{"the cursor goes back", "J1", func(c *court) { claimed(c); c.store(cron.State{Cursor: slotAt(0), Running: claimOf(1, 1)}) }, nil},
		{"a slot is passed in silence", "J1",
			func(c *court) { ran(c); c.store(cron.State{Cursor: slotAt(2), History: done.History}) },
			func(c *court) {
				ran(c)
				c.store(cron.State{Cursor: slotAt(3), Backlog: []cron.Slot{{At: slotAt(2)}}, History: append(done.History, skipped(3, 3, "paused"))})
			}},
		{"one that waited is forgotten", "J1",
			func(c *court) {
				ran(c)
				c.store(cron.State{Cursor: slotAt(2), Running: claimOf(1, 1), Backlog: []cron.Slot{{At: slotAt(2)}}})
				c.store(cron.State{Cursor: slotAt(2), History: done.History})
			}, nil},
		{"missed within the window", "J1",
			func(c *court) {
				ran(c)
				c.now = 3 * time.Minute
				c.store(cron.State{Cursor: slotAt(2), History: append(done.History, skipped(2, 2, "missed"))})
			},
			func(c *court) { // three newer ones take its place
				ran(c)
				c.now = 5 * time.Minute
				c.store(cron.State{Cursor: slotAt(2), History: append(done.History, skipped(2, 2, "missed"))})
			}},
		{"given up too early", "J1",
			func(c *court) {
				claimed(c)
				c.store(cron.State{Cursor: slotAt(1), History: []cron.Record{recordOf(1, 1, cron.Abandoned)}})
			},
			func(c *court) {
				claimed(c)
				c.store(cron.State{Cursor: slotAt(1), History: []cron.Record{recordOf(1, cron.DefaultMaxAttempts, cron.Abandoned)}})
			}},
		{"effects out of order", "J1",
			func(c *court) { ran(c); c.SlotEffect(jobs, tickOf(0, 1)) },
			func(c *court) { ran(c); c.SlotEffect(jobs, tickOf(2, 1)) }},
		{"a state that cannot be read", "J1", func(c *court) {
			c.nightly(all)
			c.Asked(lease.Checkpoint{Caller: lease.Caller{Principal: "s1"}, Ref: c.ref(), Data: []byte("x"), Sequence: 1})
			c.commit(quorum.Entry{Key: quorum.CheckpointKey(jobs), Value: []byte("x")}, c.entry(c.rec))
		}, nil},
	})
	c := newCourt(t)
	ran(c)
	if first := c.SlotEffect(jobs, tickOf(1, 1)); first {
		t.Error("the effect came again, and is taken for the first")
	}
	if at := c.JobAt(jobs); !at.Equal(slotAt(1)) {
		t.Errorf("the job is at %v", at)
	}
	c.store(cron.State{Cursor: slotAt(2), Running: claimOf(1, 1), Backlog: []cron.Slot{{At: slotAt(2)}}})
	if at := c.JobAt(jobs); !at.Equal(slotAt(1)) {
		t.Errorf("the job is at %v while a slot runs", at)
	}
}
