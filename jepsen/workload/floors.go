//go:build linux

package workload

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/wait"
)

// Floors is the name of the workload that asks guards what they refuse.
const Floors = "floors"

const (
	opStatus   = "status"
	floorLimit = time.Second
	floorPause = 200 * time.Millisecond
)

var floors = Kind{
	Name: Floors, Doc: "guards are asked for their floors, which are never below what they proved to refuse or have let through",
	Rate: 1, Bound: 5*time.Second + allowance,
	Start: func(w World) (Workload, error) { return &floorReaders{w}, nil },
	Check: func(h *record.History) []verdict.Judgement { return []verdict.Judgement{checkFloors(h)} },
}

// floorReaders ask each guard.
type floorReaders struct{ world World }

func (r *floorReaders) Close(context.Context) error { return nil }

func (r *floorReaders) Run(ctx context.Context, _ int) error {
	var running sync.WaitGroup
	for i := range lab.GuardCount {
		running.Go(func() {
			for wait.For(ctx, floorPause) {
				r.ask(context.WithoutCancel(ctx), i)
			}
		})
	}
	running.Wait()
	return nil
}

// toldFloors is what a guard says, as far as it is recorded.
type toldFloors struct {
	Seeded bool `json:"seeded"`
	// Ready is false of one that is not seeded, or about to end.
	Ready bool `json:"ready"`
	// Base is the floor of resources that have none of their own.
	Base   fence.Token `json:"base"`
	Tokens []struct {
		Resource string      `json:"resource"`
		Token    fence.Token `json:"token"`
	} `json:"tokens"`
	// Alarms are tokens from the quorum that were below the floor.
	Alarms []json.RawMessage `json:"alarms,omitempty"`
}

// floor is that of a resource.
func (t *toldFloors) floor(resource string) fence.Token {
	for _, f := range t.Tokens {
		if f.Resource == resource {
			return max(f.Token, t.Base)
		}
	}
	return t.Base
}

// ask asks a guard once, and records it.
func (r *floorReaders) ask(ctx context.Context, guard int) {
	ctx, cancel := context.WithTimeout(ctx, floorLimit)
	defer cancel()
	done := r.world.Record.Call(Floors, lab.Guard(guard), opStatus, nil)
	text, err := r.world.Lab.AskGuard(ctx, guard, "/status")
	var told toldFloors
	if err == nil {
		err = json.Unmarshal(text, &told)
	}
	if err != nil {
		done(record.Fail, err.Error())
		return
	}
	done(record.OK, told)
}

// durable is that a guard has a floor of a token, or a newer one, on its disk from then on: it acknowledged a raise, or let a
// write through.
type durable struct {
	at    time.Duration
	token fence.Token
	wrote bool   // it let a write through
	how   string // what it did
}

// checkFloors holds what guards say against what they have proved before they were asked: one that admits, having heard from the
// quorum since it was started, and one that does not and tells what its disk holds, unless that was put back.
func checkFloors(h *record.History) verdict.Judgement {
	const check = "D2"
	proofs, err := durableFloors(h)
	if err != nil {
		return garbled(Floors, check, err)[0]
	}
	j := judgement(Floors, check, "")
	back, most := putBack(h), make(map[string]fence.Token)
	told, compared := 0, 0
	for _, c := range h.Of(Floors) { // in the order in which they were asked
		if c.Outcome != record.OK {
			continue
		}
		var t toldFloors
		if err := record.Decode(c.Result, &t); err != nil {
			return garbled(Floors, check, fmt.Errorf("the answer to call %d: %w", c.ID, err))[0]
		}
		told++
		for _, alarm := range t.Alarms {
			blame(&j, c.Round, "%s was told of a token below its floor: %s", c.Client, alarm)
		}
		earlier := proofs[c.Client].before(c.At)
		if !t.Seeded || !t.Ready {
			earlier = proofs[c.Client].onDisk(c.At, back.latest(c.Client, c.Returned), most[c.Client])
		}
		most[c.Client] = max(most[c.Client], t.floor(store.Resource))
		if earlier == nil {
			continue
		}
		compared++
		if got := t.floor(store.Resource); got < earlier.token {
			blame(&j, c.Round, "%s said at %v that its floor is %v, after it %s %v at %v", c.Client, c.Returned, got, earlier.how, earlier.token, earlier.at)
		}
	}
	if j.Verdict == verdict.Invalid {
		j.Reason = "a guard had forgotten what it had promised to refuse, or was told of an older token"
		return j
	}
	j.Reason = fmt.Sprintf("guards told their floors %d times, and had proved one before in %d", told, compared)
	if compared == 0 {
		j.Verdict = verdict.Unknown
	}
	return j
}

// onDisk is the proof of the largest token that the disk of a guard has to hold which admits nothing: one after the disk was put
// back, and of what the guard had told before. A guard that leaves is counted as having acknowledged what it never hears of, for
// it admits nothing until it has been seeded.
func (p proofsOf) onDisk(at, after time.Duration, told fence.Token) (found *durable) {
	for i := range p.all {
		if p := &p.all[i]; p.at < at && p.at > after && (p.wrote || p.token <= told) && (found == nil || p.token > found.token) {
			found = p
		}
	}
	return found
}

// restored are the times in which the disks of guards were put back, by guard.
type restored map[string][]record.Fault

func putBack(h *record.History) restored {
	all := make(restored)
	for _, f := range h.Faults {
		if f.Nemesis == "old-image" {
			all[f.Detail] = append(all[f.Detail], f)
		}
	}
	return all
}

// latest is the end of the latest one that had begun before a time. Of what was proved until then the disk may hold nothing.
func (r restored) latest(guard string, at time.Duration) (until time.Duration) {
	for _, f := range r[guard] {
		switch {
		case f.Began > at:
		case f.Ended == 0:
			return math.MaxInt64
		default:
			until = max(until, f.Ended)
		}
	}
	return until
}

// durableFloors are the proofs of each guard.
func durableFloors(h *record.History) (map[string]proofsOf, error) {
	all := make(map[string][]durable)
	for _, c := range h.Of(Appends) {
		if c.Op != opAppend || c.Outcome != record.OK {
			continue
		}
		var what attempt
		if err := record.Decode(c.Value, &what); err != nil {
			return nil, fmt.Errorf("call %d: %w", c.ID, err)
		}
		guard := lab.Guard(what.Front)
		all[guard] = append(all[guard], durable{c.Returned, what.Token, true, "let a write through under"})
	}
	for _, e := range h.Events {
		if e.Workload != Appends || e.Op != opGranted {
			continue
		}
		var what granted
		if err := record.Decode(e.Value, &what); err != nil {
			return nil, fmt.Errorf("what %s was granted at %v: %w", e.Client, e.At, err)
		}
		for guard, how := range what.Proofs {
			if how == acked {
				all[guard] = append(all[guard], durable{e.At, what.Token, false, "acknowledged"})
			}
		}
	}
	proofs := make(map[string]proofsOf)
	for guard, list := range all {
		slices.SortStableFunc(list, func(a, b durable) int { return cmp.Compare(a.at, b.at) })
		largest := make([]int, len(list))
		for i := range list {
			largest[i] = i
			if i > 0 && list[largest[i-1]].token > list[i].token {
				largest[i] = largest[i-1]
			}
		}
		proofs[guard] = proofsOf{list, largest}
	}
	return proofs, nil
}

// proofsOf are those of a guard, in the order of time, and the place of the one of the largest token until each.
type proofsOf struct {
	all     []durable
	largest []int
}

// before is the proof of the largest token that was there at a time; nil: there was none.
func (p proofsOf) before(at time.Duration) *durable {
	i, _ := slices.BinarySearchFunc(p.all, at, func(p durable, at time.Duration) int {
		if p.at < at {
			return -1
		}
		return 1
	})
	if i == 0 {
		return nil
	}
	return &p.all[p.largest[i-1]]
}
