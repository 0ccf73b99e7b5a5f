package quorum

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"runtime/debug"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// How a Service runs its engine: events in, effects out.

// loop tells the engine of the time and of leadership.
func (s *Service) loop() {
	timer := s.clock.NewTimer(clock.Never)
	defer timer.Stop()
	leader, leadership := s.member.Leadership()
	s.step(Leadership{Leader: leader})
	for {
		s.withEngine(func() {
			if next := s.engine.effects.Wake; next != s.armed {
				s.armed = next
				timer.Reset(next)
			}
		})
		select {
		case <-s.rearm:
		case <-leadership:
			leader, leadership = s.member.Leadership()
			s.step(Leadership{Leader: leader})
		case <-timer.C():
			s.withEngine(func() { s.armed = clock.Never })
			s.step(Tick{})
		case <-s.ctx.Done():
			return
		}
	}
}

// step steps the engine by everything that has arrived, then by ev: it goes into the round that ev may make room for.
func (s *Service) step(ev EngineEvent) {
	s.withEngine(func() {
		s.drainLocked()
		s.stepLocked(ev)
	})
}

// withEngine runs f while nobody else has the engine, and looks after it at what arrived meanwhile: who brought that has
// found the engine taken, and left.
func (s *Service) withEngine(f func()) {
	func() {
		s.engineMu.Lock()
		defer s.endIfPanicking()
		f()
		s.engineMu.Unlock()
	}()
	s.turn()
}

// turn steps the engine by what has arrived, unless somebody has the engine, who will.
func (s *Service) turn() {
	defer s.endIfPanicking()
	for s.arrived() && s.engineMu.TryLock() {
		s.drainLocked()
		s.engineMu.Unlock()
	}
}

// endIfPanicking is deferred by whoever has the engine: if that panics, the process ends, and another node takes over. The step
// of a call runs in the goroutine of that call, where servers recover what panics. But the engine was left in the middle of a
// step, and nobody can trust its state: so it is never given back, and the panic goes on where nobody recovers it.
func (s *Service) endIfPanicking() {
	problem := recover()
	if problem == nil {
		return
	}
	s.logger.Error("the engine has panicked, and the node ends: its state cannot be trusted", "panic", problem, "stack", string(debug.Stack()))
	go panic(problem)
	select {}
}

func (s *Service) arrived() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inbox) > 0
}

// drainLocked takes in everything that has arrived, in order. The caller holds engineMu.
func (s *Service) drainLocked() {
	s.mu.Lock()
	items := s.inbox
	s.inbox = nil
	s.mu.Unlock()
	var submits Submits
	for _, item := range items {
		if item.abandoned == 0 {
			submits = append(submits, item.submit)
			continue
		}
		if len(submits) > 0 {
			s.stepLocked(submits)
			submits = nil
		}
		s.stepLocked(Abandoned{ID: item.abandoned})
	}
	if len(submits) > 0 {
		s.stepLocked(submits)
	}
}

func (s *Service) stepLocked(ev EngineEvent) {
	if s.over {
		return
	}
	was := s.engine.Role()
	effects := s.engine.Step(s.moment(), ev)
	s.perform(effects)
	s.publish(was)
	if effects.Wake.Before(s.armed) {
		select {
		case s.rearm <- struct{}{}:
		default:
		}
	}
}

func (s *Service) publish(was Role) {
	s.mu.Lock()
	s.role, s.held = s.engine.Role(), s.engine.Held()
	s.waitFor, s.until = s.engine.Waiting()
	s.mu.Unlock()
	if now := s.engine.Role(); now != was {
		s.logger.Debug("role changed", "from", was, "to", now)
		s.view.poke()
	}
}

// perform carries effects out. Everything that blocks happens elsewhere and comes back as an event.
func (s *Service) perform(e *Effects) {
	if e.Warning != "" {
		s.logger.Warn(e.Warning)
	}
	s.answer(e.Replies)
	if e.DropAll {
		s.dropAll()
	}
	switch {
	case e.Claim != 0:
		attempt := e.Claim
		s.own(func() { s.claim(attempt) })
	case e.Load != 0:
		attempt, term := e.Load, e.Term
		s.own(func() { s.load(attempt, term) })
	case e.Commit != nil || e.Confirm:
		w := roundWork{number: e.Round, term: e.Term, commit: e.Commit, confirm: e.Confirm}
		select {
		case s.rounds <- w:
		default: // the worker is still busy with a round of a term that was given up
			s.own(func() { s.carryOut(w) })
		}
	}
	if w := e.Witness; w != nil {
		witnessed := *w
		s.own(func() { s.witnessCeiling(witnessed) })
	}
}

// work carries out rounds.
func (s *Service) work() {
	for {
		select {
		case w := <-s.rounds:
			s.carryOut(w)
		case <-s.ctx.Done():
			return
		}
	}
}

// carryOut commits or confirms. A round that has no outcome after two elections is unknown.
func (s *Service) carryOut(w roundWork) {
	ctx, cancel := context.WithTimeout(s.ctx, 2*s.config.Election)
	defer cancel()
	var err error
	if w.confirm {
		err = s.member.Confirm(ctx, w.term)
	} else {
		_, err = s.member.Commit(ctx, w.term, w.commit)
		s.callHouse(w.commit)
	}
	if err != nil {
		s.logger.Debug("round failed", "commit", !w.confirm, "writes", len(w.commit), "error", err)
	}
	s.step(RoundDone{Round: w.number, Err: err})
}

func (s *Service) claim(attempt uint64) {
	var nonce [12]byte
	_, _ = rand.Read(nonce[:]) // never fails
	value, err := proto.Marshal(&writv1.TermRecord{Node: s.config.Name, Nonce: uint64(s.clock.Wall().UnixNano())})
	ctx, cancel := context.WithTimeout(s.ctx, 2*s.config.Election)
	defer cancel()
	var term Term
	if err == nil {
		term, err = s.member.Claim(ctx, value)
	}
	if err != nil {
		s.logger.Debug("claim failed", "error", err)
	}
	s.step(Claimed{Attempt: attempt, Term: term, Nonce: hex.EncodeToString(nonce[:]), Err: err})
}

// load hands the state over once the view has delivered the claim's own event.
func (s *Service) load(attempt uint64, term Term) {
	ctx, cancel := context.WithTimeout(s.ctx, 4*s.config.Election)
	defer cancel()
	if err := s.view.reachTerm(ctx, term); err != nil {
		s.step(Loaded{Attempt: attempt, Err: err})
		return
	}
	state, err := s.view.snapshot().Loaded()
	state.Attempt, state.Err = attempt, err
	s.testify(&state, s.witnessed)
	if err != nil {
		s.logger.Error("the state is unreadable", "error", err)
	}
	s.step(state)
}

// testify adds what the state is held against. What the nodes have told since it was read counts too, for decoding everything takes a
// while; so what this node remembers, which notes how far the view has come, is asked for before the view is, and the state is as
// far as the view: nothing that this history has committed meanwhile makes it look like a foreign one.
func (s *Service) testify(state *Loaded, witnessed func() *writv1.WitnessRecord) {
	state.Own = witnessed()
	r := s.view.roster()
	state.Identity, state.Nodes, state.Members, state.Revision = r.identity, sortedNodes(r.nodes), s.member.Members(), r.revision
}
