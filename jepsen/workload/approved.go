//go:build linux

package workload

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// proposal is an operation, and what people did with it.
type proposal struct {
	id       string
	number   uint64
	version  uint64
	round    int
	approves []*record.Call
	people   []string // of approves
	withdrew map[string]time.Duration
	executed time.Duration // when somebody was told that it was; 0: nobody was
	tried    bool          // somebody asked for its execution, and was not refused for good
	began    time.Duration // when its execution was first asked for
}

func checkApprovals(h *record.History) []verdict.Judgement {
	const check = "S8"
	all, err := proposals(h)
	if err != nil {
		return garbled(Approvals, check, err)
	}
	groups, err := officeGroups(h)
	if err != nil {
		return garbled(Approvals, check, err)
	}
	j := judgement(Approvals, check, "")
	numbers, done := make(map[uint64]*proposal), 0
	versions := make(map[uint64]*proposal)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		p := all[id]
		numbers[p.number] = p
		for i, c := range p.approves {
			if what := p.people[i]; what == "" && c.Outcome == record.OK {
				blame(&j, c.Round, "%s: a signature over something else was taken", id)
			}
		}
		if p.executed == 0 {
			continue
		}
		done++
		if n := p.agreed(); n < 2 {
			blame(&j, p.round, "%s was executed, and %d people can have agreed", id, n)
		}
		if other := versions[p.version]; other != nil {
			blame(&j, p.round, "%s and %s were both made for version %d, and executed", other.id, id, p.version)
		}
		versions[p.version] = p
	}
	was := make(map[uint64]uint64)
	for _, g := range groups {
		if before, known := was[g.Version]; known && before != g.Number {
			blame(&j, 0, "version %d has the number %d, and had %d", g.Version, g.Number, before)
		}
		was[g.Version] = g.Number
		p := numbers[g.Number]
		switch {
		case g.Number == 0:
		case p == nil && h.Complete():
			blame(&j, 0, "the number is %d, which nobody has proposed and heard of", g.Number)
		case p != nil && !p.tried:
			blame(&j, p.round, "%s has had its effect, and was refused or never asked for", p.id)
		case p != nil && p.agreed() < 2:
			blame(&j, p.round, "%s has had its effect, and %d people can have agreed", p.id, p.agreed())
		}
	}
	j.Reason = fmt.Sprintf("%d changes, %d executed, each once and with two people", len(all), done)
	if j.Verdict == verdict.Invalid {
		j.Reason = "changes happened that people had not agreed to, or more than once"
	}
	return []verdict.Judgement{j}
}

// agreed counts the people who may have agreed when it was executed: whose signature was not refused and not surely taken back.
func (p *proposal) agreed() int {
	agreed := make(map[string]bool)
	for i, c := range p.approves {
		who := p.people[i]
		back, withdrew := p.withdrew[who]
		switch {
		case who == "" || c.Outcome == record.Fail, p.executed != 0 && c.At > p.executed:
		case withdrew && back < p.began: // nobody can sign again then
		default:
			agreed[who] = true
		}
	}
	return len(agreed)
}

// proposals reads the record.
func proposals(h *record.History) (map[string]*proposal, error) {
	all := make(map[string]*proposal)
	for _, c := range h.Of(Approvals) {
		value := c.Value
		if c.Op == opPropose {
			value = c.Result
		}
		var what asked
		if c.Op == "apply" || c.Op == opPropose && c.Outcome != record.OK {
			continue
		}
		if err := record.Decode(value, &what); err != nil {
			return nil, fmt.Errorf("call %d: %w", c.ID, err)
		}
		if c.Op == opPropose {
			if what.ID != "" {
				all[what.ID] = &proposal{id: what.ID, number: what.Number, version: what.Version, round: c.Round, withdrew: make(map[string]time.Duration)}
			}
			continue
		}
		p := all[what.ID]
		if p == nil {
			return nil, fmt.Errorf("call %d: field \"id\" is %q: nobody has proposed it", c.ID, what.ID)
		}
		p.take(c, what)
	}
	return all, nil
}

func (p *proposal) take(c *record.Call, what asked) {
	switch c.Op {
	case opApprove:
		who := what.Person
		if what.Of != "" {
			who = "" // it counts for nothing
		}
		p.approves, p.people = append(p.approves, c), append(p.people, who)
	case opWithdraw:
		if c.Outcome == record.OK {
			p.withdrew[what.Person] = c.Returned
		}
	case opExecuteOperation:
		if p.began == 0 {
			p.began = c.At
		}
		p.tried = p.tried || c.Outcome != record.Fail
		if c.Outcome == record.OK && (p.executed == 0 || c.Returned < p.executed) {
			p.executed = c.Returned
		}
	}
}

// officeGroups are what was seen of the group.
func officeGroups(h *record.History) (all []grouped, err error) {
	for _, e := range h.Events {
		if e.Workload != Approvals {
			continue
		}
		var g grouped
		if err := record.Decode(e.Value, &g); err != nil {
			return nil, fmt.Errorf("an event at %v: %w", e.At, err)
		}
		all = append(all, g)
	}
	return all, nil
}
