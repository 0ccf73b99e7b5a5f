package history

import (
	"fmt"
	"time"
)

// state is one resource as the model has it. States are compared by ==.
type state struct {
	phase  phase
	token  uint64 // of the present or last grant, 0 before the first
	holder string
	end    End
	data   string
	// notBefore is the earliest moment at which the present grant can expire.
	notBefore time.Duration
	// now is a moment that has come: the one before which no expiry was possible that has been seen.
	now time.Duration
}

type phase uint8

const (
	free phase = iota
	held
	// late: refused as expired, though reads may still show it as held.
	late
)

// step returns the states in which the resource can be after op. None means that op cannot have been answered so.
func (s state) step(op Op) []state {
	if op.Return < s.now {
		return nil
	}
	if op.Outcome == Unknown {
		return s.unknown(op)
	}
	next, ok := s, false
	switch op.Kind {
	case Acquire:
		next, ok = s.acquire(op)
	case Get:
		next, ok = s.get(op)
	case Renew, Release, Checkpoint:
		if op.Outcome == OK {
			next, ok = s.act(op)
		} else {
			next, ok = s.refuse(op)
		}
	}
	if !ok {
		return nil
	}
	return []state{next}
}

// unknown lets op have its effect, or not.
func (s state) unknown(op Op) []state {
	next, ok := s, false
	switch op.Kind {
	case Acquire:
		next, ok = s.grant(op)
	case Renew, Release, Checkpoint:
		next, ok = s.act(op)
	case Get:
	}
	if !ok {
		return []state{s}
	}
	return []state{s, next}
}

// over returns the resource free: as it is, or because its lease may have expired before op returned.
func (s state) over(op Op) (state, bool) {
	if s.phase == free {
		return s, true
	}
	if op.Return < s.notBefore {
		return s, false
	}
	s.now = max(s.now, s.notBefore)
	s.phase, s.end = free, EndExpired
	return s, true
}

func (s state) acquire(op Op) (state, bool) {
	switch op.Outcome {
	case OK:
		return s.grant(op)
	case Held:
		return s, s.phase != free && s.token == op.Saw.Token && s.holder == op.Saw.Holder
	case Expired, Released, NotHolder, NotFound, Refused, Unknown, Absurd:
	}
	return s, false
}

func (s state) grant(op Op) (state, bool) {
	s, ok := s.over(op)
	if !ok || op.Saw.Token <= s.token || op.Saw.Holder != op.Instance {
		return s, false
	}
	if op.Outcome == OK && op.Saw.Data != s.data {
		return s, false
	}
	s.phase, s.end = held, NotEnded
	s.token, s.holder = op.Saw.Token, op.Instance
	s.notBefore = op.Call + op.TTL
	return s, true
}

// act carries out what only the present grant may.
func (s state) act(op Op) (state, bool) {
	if s.phase != held || s.token != op.Token || s.holder != op.Instance {
		return s, false
	}
	switch op.Kind {
	case Renew:
		s.notBefore = max(s.notBefore, op.Call+op.TTL)
	case Release:
		s.phase, s.end = free, EndReleased
	case Checkpoint:
		s.data = op.Data
	case Acquire, Get:
		return s, false
	}
	return s, true
}

// refuse judges an answer that the grant is over. Of grants before the last the model does not remember how they ended.
func (s state) refuse(op Op) (state, bool) {
	if op.Token != s.token {
		return s, op.Token < s.token && (op.Outcome == Expired || op.Outcome == Released || op.Outcome == NotHolder)
	}
	switch op.Outcome {
	case Expired:
		if s.phase == free {
			return s, s.end == EndExpired
		}
		expired, ok := s.over(op)
		s.phase, s.now = late, expired.now
		return s, ok
	case Released:
		return s, s.phase == free && s.end == EndReleased
	case NotHolder:
		return s.over(op)
	case OK, Held, NotFound, Refused, Unknown, Absurd:
	}
	return s, false
}

func (s state) get(op Op) (state, bool) {
	switch {
	case op.Outcome == NotFound:
		return s, s.token == 0
	case op.Outcome != OK || op.Saw.Token != s.token || op.Saw.Holder != s.holder:
		return s, false
	case !op.Saw.Free:
		return s, s.phase != free
	}
	s, ok := s.over(op)
	return s, ok && s.end == op.Saw.End
}

func (s state) String() string {
	switch s.phase {
	case held:
		return fmt.Sprintf("held by %s under %d, until %s at least, data %q", s.holder, s.token, ms(s.notBefore), s.data)
	case late:
		return fmt.Sprintf("expired, not yet recorded, under %d of %s, data %q", s.token, s.holder, s.data)
	case free:
		if s.token == 0 {
			return "never granted"
		}
		return fmt.Sprintf("free (%s) after %d of %s, data %q", s.end, s.token, s.holder, s.data)
	}
	return "?"
}
