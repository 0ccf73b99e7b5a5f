package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

var errSlowGuard = errors.New("the guard does not read")

// follow tells a guard of what changes under its patterns, as long as its session lasts. It begins once, when the guard is
// known to the quorum: what was raised before is in the answer that made it known, or in the present state.
func (s *guardSession) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.following || s.gone {
		return
	}
	s.following = true
	for _, pattern := range outermost(append(append([]string{}, s.covers...), s.stamps...)) {
		w := &guardWatch{session: s, pattern: pattern, granted: make(map[lease.Resource]bool)}
		s.work.Go(w.run)
	}
}

// guardWatch follows what one pattern matches.
type guardWatch struct {
	session *guardSession
	pattern string
	granted map[lease.Resource]bool // of the stamps: told to be held
	stale   map[lease.Resource]bool // may have been told to be held, and not seen yet in the state that is being told anew
}

// run watches, again and again, until the session ends.
func (w *guardWatch) run() {
	s := w.session
	defer func() {
		if r := recover(); r != nil {
			s.end(s.guards.chain.recovered(s.ctx, r))
		}
	}()
	resume, pause := "", firstPause
	for {
		if resume == "" {
			w.anew()
		}
		err := s.guards.quorum.Watch(s.ctx, patternName(w.pattern), resume, func(ev quorum.WatchEvent) error {
			if ev.Resume != "" {
				resume = ev.Resume
			}
			pause = firstPause
			return w.tell(&ev)
		})
		switch {
		case s.ctx.Err() != nil:
			return
		case errors.Is(err, errSlowGuard):
			e := lease.Errorf(lease.ReasonLimit, "news of %d resources waited for %v to be read", s.news.limit, s.guards.patience)
			e.Fix = "read faster"
			s.end(e)
			return
		case errors.Is(err, lease.ErrInvalid):
			resume = "" // it was this service's own, so that nothing is known but that it will not do
		}
		s.guards.logger.Debug("what a guard covers is watched anew", "guard", s.name, "pattern", w.pattern, "error", err)
		if !wait(s.ctx, pause) {
			return
		}
		pause = min(2*pause, time.Second)
	}
}

// wait answers false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// anew prepares for the present state: what is not in it is not held any more. That goes for a name, too, that the guard may
// have been told of before its session.
func (w *guardWatch) anew() {
	w.stale = make(map[lease.Resource]bool, len(w.granted))
	for resource := range w.granted {
		w.stale[resource] = true
	}
	if !strings.HasSuffix(w.pattern, "*") {
		w.stale[lease.Resource(w.pattern)] = true
	}
}

// tell adds an event to the news.
func (w *guardWatch) tell(ev *quorum.WatchEvent) error {
	switch ev.Kind {
	case quorum.WatchResync:
		w.anew()
	case quorum.WatchSynced:
		for resource := range w.stale {
			if err := w.free(resource); err != nil {
				return err
			}
		}
		w.stale = nil
	case quorum.WatchState, quorum.WatchChanged:
		if w.matches(ev.Lease.Resource) {
			return w.resource(&ev.Lease, ev.Traceparent)
		}
	case quorum.WatchRemoved:
		if !w.matches(ev.Lease.Resource) {
			return nil
		}
		return w.removed(ev.Lease.Resource)
	case quorum.WatchProgress:
	}
	return nil
}

// matches keeps out names that only begin like the one that is watched.
func (w *guardWatch) matches(resource lease.Resource) bool { return lease.Covers(w.pattern, resource) }

func (w *guardWatch) removed(resource lease.Resource) error {
	w.session.mu.Lock()
	w.session.news.forget(string(resource))
	w.session.mu.Unlock()
	return w.free(resource)
}

func (w *guardWatch) resource(info *lease.Info, traceparent string) error {
	s, name := w.session, string(info.Resource)
	held := info.State == lease.Held || info.State == lease.Ending
	floor := uint64(info.Fencing)
	if held {
		floor = uint64(info.Token)
	}
	if coveredBy(s.covers, info.Resource) {
		if err := s.inform(func(n *news) bool { return n.raise(name, floorNews{token: floor, traceparent: traceparent}) }); err != nil {
			return err
		}
	}
	delete(w.stale, info.Resource)
	if !held {
		return w.free(info.Resource)
	}
	if !coveredBy(s.stamps, info.Resource) {
		return nil
	}
	w.granted[info.Resource] = true
	return s.inform(func(n *news) bool {
		return n.grant(name, grantNews{token: uint64(info.Token), region: info.Holder.Region})
	})
}

// free tells that nobody holds a resource, also where nobody was told to do so: not in this session.
func (w *guardWatch) free(resource lease.Resource) error {
	delete(w.granted, resource)
	if !coveredBy(w.session.stamps, resource) {
		return nil
	}
	return w.session.inform(func(n *news) bool { return n.grant(string(resource), grantNews{}) })
}

// inform adds to the news, and waits for room if there is none: for the guard's patience, and not longer.
func (s *guardSession) inform(add func(*news) bool) error {
	var timeout <-chan time.Time
	for {
		s.mu.Lock()
		added, room := add(&s.news), s.room
		s.mu.Unlock()
		if added {
			s.nudge()
			return nil
		}
		if timeout == nil {
			timer := time.NewTimer(s.guards.patience)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-room:
		case <-timeout:
			return errSlowGuard
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}
