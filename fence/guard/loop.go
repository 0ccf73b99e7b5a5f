package guard

import (
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/floors"
	"github.com/writ-io/writ/lease/clock"
)

// How the guard runs its gate: events in, effects out. Whoever has an event steps the gate by it; the loop only lets time pass.

const (
	// watchEvery is how often clock and time of day are compared when nothing is admitted.
	watchEvery = time.Second
	// maxRaises bounds the raises whose duration is measured at a time.
	maxRaises = 1 << 16
)

// loop wakes the gate in time.
func (g *Guard) loop() {
	defer g.timer.Stop()
	g.tell(gate.Tick{})
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.timer.C():
		}
		g.mu.Lock()
		g.armed = clock.Never
		after := g.step(gate.Tick{})
		g.mu.Unlock()
		g.finish(after)
	}
}

// tell steps the gate by an event.
func (g *Guard) tell(e gate.Event) {
	g.mu.Lock()
	after := g.step(e)
	g.mu.Unlock()
	g.finish(after)
}

// later is what a step leaves to be done without the lock.
type later func()

func (g *Guard) finish(after []later) {
	for _, f := range after {
		f()
	}
}

// look reads the clock, and tells the gate if it may have missed time. The caller holds mu.
func (g *Guard) look() []later {
	g.now = g.clock.Now()
	wall := g.clock.Wall()
	if _, suspect := g.watchdog.Observe(g.now, wall); !suspect {
		return nil
	}
	after := []later{func() {
		g.logger.Warn("the clock may have missed time; nothing is believed before the quorum is heard again")
	}}
	return append(after, g.apply(g.gate.Step(g.now, gate.Suspicion{Wall: wall}))...)
}

// step steps the gate by an event, at the present instant. The caller holds mu.
func (g *Guard) step(e gate.Event) []later {
	if g.over {
		return nil
	}
	return append(g.look(), g.apply(g.gate.Step(g.now, e))...)
}

// apply carries effects out, and returns what has to be done without the lock. The caller holds mu.
func (g *Guard) apply(e *gate.Effects) []later {
	if e == nil {
		return nil
	}
	var after []later
	if e.Warning != "" {
		warning := e.Warning
		after = append(after, func() { g.logger.Warn(warning) })
	}
	if e.Keys != "" {
		jwks := e.Keys
		after = append(after, func() { g.adopt(jwks) })
	}
	g.disk.write(e.Persist)
	if t := g.talk; t != nil {
		g.noteAcks(e.Send)
		if len(e.Send) > 0 {
			t.say(e.Send...)
		}
		for _, p := range e.Probe {
			g.probe(t, p)
		}
		if e.Reconnect {
			t.cancel(errSilent)
		}
	}
	for _, id := range e.Opened {
		for _, waiting := range g.opening[id] {
			close(waiting)
		}
		delete(g.opening, id)
	}
	for _, told := range e.Grants {
		g.noteGrant(told)
	}
	for _, ticket := range e.Cut {
		if a := g.cuttable[ticket]; a != nil {
			close(a.cut)
			delete(g.cuttable, ticket)
			continue
		}
		g.cut[ticket] = struct{}{}
	}
	if e.Left {
		close(g.left)
	}
	g.arm(e.Wake)
	return append(after, g.decide(e.Decided)...)
}

// decide wakes those that waited. The caller holds mu.
func (g *Guard) decide(decisions []gate.Decided) []later {
	var orphans []gate.Ticket
	for _, d := range decisions {
		p := g.parked[d.Ticket]
		if p == nil {
			if d.Err == nil {
				orphans = append(orphans, d.Ticket)
			}
			continue
		}
		delete(g.parked, d.Ticket)
		p.Decided = d
		close(p.done)
	}
	var after []later
	for _, ticket := range orphans { // nobody waits any more, so nothing of them was sent
		after = append(after, g.apply(g.gate.Done(g.now, ticket, fence.Finished))...)
	}
	return after
}

// arm sets the timer for the gate's wake or the next comparison of clocks. A timer that fires too early does no harm. The
// caller holds mu.
func (g *Guard) arm(wake clock.Instant) {
	wake = min(wake, g.now.Add(watchEvery))
	if wake.Before(g.armed) {
		g.armed = wake
		g.timer.Reset(wake)
	}
}

// connected begins a conversation.
func (g *Guard) connected(c *conversation) {
	g.mu.Lock()
	g.talk = c
	after := g.step(gate.Connected{})
	g.mu.Unlock()
	g.finish(after)
}

func (g *Guard) disconnected(c *conversation) {
	g.mu.Lock()
	var after []later
	if g.talk == c {
		g.talk = nil
		clear(g.raises)
		after = g.step(gate.Disconnected{})
	}
	g.mu.Unlock()
	g.finish(after)
}

// heard takes a message in.
func (g *Guard) heard(c *conversation, m *writv1.GuardResponse) {
	g.mu.Lock()
	if g.talk != c {
		g.mu.Unlock()
		return
	}
	g.noteRaises(m.GetRaises().GetRaises())
	g.noteRaises(m.GetContacted().GetRaises())
	after := g.step(gate.Heard{Message: m})
	if issuer := g.gate.Issuer(); issuer != "" && issuer != g.trusted.Issuer {
		g.trust(g.keys, floors.Keys{Issuer: strings.Clone(issuer), JWKS: g.trusted.JWKS})
	}
	g.mu.Unlock()
	g.finish(after)
}

func (g *Guard) noteGrant(told *writv1.GuardGrant) {
	token := fence.Token(told.GetToken())
	if !token.Valid() {
		delete(g.grants, told.GetResource())
		return
	}
	g.grants[told.GetResource()] = grant{token: token, region: told.GetRegion()}
}

// raise is one that was told, for measuring how long it takes.
type raise struct {
	token       uint64
	at          clock.Instant
	traceparent string // empty: it belongs to no trace
}

// Raised is a raise from when the guard was told to when it acknowledged: how long writes under older tokens took to end.
type Raised struct {
	// Traceparent is the W3C trace context of what raised it.
	Traceparent string
	Resource    string
	Token       fence.Token
	Proof       writv1.GuardProof
	Ended       time.Time
	Took        time.Duration
}

func (g *Guard) noteRaises(told []*writv1.GuardFloor) {
	if len(told) == 0 {
		return
	}
	now := g.clock.Now()
	for _, f := range told {
		before, there := g.raises[f.GetResource()]
		if there && before.token == f.GetToken() && before.traceparent == "" {
			before.traceparent = f.GetTraceparent() // the answer to a contact does not say
			g.raises[f.GetResource()] = before
		}
		if there && before.token >= f.GetToken() || len(g.raises) >= maxRaises {
			continue
		}
		g.raises[f.GetResource()] = raise{token: f.GetToken(), at: now, traceparent: f.GetTraceparent()}
	}
}

func (g *Guard) noteAcks(sent []*writv1.GuardRequest) {
	for _, r := range sent {
		for _, ack := range r.GetAcks().GetAcks() {
			if told, there := g.raises[ack.GetResource()]; there && ack.GetToken() >= told.token {
				g.metrics.raise.Observe(g.now.Sub(told.at).Seconds())
				delete(g.raises, ack.GetResource())
				if g.cfg.Traced != nil && told.traceparent != "" {
					g.cfg.Traced(Raised{
						Traceparent: told.traceparent, Resource: ack.GetResource(), Token: fence.Token(ack.GetToken()), Proof: ack.GetProof(),
						Ended: g.clock.Wall(), Took: g.now.Sub(told.at),
					})
				}
			}
		}
	}
}

// adopt goes by a key set that the quorum has told.
func (g *Guard) adopt(jwks string) {
	keys, err := fence.ParseJWKS([]byte(jwks))
	if err != nil {
		g.logger.Warn("the quorum's keys cannot be read; going on with the old ones", "error", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trust(keys, floors.Keys{Issuer: g.trusted.Issuer, JWKS: jwks})
}

// trust changes what writs are verified by, and has it kept. The caller holds mu.
func (g *Guard) trust(keys fence.KeySet, k floors.Keys) {
	if k == g.trusted {
		return
	}
	g.trusted, g.keys = k, keys
	g.writs.trust(keys, k.Issuer)
	g.disk.keep(k)
	g.logger.Debug("verifying writs by other keys", "issuer", k.Issuer, "keys", keys.KeyIDs())
}

// recall goes by what the process before has kept.
func (g *Guard) recall(k floors.Keys) {
	if k == (floors.Keys{}) {
		return
	}
	keys, err := fence.ParseJWKS([]byte(k.JWKS))
	if err != nil && k.JWKS != "" {
		g.logger.Warn("the kept keys cannot be read; waiting for the quorum's", "error", err)
	}
	g.trusted, g.keys = k, keys
	g.writs.trust(keys, k.Issuer)
}

func (g *Guard) noteLink(endpoint string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endpoint = endpoint
	if err != nil {
		g.linkErr = err
	}
}
