package history

import (
	"cmp"
	"slices"
	"time"
)

// narrow prepares the calls of one resource for the judgement: it leaves out what can have had no effect that anybody saw,
// and ends calls of unknown outcome where their effect must have been there. The verdict stays the same:
//
//   - a read that was not answered, and a call that was refused, did nothing;
//   - a renewal that nobody knows of only makes the model stricter, so it might as well not have happened;
//   - a grant that nobody ever saw excluded nobody, and a checkpoint that no holder received mattered to nobody;
//   - a grant or a checkpoint that was seen had its effect before whoever saw it first had the answer;
//   - a release of a grant that has been seen to be over has had its effect before that, or never has one.
func narrow(ops []Op) []Op {
	seen := newSightings(ops)
	kept := make([]Op, 0, len(ops))
	for _, op := range ops {
		if op.Outcome == Refused {
			continue
		}
		if op.Outcome == Unknown {
			var keep bool
			if op, keep = seen.narrow(op); !keep {
				continue
			}
		}
		kept = append(kept, op)
	}
	slices.SortStableFunc(kept, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	return kept
}

// sightings tells when something was first known to somebody.
type sightings struct {
	grants map[string]grantSight    // by instance
	data   map[string]time.Duration // by checkpoint
	ends   map[uint64]time.Duration // by token, where the answer was about it
	tokens []tokenSight             // by token, each earliest among itself and all greater ones
}

type grantSight struct {
	token uint64
	at    time.Duration
}

type tokenSight struct {
	token uint64
	at    time.Duration
}

func newSightings(ops []Op) *sightings {
	s := &sightings{
		grants: make(map[string]grantSight), data: make(map[string]time.Duration), ends: make(map[uint64]time.Duration),
	}
	for _, op := range ops {
		if op.Outcome == Unknown || op.Outcome == Refused {
			continue
		}
		if op.Saw.Token != 0 {
			s.sawGrant(op)
		}
		if op.Saw.Free {
			earlier(s.ends, op.Saw.Token, op.Return)
		}
		if op.Outcome == Expired || op.Outcome == Released || op.Outcome == NotHolder {
			earlier(s.ends, op.Token, op.Return)
		}
		if op.Saw.Data != "" {
			earlier(s.data, op.Saw.Data, op.Return)
		}
	}
	slices.SortFunc(s.tokens, func(a, b tokenSight) int { return cmp.Compare(a.token, b.token) })
	for i := len(s.tokens) - 2; i >= 0; i-- {
		s.tokens[i].at = min(s.tokens[i].at, s.tokens[i+1].at)
	}
	return s
}

func (s *sightings) sawGrant(op Op) {
	s.tokens = append(s.tokens, tokenSight{op.Saw.Token, op.Return})
	if old, ok := s.grants[op.Saw.Holder]; !ok || op.Return < old.at {
		s.grants[op.Saw.Holder] = grantSight{op.Saw.Token, op.Return}
	}
}

func earlier[K comparable](m map[K]time.Duration, key K, at time.Duration) {
	if old, ok := m[key]; !ok || at < old {
		m[key] = at
	}
}

// narrow ends a call of unknown outcome, or tells that it does not matter.
func (s *sightings) narrow(op Op) (Op, bool) {
	op.Return = open
	switch op.Kind {
	case Acquire:
		grant, ok := s.grants[op.Instance]
		if !ok {
			return op, false
		}
		op.Saw.Token, op.Saw.Holder, op.Return = grant.token, op.Instance, grant.at
	case Checkpoint:
		at, ok := s.data[op.Data]
		if !ok {
			return op, false
		}
		op.Return = at
	case Release:
		if at, ok := s.ends[op.Token]; ok {
			op.Return = at
		}
		i, _ := slices.BinarySearchFunc(s.tokens, op.Token+1, func(t tokenSight, token uint64) int { return cmp.Compare(t.token, token) })
		if i < len(s.tokens) {
			op.Return = min(op.Return, s.tokens[i].at)
		}
	case Renew, Get:
		return op, false
	}
	// What was seen before the call was made cannot be its doing. A grant or a checkpoint of that kind is a violation: it
	// stays, to be found.
	if op.Return < op.Call {
		if op.Kind == Release {
			return op, false
		}
		op.Return = op.Call
	}
	return op, true
}
