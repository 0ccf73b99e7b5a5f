//go:build linux

package workload

import (
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/slots"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/singleton/cron"
)

// ticks is a script of a cron job.
type ticks struct {
	*tape
	n int64
}

func (s *ticks) id(slot int) string {
	return cron.SlotID("job", time.Date(2026, time.March, 1, 2, 0, 2*slot, 0, time.UTC))
}

func (s *ticks) row(kind string, slot int, run string, token fence.Token) {
	s.n++
	at := time.Date(2026, time.March, 1, 2, 0, 2*slot+1, 0, time.UTC)
	s.w.Event(Singletons, "database", opRow, slotRow{"job", slots.Effect{N: s.n, Kind: kind, ID: s.id(slot), Run: run, Token: token, Attempt: 1, At: at}})
}

// tick is a slot that is run, and acknowledged.
func (s *ticks) tick(slot int, run string, token fence.Token) {
	s.row(slots.Began, slot, run, token)
	s.row(slots.Ended, slot, run, token)
	s.try(slot, token, record.OK)
}

func (s *ticks) try(slot int, token fence.Token, outcome record.Outcome) {
	s.call(Singletons, opEffect, slotTried{Slot: s.id(slot), Token: token}, outcome, slotTried{})
}

func TestSingletons(t *testing.T) {
	const old, young = fence.Token(1<<48 | 1), fence.Token(1<<48 | 2)
	for name, row := range map[string]struct {
		do       func(*ticks)
		ended    bool
		want     verdict.Verdict
		evidence string
	}{
		"sound":    {func(s *ticks) { s.tick(0, "a", old); s.tick(1, "b", young) }, true, verdict.Valid, "2 slots"},
		"a double": {func(s *ticks) { s.tick(0, "a", old); s.tick(0, "b", young) }, true, verdict.Invalid, "twice"},
		"a zombie": {func(s *ticks) {
			s.row(slots.Began, 0, "a", old)
			s.tick(0, "b", young)
			s.row(slots.Ended, 0, "a", old)
			s.try(0, old, record.OK)
		}, true, verdict.Invalid, "two at a time"},
		"missed":                        {func(s *ticks) { s.tick(0, "a", old); s.tick(2, "a", old) }, true, verdict.Invalid, "missed"},
		"missed, and the record ends":   {func(s *ticks) { s.tick(0, "a", old); s.tick(2, "a", old) }, false, verdict.Valid, ""},
		"acknowledged and lost":         {func(s *ticks) { s.tick(0, "a", old); s.try(1, old, record.OK) }, true, verdict.Invalid, "acknowledged, but not there"},
		"acknowledged, the record ends": {func(s *ticks) { s.tick(0, "a", old); s.try(1, old, record.OK) }, false, verdict.Valid, ""},
		"a zombie that is refused":      {func(s *ticks) { s.tick(0, "a", young); s.try(0, old, record.Fail) }, true, verdict.Valid, "1 refused"},
		"refused, and there": {func(s *ticks) {
			s.row(slots.Began, 0, "a", old)
			s.row(slots.Ended, 0, "a", old)
			s.try(0, old, record.Fail)
		}, true, verdict.Invalid, "refused or never tried"},
		"refused, and tried again": {func(s *ticks) { s.tick(0, "a", old); s.try(0, old, record.Fail) }, true, verdict.Valid, ""},
		"nobody tried":             {func(s *ticks) { s.row(slots.Began, 0, "a", old); s.row(slots.Ended, 0, "a", old) }, true, verdict.Invalid, "never tried"},
		"unknown, and there": {func(s *ticks) {
			s.row(slots.Began, 0, "a", old)
			s.row(slots.Ended, 0, "a", old)
			s.try(0, old, record.Unknown)
		}, true, verdict.Valid, "1 unknown"},
		"a row that is none":              {func(s *ticks) { s.w.Event(Singletons, "database", opRow, []int{1}) }, true, verdict.Unknown, "cannot be read"},
		"a call of which nothing is told": {func(s *ticks) { s.tick(0, "a", old); s.call(Singletons, opEffect, []int{1}, record.OK, nil) }, true, verdict.Unknown, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &ticks{tape: newTape(t)}
			s.w.Event(Singletons, "database", opJob, slots.Job{Name: "job", Table: "rows", Fenced: true})
			row.do(s)
			if row.ended {
				s.w.Event(Singletons, "database", opEnd, nil)
			}
			expect(t, checkSingletons(s.read(row.ended)), row.want, row.evidence)
		})
	}
	t.Run("missed, and rows were not read to the end", func(t *testing.T) {
		s := &ticks{tape: newTape(t)}
		s.w.Event(Singletons, "database", opJob, slots.Job{Name: "job"})
		s.tick(0, "a", old)
		s.tick(2, "a", old)
		s.try(3, old, record.OK)
		expect(t, checkSingletons(s.read(true)), verdict.Valid, "")
	})
	t.Run("no job", func(t *testing.T) {
		expect(t, checkSingletons(newTape(t).read(true)), verdict.Unknown, "names no job")
	})
	t.Run("a job that never runs", func(t *testing.T) {
		p := newTape(t)
		p.w.Event(Singletons, "database", opJob, slots.Job{Name: "job"})
		p.w.Event(Singletons, "database", opEnd, nil)
		expect(t, checkSingletons(p.read(true)), verdict.Invalid, "never run")
	})
}

// No guard stands before a database, so that a guard that was paused excuses nothing.
func TestPgAppends(t *testing.T) {
	p := newTape(t)
	page := appends.Page{}
	for _, token := range []fence.Token{1<<48 | 2, 1<<48 | 1} {
		done := p.w.Call(PgAppends, "writer", opAppend, attempt{Element: token.String(), Token: token})
		page = page.Append(token.String())
		p.w.Event(PgAppends, "database", opApplied, appends.Applied{Page: page, Token: token})
		done(record.OK, attempt{})
	}
	Paused(p.w, time.Minute)
	expect(t, tabling.Check(p.read(true)), verdict.Invalid, "S2")
}

// What was acknowledged is lost only if everything was read that is there.
func TestPgAppendsLost(t *testing.T) {
	for _, read := range []bool{true, false} {
		p := newTape(t)
		p.call(PgAppends, opAppend, attempt{Element: "a", Token: 1<<48 | 1}, record.OK, attempt{})
		want := verdict.Valid
		if read {
			p.w.Event(PgAppends, "database", opEnd, nil)
			want = verdict.Invalid
		}
		expect(t, tabling.Check(p.read(true)), want, "")
	}
}
