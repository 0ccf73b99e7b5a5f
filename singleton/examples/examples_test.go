//go:build linux

package examples_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

// Every night is billed once, and none is left out.
func TestBilling(t *testing.T) {
	const night, customers = 2 * time.Second, 25
	tell(t, example{
		name: "billing", args: []string{"-spec=@every " + night.String(), "-zone=UTC"},
		fenced: []fenced{{resource: "billing/nightly", table: "runs"}},
		nudge: func(s *stage, i int) { // it is nudged by the time of day
			if i == 0 {
				s.exec("INSERT INTO customers SELECT i, 100 * i FROM generate_series(1, $1) i", customers)
			}
		},
		done: func(*stage) bool { return true }, // there is always a next night
		check: func(s *stage) {
			if n := s.number(`SELECT count(*) FROM runs WHERE (SELECT count(*) FROM invoices WHERE run = id) <> $1
				OR (SELECT sum(cents) FROM invoices WHERE run = id) <> (SELECT sum(cents) FROM customers)`, customers); n != 0 {
				s.t.Errorf("%d nights are not billed as they should be", n)
			}
			if n := s.number("SELECT count(*) FROM runs WHERE attempt > 1"); n == 0 {
				s.t.Error("no night was billed by a further attempt, though the process that billed one was paused for good")
			}
			checkNights(s, night)
		},
	})
}

// checkNights looks whether each night that the quorum remembers was billed, or is recorded as skipped.
func checkNights(s *stage, night time.Duration) {
	s.t.Helper()
	jobs, err := singleton.New(connect(s.t), singleton.Config{})
	if err != nil {
		s.t.Fatal(err)
	}
	job, err := jobs.Job(context.Background(), "billing/nightly")
	if err != nil {
		s.t.Fatal(err)
	}
	accounted := make(map[int64]bool)
	for _, r := range job.State.History {
		billed := s.number("SELECT count(*) FROM runs WHERE id = $1", r.ID) == 1
		if r.Outcome == cron.Done && !billed {
			s.t.Errorf("the quorum says that %v was billed", r.Slot)
		}
		for i := range max(1, r.Count) {
			accounted[r.Slot.Add(time.Duration(i)*night).Unix()] = true
		}
		if r.Outcome != cron.Done {
			s.t.Logf("%d nights from %v were %s: %s", max(1, r.Count), r.Slot, r.Outcome, r.Reason)
		}
	}
	oldest := job.State.History[0].Slot
	for slot := oldest; slot.Before(job.State.Cursor); slot = slot.Add(night) {
		if !accounted[slot.Unix()] && s.number("SELECT count(*) FROM runs WHERE slot = $1", slot) == 0 {
			s.t.Errorf("nothing is known of the night of %v", slot)
		}
	}
	s.t.Logf("%d nights are billed", s.number("SELECT count(*) FROM runs"))
}

// Every event is in the ledger once.
func TestConsumer(t *testing.T) {
	const partitions, batch = 8, 30
	events := 0
	tell(t, example{
		name: "consumer", args: []string{"-every=100ms"},
		fenced: []fenced{{resource: "orders/p/00000", table: "entries_0"}},
		nudge: func(s *stage, _ int) {
			s.exec(`INSERT INTO events SELECT part, position, position % 7, position FROM generate_series(0, $1::int - 1) part,
				generate_series($2::int, $2::int + $3::int - 1) position`, partitions, events, batch)
			events += batch
		},
		done: func(s *stage) bool { return s.number("SELECT count(*) FROM entries") >= int64(partitions*events) },
		check: func(s *stage) {
			if n := s.number("SELECT count(*) FROM entries"); n != int64(partitions*events) {
				s.t.Errorf("%d entries of %d events", n, partitions*events)
			}
			if n := s.number("SELECT count(*) FROM events FULL JOIN entries USING (part, position, account, cents) WHERE token IS NULL OR position IS NULL"); n != 0 {
				s.t.Errorf("%d events and entries do not match", n)
			}
			client := connect(s.t)
			for i := range partitions {
				info, err := client.Get(context.Background(), fmt.Sprintf("orders/p/%05d", i), lease.GetOptions{WithCheckpoint: true})
				if err != nil || string(info.Checkpoint) != fmt.Sprint(events) {
					s.t.Errorf("the checkpoint of partition %d is %q, %v, after %d events", i, info.Checkpoint, err, events)
				}
				// Positions are entered in order, so their tokens are in order.
				n := s.number(fmt.Sprintf("SELECT count(*) FROM (SELECT token < lag(token) OVER (ORDER BY position) AS back FROM entries_%d) AS tokens WHERE back", i))
				if n != 0 {
					s.t.Errorf("in partition %d tokens go back %d times", i, n)
				}
			}
		},
	})
}

// What is, is what was desired last, and nothing was changed to what had been desired before, or twice.
func TestController(t *testing.T) {
	tell(t, example{
		name: "controller", args: []string{"-every=100ms"},
		fenced: []fenced{{resource: "shop/controller", table: "changes", gate: "actual"}},
		nudge: func(s *stage, i int) {
			s.exec(`INSERT INTO desired SELECT 'service ' || n, $1 FROM generate_series(1, 3) n
				ON CONFLICT (name) DO UPDATE SET replicas = excluded.replicas`, i+1)
		},
		done: func(s *stage) bool {
			return s.number("SELECT count(*) FROM desired FULL JOIN actual USING (name) WHERE desired.replicas IS DISTINCT FROM actual.replicas") == 0
		},
		check: func(s *stage) {
			n := s.number(`SELECT count(*) FROM (SELECT replicas <= lag(replicas) OVER service OR token < lag(token) OVER service AS back
				FROM changes WINDOW service AS (PARTITION BY name ORDER BY id)) AS changes WHERE back`)
			if n != 0 {
				s.t.Errorf("%d changes were made twice, or undo newer ones", n)
			}
		},
	})
}

// Every request is planned once, and every task of it is done once.
func TestScheduler(t *testing.T) {
	tell(t, example{
		name: "scheduler", args: []string{"-every=100ms"},
		fenced: []fenced{{resource: "reports/leader", table: "tasks"}, {resource: "reports/lanes/p/00000", table: "results_0"}},
		nudge:  func(s *stage, _ int) { s.exec("INSERT INTO requests (parts) VALUES (18)") },
		done: func(s *stage) bool {
			return s.number("SELECT count(*) FROM results") >= s.number("SELECT sum(parts) FROM requests")
		},
		check: func(s *stage) {
			if n := s.number("SELECT count(*) FROM requests WHERE parts <> (SELECT count(*) FROM tasks WHERE request = id)"); n != 0 {
				s.t.Errorf("%d requests are not planned", n)
			}
			if n := s.number("SELECT count(*) FROM requests WHERE 1 <> (SELECT count(DISTINCT token) FROM tasks WHERE request = id)"); n != 0 {
				s.t.Errorf("%d requests are planned by more than one leader", n)
			}
			if n := s.number("SELECT count(*) FROM tasks FULL JOIN results USING (request, part) WHERE lane IS DISTINCT FROM of_lane OR result <> part * part"); n != 0 {
				s.t.Errorf("%d tasks are not done as planned", n)
			}
		},
	})
}
