//go:build linux

package workload

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// The kinds of messages, as in the API.
const (
	kindState   = "state"
	kindSynced  = "synced"
	kindChanged = "changed"
	kindRemoved = "removed"
	kindResync  = "resync"
)

func acquireRequest(resource, instance string) *writv1.AcquireRequest {
	return &writv1.AcquireRequest{Resource: resource, Ttl: durationpb.New(time.Minute), RequestId: instance, Instance: instance}
}

// view is what one watcher saw in one round.
type view struct {
	name    string
	round   int
	synced  time.Duration // when it had the state at the start; 0: never
	changes []seen
	resyncs int
}

// expected is a grant that was acknowledged.
type expected struct {
	resource string
	token    uint64
	asked    time.Duration
}

func checkWatch(h *record.History) []verdict.Judgement {
	const check = "S10"
	views, err := watched(h)
	if err != nil {
		return garbled("watch", check, err)
	}
	grants, err := acknowledged(h)
	if err != nil {
		return garbled("watch", check, err)
	}
	var all []verdict.Judgement
	for _, round := range slices.Sorted(maps.Keys(views)) {
		all = append(all, checkViews(h, round, views[round], grants[round]))
	}
	return all
}

func checkViews(h *record.History, round int, views []*view, grants []expected) verdict.Judgement {
	changes, ended, resyncs := 0, 0, 0
	j := judgement("watch", "S10", "", round)
	for i, v := range views {
		changes += len(v.changes)
		resyncs += v.resyncs
		if v.end(round) {
			ended++
		}
		v.checkOrder(&j)
		if v.resyncs > 0 || !v.end(round) {
			continue // nothing is promised of what it did not see
		}
		v.checkWhole(&j, grants)
		for _, other := range views[:i] {
			if other.resyncs == 0 && other.end(round) {
				checkSame(&j, v, other)
			}
		}
	}
	if j.Verdict == verdict.Invalid {
		j.Reason = "watchers did not see one history, in order and whole"
		return j
	}
	j.Reason = fmt.Sprintf("%d watchers saw %d changes, and %d grants were acknowledged", len(views), changes, len(grants))
	if resyncs > 0 {
		j.Verdict, j.Reason = verdict.Unknown, fmt.Sprintf("watchers were told %d times that they had missed something, though history reaches back further than a round", resyncs)
	}
	if ended < len(views) && h.Complete() {
		j.Verdict, j.Reason = verdict.Unknown, fmt.Sprintf("only %d of %d watchers saw the end of the round", ended, len(views))
	}
	return j
}

// watched reads what watchers saw, by round.
func watched(h *record.History) (map[int][]*view, error) {
	rounds, byName := make(map[int][]*view), make(map[string]*view)
	for _, e := range h.Events {
		if e.Workload != "watch" || e.Op != opSaw {
			continue
		}
		var s seen
		if err := record.Decode(e.Value, &s); err != nil {
			return nil, fmt.Errorf("what %s saw at %v: %w", e.Client, e.At, err)
		}
		id := fmt.Sprint(e.Round, " ", e.Client)
		v := byName[id]
		if v == nil {
			v = &view{name: e.Client, round: e.Round}
			byName[id] = v
			rounds[e.Round] = append(rounds[e.Round], v)
		}
		switch s.Kind {
		case kindSynced:
			if v.synced == 0 {
				v.synced = e.At
			}
		case kindChanged, kindRemoved:
			v.changes = append(v.changes, s)
		case kindResync:
			v.resyncs++
		case kindState:
		default:
			return nil, fmt.Errorf("what %s saw at %v: field \"kind\" is %q: no message has it", e.Client, e.At, s.Kind)
		}
	}
	return rounds, nil
}

// acknowledged are the grants that clients know of, by round.
func acknowledged(h *record.History) (map[int][]expected, error) {
	rounds := make(map[int][]expected)
	for _, c := range h.Of("watch") {
		if c.Op != history.Acquire.String() || c.Outcome != record.OK {
			continue
		}
		var op history.Op
		var a answer
		if err := record.Decode(c.Value, &op); err != nil {
			return nil, fmt.Errorf("call %d: %w", c.ID, err)
		}
		if err := record.Decode(c.Result, &a); err != nil {
			return nil, fmt.Errorf("the answer to call %d: %w", c.ID, err)
		}
		rounds[c.Round] = append(rounds[c.Round], expected{op.Resource, a.Saw.Token, c.At})
	}
	return rounds, nil
}

// end tells whether the watcher saw the last grant of the round.
func (v *view) end(round int) bool {
	return slices.ContainsFunc(v.changes, func(s seen) bool { return s.Resource == endMark(round) && s.Held })
}

// checkOrder looks for what comes twice, or goes back.
func (v *view) checkOrder(j *verdict.Judgement) {
	var last int64
	newest, at := make(map[string]uint64), make(map[seen]bool)
	for _, s := range v.changes {
		if at[s] {
			blame(j, v.round, "%s saw %+v twice", v.name, s)
		}
		at[s] = true
		if s.Revision < last {
			blame(j, v.round, "%s saw %+v after revision %d", v.name, s, last)
		}
		last = max(last, s.Revision)
		if s.Token < newest[s.Resource] && s.Kind == kindChanged {
			blame(j, v.round, "%s saw %+v after token %d", v.name, s, newest[s.Resource])
		}
		newest[s.Resource] = max(newest[s.Resource], s.Token)
	}
}

// checkWhole looks for acknowledged grants that the watcher did not see, though it was there before they were asked for and
// at the end. A grant that was over when it was committed, for its commit took longer than its TTL, is seen as over and in no
// other way.
func (v *view) checkWhole(j *verdict.Judgement, grants []expected) {
	saw := make(map[uint64]bool)
	for _, s := range v.changes {
		saw[s.Token] = saw[s.Token] || s.Kind == kindChanged
	}
	for _, g := range grants {
		if v.synced != 0 && v.synced < g.asked && !saw[g.token] {
			blame(j, v.round, "%s did not see %s granted under %d, which was asked for at %v and acknowledged", v.name, g.resource, g.token, g.asked)
		}
	}
}

// checkSame compares what two watchers saw, from the later beginning to the end.
func checkSame(j *verdict.Judgement, a, b *view) {
	from := max(a.changes[0].Revision, b.changes[0].Revision)
	last := func(v *view) int64 { return v.changes[len(v.changes)-1].Revision }
	to := min(last(a), last(b))
	part := func(v *view) (part []seen) {
		for _, s := range v.changes {
			if s.Revision >= from && s.Revision < to {
				part = append(part, s)
			}
		}
		return part
	}
	pa, pb := part(a), part(b)
	for i := range max(len(pa), len(pb)) {
		if i >= len(pa) || i >= len(pb) || pa[i] != pb[i] {
			blame(j, a.round, "%s and %s differ from the %d. change on: %v and %v", a.name, b.name, i+1, at(pa, i), at(pb, i))
			return
		}
	}
}

func at(part []seen, i int) string {
	if i >= len(part) {
		return "nothing"
	}
	return fmt.Sprintf("%+v", part[i])
}
