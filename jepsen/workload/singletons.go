//go:build linux

package workload

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/slots"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/wait"
)

// Singletons is the name of the workload of cron jobs.
const Singletons = "singletons"

const (
	// opEffect is a call: the row of an effect.
	opEffect = "effect"
	// opJob, opRow and opEnd are events: that there is a job, and a row of one as the database holds it.
	opJob = "job"
	opRow = "row"
	// opEnd: nobody writes any more, and every row has been read.
	opEnd = "end"
	// followPace is how often rows are read that have come.
	followPace = 200 * time.Millisecond
)

var singletons = Kind{
	Name: Singletons, Doc: "cron jobs in three regions, with effects in PostgreSQL under its fence; every slot has one, within its window",
	Rate: 0.4, Bound: lab.WriterTTL + slots.Every + 3*time.Second + allowance,
	Needs: func(c *lab.Config) { c.Services = book.New() },
	Start: func(w World) (Workload, error) {
		s := &services{world: w, follower: follower{world: w}, rows: make(map[string][]slots.Effect)}
		for _, job := range w.Lab.Config.Jobs() {
			w.Record.Event(Singletons, lab.Database, opJob, job)
		}
		return s, nil
	},
	Check: checkSingletons,
}

// slotTried is a call as it is recorded, and slotRow a row.
type (
	slotTried struct {
		Slot   string      `json:"slot,omitempty"`
		Token  fence.Token `json:"token,omitzero"`
		Detail string      `json:"detail,omitempty"`
	}
	slotRow struct {
		Job string       `json:"job"`
		Row slots.Effect `json:"row"`
	}
)

// follower reads what comes to the database, from where nothing is cut.
type follower struct {
	world World

	mu   sync.Mutex
	conn *pgx.Conn // guarded by mu; nil: not connected yet
}

// follow has rows read again and again until ctx ends.
func (f *follower) follow(ctx context.Context, read func(context.Context, *pgx.Conn) error) error {
	for wait.For(ctx, followPace) {
		if err := f.read(context.WithoutCancel(ctx), read); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) read(ctx context.Context, read func(context.Context, *pgx.Conn) error) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		if f.conn, err = f.world.Lab.OpenDatabase(ctx); err != nil {
			return err
		}
	}
	return read(ctx, f.conn)
}

// end has the last rows read, and says in the record that nothing comes after them.
func (f *follower) end(ctx context.Context, name string, read func(context.Context, *pgx.Conn) error) error {
	if err := f.read(ctx, read); err != nil {
		return err
	}
	f.world.Record.Event(name, lab.Database, opEnd, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conn.Close(ctx)
}

// readToTheEnd tells whether a record holds all rows of a workload.
func readToTheEnd(h *record.History, name string) bool {
	return slices.ContainsFunc(h.Events, func(e record.Event) bool { return e.Workload == name && e.Op == opEnd })
}

// services are at work as long as they run; what they write is read.
type services struct {
	world World
	follower
	rows map[string][]slots.Effect // guarded by follower.mu; by job
}

func (s *services) Run(ctx context.Context, _ int) error { return s.follow(ctx, s.take) }

// take reads the rows that have come. The caller holds follower.mu.
func (s *services) take(ctx context.Context, conn *pgx.Conn) error {
	for _, job := range s.world.Lab.Config.Jobs() {
		var after int64
		if rows := s.rows[job.Name]; len(rows) > 0 {
			after = rows[len(rows)-1].N
		}
		rows, err := job.Read(ctx, conn, after)
		if err != nil {
			return err
		}
		for _, row := range rows {
			s.world.Record.Event(Singletons, lab.Database, opRow, slotRow{job.Name, row})
		}
		s.rows[job.Name] = append(s.rows[job.Name], rows...)
	}
	return nil
}

// Caught tells whether effects have happened twice.
func (s *services) Caught(ctx context.Context) (caught bool, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.take(ctx, conn); err != nil {
			return err
		}
		for job, rows := range s.rows {
			first, last := slots.Span(job, rows)
			caught = caught || slots.Doubled(slots.Check(job, rows, first, last))
		}
		return nil
	})
	return caught, err
}

// Close waits until every job has caught up, and has the processes end.
func (s *services) Close(ctx context.Context) error {
	calm := time.Now()
	for caughtUp := false; !caughtUp; {
		err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			caughtUp = true
			err := s.take(ctx, conn)
			for _, job := range s.world.Lab.Config.Jobs() {
				_, last := slots.Span(job.Name, s.rows[job.Name])
				caughtUp = caughtUp && last.After(calm)
			}
			return err
		})
		if err != nil {
			return err
		}
		if !caughtUp && !wait.For(ctx, followPace) {
			return fmt.Errorf("a job had no slot after the faults: %w", context.Cause(ctx))
		}
	}
	for _, w := range s.world.Lab.Services {
		if err := w.Finish(ctx); err != nil {
			return err
		}
	}
	return s.end(ctx, Singletons, s.take)
}

// listenToServices has what processes with cron jobs say recorded.
func listenToServices(b *book.Book, w *record.Writer) {
	var mu sync.Mutex
	open := make(map[[2]string]func(record.Outcome, any)) // guarded by mu; by process and slot
	b.OnHeard = func(said writer.Said) {
		mu.Lock()
		defer mu.Unlock()
		key := [2]string{said.Writer, said.Element}
		switch said.Kind {
		case writer.Granted:
			w.Event(Singletons, said.Writer, opGranted, slotTried{Slot: said.Element, Token: said.Token})
		case writer.Put:
			open[key] = w.Call(Singletons, said.Writer, opEffect, slotTried{Slot: said.Element, Token: said.Token})
		case writer.Done:
			if done := open[key]; done != nil {
				delete(open, key)
				outcome := record.Unknown
				switch said.Outcome {
				case appends.Acked:
					outcome = record.OK
				case appends.Refused:
					outcome = record.Fail
				case appends.Unknown:
				}
				done(outcome, slotTried{Detail: said.Detail})
			}
		}
	}
}

// Slots are the rows of every job that a record holds, with the times at which they were read.
func Slots(h *record.History) (jobs []slots.Job, rows map[string][]slots.Effect, times map[string][]time.Duration, err error) {
	rows, times = make(map[string][]slots.Effect), make(map[string][]time.Duration)
	for _, e := range h.Events {
		if e.Workload != Singletons {
			continue
		}
		switch e.Op {
		case opJob:
			var job slots.Job
			if err := record.Decode(e.Value, &job); err != nil {
				return nil, nil, nil, fmt.Errorf("a job at %v: %w", e.At, err)
			}
			jobs = append(jobs, job)
		case opRow:
			var r slotRow
			if err := record.Decode(e.Value, &r); err != nil {
				return nil, nil, nil, fmt.Errorf("a row at %v: %w", e.At, err)
			}
			rows[r.Job], times[r.Job] = append(rows[r.Job], r.Row), append(times[r.Job], e.At)
		}
	}
	return jobs, rows, times, nil
}

func checkSingletons(h *record.History) []verdict.Judgement {
	const check = "every slot once"
	jobs, rows, times, err := Slots(h)
	if err != nil {
		return garbled(Singletons, check, err)
	}
	slot, effect := judgement(Singletons, check, ""), judgement(Singletons, "effects", "")
	var told []string
	whole := h.Complete() && readToTheEnd(h, Singletons)
	there := make(map[string]int)
	for _, job := range jobs {
		first, last := slots.Span(job.Name, rows[job.Name])
		if first.IsZero() {
			if whole {
				blame(&slot, 0, "%s was never run", job.Name)
			}
			continue
		}
		for _, f := range slots.Check(job.Name, rows[job.Name], first, last) {
			if !whole && f.What == slots.Missed {
				continue // it may have had its effect after the record ends
			}
			round := 0
			if at := times[job.Name]; f.Row < len(at) {
				round = h.RoundAt(at[f.Row])
			}
			blame(&slot, round, "%v", f)
		}
		for _, row := range rows[job.Name] {
			if row.Kind == slots.Ended {
				there[effectOf(row.ID, row.Token)]++
			}
		}
		ended, again, takeovers := slots.Count(rows[job.Name])
		told = append(told, fmt.Sprintf("%s: %d slots, %d further attempts, %d takeovers", job.Name, ended, again, takeovers))
	}
	slot.Reason = strings.Join(told, "; ")
	if slot.Verdict == verdict.Invalid {
		slot.Reason = "slots were missed, late or doubled: " + slot.Reason
	}
	if len(jobs) == 0 {
		slot.Verdict, slot.Reason = verdict.Unknown, "the record names no job"
	}
	return []verdict.Judgement{slot, checkEffects(h, effect, there, whole)}
}

// effectOf names what one attempt at a slot does.
func effectOf(slot string, token fence.Token) string { return fmt.Sprintf("%s under %v", slot, token) }

// checkEffects wants every effect that was acknowledged to be there, and none that was refused.
func checkEffects(h *record.History, j verdict.Judgement, there map[string]int, whole bool) verdict.Judgement {
	tried := make(map[string][]record.Outcome)
	counts := make(map[record.Outcome]int)
	for _, c := range h.Of(Singletons) {
		var what slotTried
		if err := record.Decode(c.Value, &what); err != nil {
			return garbled(Singletons, j.Check, fmt.Errorf("call %d: %w", c.ID, err))[0]
		}
		key := effectOf(what.Slot, what.Token)
		tried[key] = append(tried[key], c.Outcome)
		counts[c.Outcome]++
		if c.Outcome == record.OK && there[key] == 0 && whole {
			blame(&j, c.Round, "acknowledged, but not there: %s", key)
		}
	}
	for key := range there {
		if !slices.ContainsFunc(tried[key], func(o record.Outcome) bool { return o != record.Fail }) {
			blame(&j, 0, "there, but refused or never tried: %s", key)
		}
	}
	if j.Verdict == verdict.Valid {
		j.Reason = fmt.Sprintf("%d acknowledged, %d refused as stale, %d unknown: none was lost", counts[record.OK], counts[record.Fail], counts[record.Unknown])
	} else {
		j.Reason = "effects were lost, or happened though they were refused"
	}
	slices.Sort(j.Evidence)
	return j
}
