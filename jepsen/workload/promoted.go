//go:build linux

package workload

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// granting are the states of a promotion, from the end of one tenure to where everything is settled. Some may be over before
// anybody looks.
var granting = []string{"fencing", "tail", "granted", "verifying", "degraded", "reconciled", "rolling_back"}

// proved are those in which every guard has to have been proved.
var proved = []string{"granted", "verifying", "degraded", "reconciled", "done"}

// acked is the proof that a guard has raised its floor.
const acked = "acked"

// Proofs are those that let nothing older through. Nobody attests anything in these runs, and every rule is to fail closed.
var Proofs = []string{acked, "cut", "lapsed"}

// ending are those that a promotion does not leave.
var ending = []string{"done", "cancelled", "expired", "superseded", "void", "rolled_back"}

// sightings are what was seen in a record.
type sightings struct {
	promotions map[string][]promoted // by id, in the order in which they were seen
	order      map[string][]int      // the places of these among all that was seen: one after the other looked
	rounds     map[string]int        // in which a promotion was seen last
	groups     []grouped
	open       [][]promoted // all at a time
	hooks      []ran
	primaries  map[fence.Token]string // who had the tenure of a token
}

func checkPromotion(h *record.History) []verdict.Judgement {
	const check = "S1 and S6"
	s, err := seenIn(h)
	if err != nil {
		return garbled(Promotion, check, err)
	}
	tenures := judgement(Promotion, check, fmt.Sprintf("%d promotions, one at a time, each under a newer token and with every guard proved", len(s.promotions)))
	s.checkGroups(&tenures)
	for _, id := range slices.Sorted(maps.Keys(s.promotions)) {
		s.checkPromotion(&tenures, id)
	}
	s.checkOverlaps(&tenures)
	s.checkTokens(&tenures)
	s.checkHooks(&tenures)
	if err := s.checkWriters(&tenures, h); err != nil {
		return garbled(Promotion, check, err)
	}
	if tenures.Verdict == verdict.Invalid {
		tenures.Reason = "promotions were not what was promised"
	}
	return []verdict.Judgement{tenures, checkAppends(h, Promotion, promotionWrites), s.checkEnds(h)}
}

func seenIn(h *record.History) (*sightings, error) {
	s := &sightings{promotions: make(map[string][]promoted), order: make(map[string][]int), rounds: make(map[string]int), primaries: make(map[fence.Token]string)}
	for i, e := range h.Events {
		if e.Workload != Promotion {
			continue
		}
		var err error
		switch e.Op {
		case opState:
			var p promoted
			if err = record.Decode(e.Value, &p); err == nil {
				s.order[p.ID] = append(s.order[p.ID], i)
				s.promotions[p.ID] = append(s.promotions[p.ID], p)
				s.rounds[p.ID] = e.Round
			}
		case opGroup:
			var g grouped
			if err = record.Decode(e.Value, &g); err == nil {
				s.groups = append(s.groups, g)
			}
		case opOpen:
			var open []promoted
			if err = record.Decode(e.Value, &open); err == nil {
				s.open = append(s.open, open)
			}
		case opHook:
			var r ran
			if err = record.Decode(e.Value, &r); err == nil {
				s.hooks = append(s.hooks, r)
			}
		default:
			err = fmt.Errorf("field \"op\" is %q: no event has it", e.Op)
		}
		if err != nil {
			return nil, fmt.Errorf("an event at %v: %w", e.At, err)
		}
	}
	return s, nil
}

// checkGroups looks for a token that goes back, or that two regions had.
func (s *sightings) checkGroups(j *verdict.Judgement) {
	var newest fence.Token
	for _, g := range s.groups {
		if g.Token < newest {
			blame(j, 0, "the group has token %v, after %v", g.Token, newest)
		}
		newest = max(newest, g.Token)
		if g.Primary == "" {
			continue
		}
		if other := s.primaries[g.Token]; other != "" && other != g.Primary {
			blame(j, 0, "%s and %s both had the tenure of token %v", other, g.Primary, g.Token)
		}
		s.primaries[g.Token] = g.Primary
	}
}

// checkPromotion holds one against what it expected and had proved.
func (s *sightings) checkPromotion(j *verdict.Judgement, id string) {
	var token fence.Token
	for _, p := range s.promotions[id] {
		if p.Token != 0 && p.Token <= p.Expected {
			blame(j, s.rounds[id], "%s: token %v after %v", id, p.Token, p.Expected)
		}
		if p.Token != 0 && p.Token < token {
			blame(j, s.rounds[id], "%s: token %v after %v", id, p.Token, token)
		}
		token = max(token, p.Token)
		if p.State == "void" {
			blame(j, s.rounds[id], "%s is void, though the quorum was never restored", id)
		}
		if !slices.Contains(proved, p.State) {
			continue
		}
		for i := range lab.GuardCount {
			if how := p.Proofs[lab.Guard(i)]; !slices.Contains(Proofs, how) {
				blame(j, s.rounds[id], "%s is %s, and how %s was proved is %q", id, p.State, lab.Guard(i), how)
			}
		}
	}
}

// span is from where to where a promotion was seen to be at it.
type span struct {
	id          string
	first, last int
}

// checkOverlaps looks for two promotions at a time: in what one node told at once, and in the order of what was seen.
func (s *sightings) checkOverlaps(j *verdict.Judgement) {
	for _, open := range s.open {
		var under []string
		for _, p := range open {
			if slices.Contains(granting, p.State) {
				under = append(under, p.ID+" "+p.State)
			}
		}
		if len(under) > 1 {
			blame(j, 0, "at a time: %s", strings.Join(under, ", "))
		}
	}
	var spans []span
	for id, all := range s.promotions {
		var at []int
		for i, p := range all {
			if slices.Contains(granting, p.State) {
				at = append(at, s.order[id][i])
			}
		}
		if len(at) > 0 {
			spans = append(spans, span{id, at[0], at[len(at)-1]})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	for i, this := range spans {
		for _, other := range spans[:i] {
			if this.first < other.last {
				blame(j, s.rounds[this.id], "%s was under way before %s was over", this.id, other.id)
			}
		}
	}
}

// checkTokens looks for a token that two promotions gave.
func (s *sightings) checkTokens(j *verdict.Judgement) {
	given := make(map[fence.Token]string)
	for _, id := range slices.Sorted(maps.Keys(s.promotions)) {
		for _, p := range s.promotions[id] {
			if p.Token == 0 {
				continue
			}
			if other := given[p.Token]; other != "" && other != id {
				blame(j, s.rounds[id], "%s and %s both gave token %v", other, id, p.Token)
			}
			given[p.Token] = id
		}
	}
}

// checkHooks looks for a hook that ran twice.
func (s *sightings) checkHooks(j *verdict.Judgement) {
	begun := make(map[ran]bool)
	for _, r := range s.hooks {
		if begun[r] {
			blame(j, s.rounds[r.ID], "%s of %s ran twice in %s, in step %s", r.Kind, r.ID, r.Region, r.Step)
		}
		begun[r] = true
	}
}

// checkWriters looks for a write that was acknowledged to another region than the one that had the tenure.
func (s *sightings) checkWriters(j *verdict.Judgement, h *record.History) error {
	for _, c := range h.Of(promotionWrites) {
		var what attempt
		if err := record.Decode(c.Value, &what); err != nil {
			return fmt.Errorf("call %d: %w", c.ID, err)
		}
		primary := s.primaries[what.Token]
		if c.Outcome == record.OK && primary != "" && !strings.HasPrefix(c.Client, lab.PairWriter(primary)+".") {
			blame(j, c.Round, "%s was acknowledged to %s under token %v, which %s had", what.Element, c.Client, what.Token, primary)
		}
	}
	return nil
}

// checkEnds wants every promotion that was begun to come to an end when the faults are over.
func (s *sightings) checkEnds(h *record.History) verdict.Judgement {
	counts := make(map[string]int)
	j := judgement(Promotion, "ends", "")
	for _, id := range slices.Sorted(maps.Keys(s.promotions)) {
		all := s.promotions[id]
		last := all[len(all)-1]
		counts[last.State]++
		if !slices.Contains(ending, last.State) {
			blame(&j, s.rounds[id], "%s is %s in the end: %s", id, last.State, last.Reason)
		}
	}
	for _, c := range h.Of(Promotion) {
		var last promoted
		if c.Outcome != record.Unknown || c.Result == nil {
			continue // it ended, or was never known to be there
		}
		if err := record.Decode(c.Result, &last); err != nil {
			return garbled(Promotion, "ends", fmt.Errorf("the answer to call %d: %w", c.ID, err))[0]
		}
		blame(&j, c.Round, "%s was %s %v after the faults: %s", last.ID, last.State, finishTime, last.Reason)
	}
	var told []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		told = append(told, fmt.Sprintf("%d %s", counts[state], state))
	}
	j.Reason = "promotions: " + strings.Join(told, ", ")
	if !h.Complete() {
		j.Verdict = verdict.Unknown
	}
	return j
}
