//go:build linux

package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/crowd"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

const (
	registerClients = 6
	registerPace    = 15 * time.Millisecond
	// decision bounds the judgement of one resource in one round.
	decision = time.Minute
)

var register = Kind{
	Name: "register", Doc: "clients fight over leases at random nodes; the history is linearizable",
	Rate: 10, Bound: 8*time.Second + allowance, Reads: []string{history.Get.String()},
	Start: func(w World) (Workload, error) {
		q, err := w.dial()
		return &fight{world: w, quorum: q, name: "register", clients: registerClients, resources: []string{"a", "b", "c"}}, err
	},
	Check: checkRegister,
}

// fight has a crowd at work. Every round has resources and clients of its own.
type fight struct {
	world     World
	quorum    *quorum
	name      string
	clients   int
	resources []string
}

// answer is what came of a call of a crowd, as it is recorded.
type answer struct {
	Outcome history.Outcome
	Saw     history.Sight
	Detail  string
}

func (f *fight) Run(ctx context.Context, round int) error {
	var names []string
	for _, r := range f.resources {
		names = append(names, fmt.Sprintf("%s/r%d/%s", f.name, round, r))
	}
	var running sync.WaitGroup
	for id := range f.clients {
		client := crowd.New(crowd.Config{
			ID: id, Seed: f.world.Seed + uint64(round)<<32, Nodes: f.quorum.nodes, Names: cluster.Regions[:], Resources: names,
			Start: time.Now(), Pace: registerPace, Local: f.world.Local, Begin: f.begin,
		})
		running.Go(func() { client.Run(ctx) })
	}
	running.Wait()
	return nil
}

func (f *fight) begin(op history.Op) func(history.Op) {
	op.Call = 0 // the record has the time
	done := f.world.Record.Call(f.name, fmt.Sprintf("client%d", op.Client), op.Kind.String(), op)
	return func(op history.Op) {
		outcome := record.Fail
		switch op.Outcome {
		case history.OK:
			outcome = record.OK
		case history.Unknown, history.Absurd:
			outcome = record.Unknown
		case history.Held, history.Expired, history.Released, history.NotHolder, history.NotFound, history.Refused:
		}
		done(outcome, answer{op.Outcome, op.Saw, op.Detail})
	}
}

func (f *fight) Close(context.Context) error {
	f.quorum.close()
	return nil
}

// Ops are the calls of a crowd that a record holds, by round. A call without an answer has an unknown outcome.
func Ops(h *record.History, workload string) (map[int][]history.Op, error) {
	rounds := make(map[int][]history.Op)
	for _, c := range h.Of(workload) {
		var op history.Op
		if err := record.Decode(c.Value, &op); err != nil {
			return nil, fmt.Errorf("call %d: %w", c.ID, err)
		}
		op.Call, op.Return, op.Outcome = c.At, h.Last, history.Unknown
		if !c.Open {
			var a answer
			if err := record.Decode(c.Result, &a); err != nil {
				return nil, fmt.Errorf("the answer to call %d: %w", c.ID, err)
			}
			op.Return, op.Outcome, op.Saw, op.Detail = c.Returned, a.Outcome, a.Saw, a.Detail
		}
		rounds[c.Round] = append(rounds[c.Round], op)
	}
	return rounds, nil
}

func checkRegister(h *record.History) []verdict.Judgement {
	const check = "linearizable"
	rounds, err := Ops(h, "register")
	if err != nil {
		return garbled("register", check, err)
	}
	var all []verdict.Judgement
	for _, round := range slices.Sorted(maps.Keys(rounds)) {
		ops := rounds[round]
		j := judgement("register", check, fmt.Sprintf("%d calls have an order that one lease table can have answered", len(ops)), round)
		decide(&j, round, history.Check(ops, decision))
		all = append(all, j)
	}
	return all
}

// decide puts into a judgement what came of the check of a round.
func decide(j *verdict.Judgement, round int, err error) {
	var violation *history.Violation
	switch {
	case errors.Is(err, history.ErrUndecided):
		j.Verdict, j.Reason = verdict.Unknown, err.Error()
	case errors.As(err, &violation):
		j.Reason = violation.Resource + " is not linearizable"
		blame(j, round, "%v", violation)
	case err != nil:
		j.Reason = err.Error()
		blame(j, round, "%v", err)
	}
}
