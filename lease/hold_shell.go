package lease

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// keeperShell runs the Keeper of a client: it tells it the time and what happened, sends the renewals that it asks for,
// and lets holds know what to believe.
//
// Events are stepped by whoever has them, under mu, so that a grant or a release costs no change of goroutine; the one
// loop only wakes the Keeper in time.
type keeperShell struct {
	client *Client
	clock  clock.Clock

	// The watchdog's observations are counted, so that a hold is not believed between the moment at which a freeze shows
	// and the step that puts its lease on probation.
	watchMu    sync.Mutex
	watchdog   clock.Watchdog // guarded by watchMu
	suspicions atomic.Uint64  // written under watchMu
	handled    atomic.Uint64  // written under mu; what the Keeper has heard of

	mu     sync.Mutex
	keeper *Keeper            // guarded by mu
	holds  map[KeeperID]*Hold // guarded by mu
	lastID KeeperID           // guarded by mu
	closed bool               // guarded by mu
	timer  clock.Timer
	armed  clock.Instant // guarded by mu; when the timer fires, 0 if stopped

	poke  chan struct{} // wakes the loop
	slots chan struct{} // bounds the renewals under way
	calls sync.WaitGroup
}

const (
	// keeperWatch is how often the two clocks are compared while leases are held.
	keeperWatch = time.Second
	// keeperSlots bounds the renewals under way. One of 10,000 leases that hangs is hedged up to four times, so this many
	// hold up nobody with fewer than 120,000 leases.
	keeperSlots = 64
)

func newKeeperShell(c *Client, spread int) (*keeperShell, error) {
	keeper, err := NewKeeper(KeeperConfig{Drift: c.cfg.Drift, RenewPermille: c.cfg.RenewPermille, SpreadPermille: spread})
	if err != nil {
		return nil, err
	}
	s := &keeperShell{
		client: c, clock: c.cfg.Clock, keeper: keeper, holds: make(map[KeeperID]*Hold),
		poke: make(chan struct{}, 1), slots: make(chan struct{}, keeperSlots),
		timer: c.cfg.Clock.NewTimer(keeperNever),
	}
	s.timer.Stop()
	return s, nil
}

// run wakes the Keeper in time until ctx ends.
func (s *keeperShell) run(ctx context.Context) {
	defer s.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.timer.C():
		case <-s.poke:
		}
		s.step(KeeperTick{})
	}
}

// look returns the present instant, and whether it may be compared with a deadline: not between a freeze and its handling.
func (s *keeperShell) look() (now clock.Instant, trusted bool) {
	s.watchMu.Lock()
	now = s.clock.Now()
	_, suspect := s.watchdog.Observe(now, s.clock.Wall())
	if suspect {
		s.suspicions.Add(1)
	}
	s.watchMu.Unlock()
	if suspect {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
	return now, s.suspicions.Load() == s.handled.Load()
}

// step tells the Keeper what happened and carries out what follows.
func (s *keeperShell) step(event KeeperEvent) {
	s.mu.Lock()
	lost, _ := s.stepLocked(event)
	s.mu.Unlock()
	s.announce(lost)
}

// announce ends the contexts of lost holds. It is called without mu, because contexts run other people's code.
func (s *keeperShell) announce(lost []heldLoss) {
	for _, l := range lost {
		s.client.cfg.Logger.Warn("lease lost", "resource", l.hold.grant.Resource, "token", l.hold.grant.Token, "cause", l.cause)
		l.hold.cancel(l.cause)
	}
}

// heldLoss is a hold whose context has to end.
type heldLoss struct {
	hold  *Hold
	cause error
}

// stepLocked steps the Keeper, after a suspicion if there is one. It returns the holds to cancel and the renewal that a
// KeeperVerify asked for. The caller holds mu.
func (s *keeperShell) stepLocked(event KeeperEvent) (lost []heldLoss, verify *Renewal) {
	if s.closed {
		return nil, nil
	}
	now, _ := s.look()
	if seen := s.suspicions.Load(); seen != s.handled.Load() {
		s.client.cfg.Logger.Warn("the clock may have missed time; renewing every lease before it is believed again", "leases", s.keeper.Len())
		lost, _ = s.apply(lost, s.keeper.Step(now, KeeperSuspected{}))
		s.handled.Store(seen)
	}
	lost, verify = s.apply(lost, s.keeper.Step(now, event))
	return lost, verify
}

// apply carries out effects. The caller holds mu.
func (s *keeperShell) apply(lost []heldLoss, effects KeeperEffects) ([]heldLoss, *Renewal) {
	for _, b := range effects.Beliefs {
		h := s.holds[b.ID]
		h.until.Store(int64(b.Until))
		if b.Until == 0 {
			h.over.Store(0)
		} else {
			h.over.Store(int64(b.Until.Add(h.lead)))
		}
	}
	for _, l := range effects.Lost {
		h := s.holds[l.ID]
		h.until.Store(0)
		if l.Cause != LostDeadline {
			h.over.Store(0)
		}
		delete(s.holds, l.ID)
		lost = append(lost, heldLoss{h, &LostError{
			Resource: h.grant.Resource, Token: h.grant.Token, Cause: l.Cause, Reason: l.Reason,
		}})
	}
	for _, id := range effects.Contended {
		if h := s.holds[id]; h != nil {
			close(h.contended)
		}
	}
	var verify *Renewal
	for _, r := range effects.Renewals {
		if r.Verify != 0 {
			verify = &r
			continue
		}
		s.calls.Go(func() {
			s.slots <- struct{}{}
			defer func() { <-s.slots }()
			_ = s.renew(s.client.ctx, r, s.client.nodes.renewVia(r.Attempt, r.SentAt)) // the Keeper has been told
		})
	}
	s.arm(effects.Wake)
	return lost, verify
}

// arm sets the timer for the Keeper's wake or the next comparison of clocks. A timer that fires too early does no harm, so
// it is not set back. The caller holds mu.
func (s *keeperShell) arm(wake clock.Instant) {
	if wake == 0 {
		if s.armed != 0 {
			s.timer.Stop()
			s.armed = 0
		}
		return
	}
	now := s.clock.Now()
	wake = min(wake, now.Add(keeperWatch))
	if s.armed == 0 || wake.Before(s.armed) || !now.Before(s.armed) {
		s.timer.Reset(wake)
		s.armed = wake
	}
}

// adopt takes a granted lease in. It returns false if the grant came too late to be believed, and [ErrClosed] if there is
// nobody to keep it.
func (s *keeperShell) adopt(h *Hold, sent clock.Instant) (bool, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false, ErrClosed
	}
	if !s.clock.Now().Before(s.client.cfg.Drift.BelieveUntil(sent, h.grant.TTL).Add(-h.lead)) {
		s.mu.Unlock()
		return false, nil
	}
	s.lastID++
	h.id = s.lastID
	s.holds[h.id] = h
	lost, _ := s.stepLocked(KeeperGranted{
		ID: h.id, Ref: Ref{Resource: h.grant.Resource, Token: h.grant.Token}, TTL: h.grant.TTL, Lead: h.lead,
		SentAt: sent,
	})
	s.mu.Unlock()
	s.announce(lost)
	return true, nil
}

// releaseHold stops the renewal of a lease for good. When it returns, no renewal that names the lease will be started.
func (s *keeperShell) releaseHold(h *Hold) {
	s.mu.Lock()
	lost, _ := s.stepLocked(KeeperReleased{ID: h.id})
	h.until.Store(0)
	delete(s.holds, h.id)
	s.mu.Unlock()
	s.announce(lost)
	h.cancel(ErrReleased)
}

// verify asks the Keeper for a renewal of one lease. It returns false if the lease is over.
func (s *keeperShell) verify(h *Hold) (Renewal, bool) {
	s.mu.Lock()
	lost, renewal := s.stepLocked(KeeperVerify{ID: h.id})
	s.mu.Unlock()
	s.announce(lost)
	if renewal == nil {
		return Renewal{}, false
	}
	return *renewal, true
}

// renew sends one renewal to a node and tells the Keeper what came of it.
func (s *keeperShell) renew(ctx context.Context, r Renewal, e *dialEndpoint) error {
	now := s.clock.Now()
	limit := r.Deadline.Sub(now)
	if r.Verify != 0 {
		limit = min(limit, max(r.Hedge.Sub(now), clientSlack(e)))
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	slow := time.AfterFunc(max(r.Hedge.Sub(now), clientSlack(e)), func() { s.client.nodes.failed(e, errSlow) })
	response, err := e.lease.Renew(call, renewRequest(r, s.client.cfg.Instance))
	slow.Stop()
	var outcome RenewOutcome
	if err == nil {
		outcome, err = RenewOutcomeFromProto(response, r.Len())
	}
	if err = FromError(err); err == nil {
		s.client.nodes.answered(e)
		s.step(KeeperRenewed{Renewal: r, Outcome: outcome})
		return nil
	}
	if ctx.Err() == nil {
		if clientRetryable(err) {
			s.client.nodes.failed(e, err)
		}
		s.client.cfg.Logger.Warn("renewal failed", "leases", r.Len(), "attempt", r.Attempt, "endpoint", e.address, "error", err)
	}
	s.step(KeeperRenewed{Renewal: r, Failed: true})
	return err
}

// renewRequest builds the message of a renewal. All its parts share one allocation.
func renewRequest(r Renewal, instance string) *writv1.RenewRequest {
	messages := make([]writv1.LeaseRef, r.Len())
	leases := make([]*writv1.LeaseRef, r.Len())
	for i := range messages {
		ref := r.Ref(i)
		messages[i].Resource, messages[i].Token = string(ref.Resource), uint64(ref.Token)
		leases[i] = &messages[i]
	}
	return &writv1.RenewRequest{Leases: leases, Instance: instance}
}

// close forgets every lease, ends all holds and joins the renewals under way, whose context must have ended.
func (s *keeperShell) close() {
	s.mu.Lock()
	s.keeper.Step(s.clock.Now(), KeeperForgotten{})
	s.closed = true
	holds := make([]*Hold, 0, len(s.holds))
	for _, h := range s.holds {
		h.until.Store(0)
		holds = append(holds, h)
	}
	clear(s.holds)
	s.mu.Unlock()
	for _, h := range holds {
		h.cancel(ErrClosed)
	}
	s.calls.Wait()
}

// all returns every hold.
func (s *keeperShell) all() []*Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	holds := make([]*Hold, 0, len(s.holds))
	for _, h := range s.holds {
		holds = append(holds, h)
	}
	return holds
}
