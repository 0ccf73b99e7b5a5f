//go:build linux

package workload

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// Appends is the name of the workload of writers and a store.
const Appends = "appends"

// What is recorded of it beside the calls.
const (
	opAppend  = "append"
	opApplied = "applied"
	opStall   = "stall"
	opGranted = "granted"
)

var appending = Kind{
	Name: Appends, Doc: "writers append to a list through guards, at a store that compares nothing; no acknowledged append is lost",
	Rate: 0.5, Bound: lab.GuardLease + lab.Slack + lab.WriterTTL + 3*time.Second + allowance,
	Start: func(w World) (Workload, error) { return &passive{world: w}, nil },
	Check: func(h *record.History) []verdict.Judgement {
		return []verdict.Judgement{checkAppends(h, Appends, Appends)}
	},
}

// passive does nothing: writers are processes of the lab, and work as long as they run.
type passive struct{ world World }

func (p *passive) Run(ctx context.Context, _ int) error {
	<-ctx.Done()
	return nil
}

// Close has the writers end, and everything older than a new grant be over.
func (p *passive) Close(ctx context.Context) error {
	for _, w := range p.world.Lab.Writers {
		if err := w.Finish(ctx); err != nil {
			return err
		}
	}
	if p.world.Lab.Nodes != nil {
		if _, err := p.world.Lab.Settle(ctx); err != nil {
			return err
		}
	}
	// It says nothing more from now on, so everything has been heard when it is gone.
	return p.world.Lab.Store.Kill()
}

// attempt is an append as it is recorded, with the call and with the answer.
type attempt struct {
	Element string      `json:"element,omitempty"`
	Token   fence.Token `json:"token,omitzero"`
	Front   int         `json:"front"`
	Slow    bool        `json:"slow,omitempty"`
	Detail  string      `json:"detail,omitempty"`
}

// granted is what a writer says of a grant, with how each guard was proved to refuse what is older, if it could find out.
type granted struct {
	Token  fence.Token       `json:"token"`
	Proofs map[string]string `json:"proofs,omitempty"`
}

// Listen has what the writers and the store of a book say recorded under a name. It is called before the lab is started.
func Listen(b *book.Book, name string, w *record.Writer) {
	var mu sync.Mutex
	open := make(map[string]func(record.Outcome, any)) // guarded by mu; by element
	b.OnStored = func(line store.Line) {
		switch {
		case line.Applied != nil:
			w.Event(name, lab.Store, opApplied, line.Applied)
		case line.Stall != 0:
			w.Event(name, lab.Store, opStall, line.Stall)
		}
	}
	b.OnHeard = func(said writer.Said) {
		mu.Lock()
		defer mu.Unlock()
		switch said.Kind {
		case writer.Granted:
			w.Event(name, said.Writer, opGranted, granted{Token: said.Token, Proofs: said.Proofs})
		case writer.Put:
			open[said.Element] = w.Call(name, said.Writer, opAppend, attempt{
				Element: said.Element, Token: said.Token, Front: said.Front, Slow: said.Slow,
			})
		case writer.Done:
			done := open[said.Element]
			if done == nil {
				return // the book itself complains of what it does not understand
			}
			delete(open, said.Element)
			outcome := map[appends.Outcome]record.Outcome{
				appends.Acked: record.OK, appends.Refused: record.Fail, appends.Unknown: record.Unknown,
			}[said.Outcome]
			done(outcome, attempt{Front: said.Front, Detail: said.Detail})
		}
	}
}

// Paused writes that a guard was paused until now, and for how long at most: beyond W, guards that check and then forward promise
// nothing.
func Paused(w *record.Writer, span time.Duration) { w.Event(Appends, guards, opStall, span) }

// guards is who was paused.
const guards = "guard"

// checkAppends judges what was recorded under a name, as a part of a workload.
func checkAppends(h *record.History, workload, name string) verdict.Judgement {
	const check = "S2 and S3"
	var attempts []appends.Attempt
	for _, c := range h.Of(name) {
		var what attempt
		if err := record.Decode(c.Value, &what); err != nil {
			return garbled(workload, check, fmt.Errorf("call %d: %w", c.ID, err))[0]
		}
		outcome := map[record.Outcome]appends.Outcome{
			record.OK: appends.Acked, record.Fail: appends.Refused, record.Unknown: appends.Unknown,
		}[c.Outcome]
		attempts = append(attempts, appends.Attempt{Element: what.Element, Token: what.Token, Outcome: outcome})
	}
	applied, times, stalls, err := storeSaid(h, name)
	if err != nil {
		return garbled(workload, check, err)[0]
	}
	j := judgement(workload, check, fmt.Sprintf("%d appends and %d writes: none came late, none was lost", len(attempts), len(applied)))
	excused := judgement(workload, check, "")
	for _, v := range appends.Check(applied, attempts) {
		if !whole(h, name) && (v.Kind == appends.Foreign || v.Kind == appends.Lost && v.Seq == len(applied)) {
			continue // what is missing may have happened after the record ends
		}
		round := 0
		if v.Seq < len(times) {
			round = h.RoundAt(times[v.Seq])
		}
		if stall, ok := stalls.excuse(v, times); ok && !h.Run.Control {
			blame(&excused, round, "%v; the store or a guard did not run for %v until %v", v, stall.span, stall.until)
			continue
		}
		blame(&j, round, "%v", v)
	}
	switch {
	case j.Verdict == verdict.Invalid:
		j.Reason = "late writes came through, or acknowledged ones were lost"
	case excused.Verdict == verdict.Invalid:
		// Guards that check and then forward promise nothing beyond W, and the machine had a part in that.
		j, j.Verdict = excused, verdict.Unknown
		j.Reason = fmt.Sprintf("late writes came through when the store or a guard had not run for long: W is %v", lab.Slack)
	}
	return j
}

// stall is a time in which the store or a guard did not run.
type stall struct{ until, span time.Duration }

type stalls []stall

// longStall is how long the store or a guard does not run for W to be in danger: each may have a part in one wait.
const longStall = lab.Slack * 3 / 5

// excuse is a stall that explains a late write: it was applied, or replaced what was lost, during one or soon after. Nothing
// excuses what was applied twice, though it was refused, or as nobody tried it.
func (s stalls) excuse(v appends.Violation, times []time.Duration) (stall, bool) {
	switch v.Kind {
	case appends.Stale, appends.Blind, appends.Lost:
	case appends.Twice, appends.Undone, appends.Foreign:
		return stall{}, false
	}
	if v.Seq >= len(times) {
		return stall{}, false
	}
	at := times[v.Seq]
	for _, long := range s {
		if long.span > longStall && at >= long.until-long.span-lab.Slack && at <= long.until+lab.Slack {
			return long, true
		}
	}
	return stall{}, false
}

// Accepted is a write that a store has applied.
type Accepted struct {
	At    time.Duration // when that was recorded
	Token fence.Token
}

// AcceptedWrites are what the stores of a record have applied, by workload, in that order.
func AcceptedWrites(h *record.History) (map[string][]Accepted, error) {
	all := make(map[string][]Accepted)
	for _, e := range h.Events {
		if e.Op != opApplied {
			continue
		}
		var a appends.Applied
		if err := record.Decode(e.Value, &a); err != nil {
			return nil, fmt.Errorf("an applied write at %v: %w", e.At, err)
		}
		all[e.Workload] = append(all[e.Workload], Accepted{e.At, a.Token})
	}
	return all, nil
}

// whole tells whether everything that was applied under a name is in the record.
func whole(h *record.History, name string) bool {
	return h.Complete() && (name != PgAppends || readToTheEnd(h, name))
}

// storeSaid reads what the store said under a name, with the times of its writes and the stalls, of guards too.
func storeSaid(h *record.History, name string) (applied []appends.Applied, times []time.Duration, late stalls, err error) {
	for _, e := range h.Events {
		paused := e.Workload == Appends && e.Client == guards && name != PgAppends // before which no guard stands
		if e.Workload != name && !paused {
			continue
		}
		switch e.Op {
		case opApplied:
			var a appends.Applied
			if err := record.Decode(e.Value, &a); err != nil {
				return nil, nil, nil, fmt.Errorf("an applied write at %v: %w", e.At, err)
			}
			applied, times = append(applied, a), append(times, e.At)
		case opStall:
			var span time.Duration
			if err := record.Decode(e.Value, &span); err != nil {
				return nil, nil, nil, fmt.Errorf("a stall at %v: %w", e.At, err)
			}
			late = append(late, stall{e.At, span})
		}
	}
	return applied, times, late, nil
}
