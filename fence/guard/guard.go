package guard

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/floors"
	"github.com/writ-io/writ/lease/clock"
)

// Guard admits writes for the fronts of one storage. It is safe for concurrent use.
type Guard struct {
	cfg     Config
	session string
	clock   clock.Clock
	logger  hclog.Logger
	metrics *metrics
	writs   *verifier
	disk    *disk

	cancel context.CancelFunc
	ctx    context.Context // ends with the guard
	tasks  sync.WaitGroup  // everything but the disk
	timer  clock.Timer
	probes chan struct{} // bounds the probes under way
	left   chan struct{} // closed when the gate has left
	once   sync.Once
	result error // of Close

	mu       sync.Mutex
	gate     *gate.Gate                 // guarded by mu
	watchdog clock.Watchdog             // guarded by mu
	now      clock.Instant              // guarded by mu; when the clock was read last
	armed    clock.Instant              // guarded by mu; when the timer fires
	talk     *conversation              // guarded by mu; nil: none
	parked   map[gate.Ticket]*parked    // guarded by mu
	cuttable map[gate.Ticket]*admission // guarded by mu; whose Cut was asked for
	cut      map[gate.Ticket]struct{}   // guarded by mu; under way though they were to be cut
	grants   map[string]grant           // guarded by mu
	raises   map[string]raise           // guarded by mu; told and not yet acknowledged
	trusted  floors.Keys                // guarded by mu; what the verifier goes by
	keys     fence.KeySet               // guarded by mu; those of trusted
	prober   Prober                     // guarded by mu
	endpoint string                     // guarded by mu; empty: not connected
	linkErr  error                      // guarded by mu; why the last conversation ended
	over     bool                       // guarded by mu; Close has come to its end
	opening  map[string][]chan struct{} // guarded by mu; closed when the certificate of that id is in force
}

// parked is a write that waits for its turn.
type parked struct {
	done chan struct{} // closed when decided is set
	gate.Decided
}

var _ fence.Admitter = (*Guard)(nil)

// New opens the floor store and starts the guard. It admits nothing before the quorum has told it the floors, which it goes on
// asking for until Close. Errors are [ErrConfig] and those of [floors.Open].
func New(cfg Config) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	creds, err := cfg.credentials()
	if err != nil {
		return nil, err
	}
	store, state, err := floors.Open(cfg.Store, cfg.OpenWait)
	if err != nil {
		return nil, err
	}
	g := &Guard{
		cfg: cfg, session: newSession(), clock: cfg.Clock, logger: cfg.Logger, prober: cfg.Probe,
		writs: newVerifier(cfg.WritCacheBytes), probes: make(chan struct{}, maxProbes), left: make(chan struct{}),
		parked: make(map[gate.Ticket]*parked), cuttable: make(map[gate.Ticket]*admission), cut: make(map[gate.Ticket]struct{}),
		grants: make(map[string]grant), raises: make(map[string]raise), opening: make(map[string][]chan struct{}),
	}
	g.now, state.Wall = g.clock.Now(), g.clock.Wall()
	g.watchdog.Observe(g.now, state.Wall)
	if g.gate, err = gate.New(cfg.gate(g.session), state, g.now); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	g.metrics = newMetrics(g)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(g.metrics); err != nil {
			return nil, errors.Join(misconfigured("Registerer", "has such metrics already: "+err.Error(), "register one guard only"), store.Close())
		}
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.disk = newDisk(g, store, newRaiser(cfg, state))
	g.recall(store.Keys())
	g.timer = g.clock.NewTimer(clock.Never)
	g.armed = clock.Never
	g.disk.start()
	l := newLink(g, creds)
	g.tasks.Go(func() {
		select {
		case <-g.disk.begun:
			l.run(g.ctx)
		case <-g.ctx.Done():
		}
	})
	g.tasks.Go(g.loop)
	return g, nil
}

func newSession() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Admit implements [fence.Admitter]. Of a writ it checks signature, issuer and resource. It believes a bare token: set
// [fence.Write.Token] only for callers that are trusted.
func (g *Guard) Admit(ctx context.Context, w fence.Write) (fence.Admission, error) {
	if ctx.Err() != nil {
		return nil, g.refused(ctx, context.Cause(ctx))
	}
	token, verified, err := g.credential(w)
	if err != nil {
		return nil, g.refused(ctx, err)
	}
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		return nil, g.refused(ctx, &fence.UnavailableError{Resource: w.Resource, Obstacle: fence.Stopping})
	}
	after := g.look()
	ticket, answer, err := g.gate.Admit(g.now, w.Resource, token, verified)
	var p *parked
	if answer == gate.Wait {
		p = &parked{done: make(chan struct{})}
		g.parked[ticket] = p
	}
	if g.gate.Pending() {
		after = append(after, g.apply(g.gate.Take())...)
	}
	g.mu.Unlock()
	g.finish(after)
	if p != nil {
		err = g.wait(ctx, ticket, p)
	}
	if err != nil {
		return nil, g.refused(ctx, err)
	}
	g.metrics.admitted.Add(1)
	return &admission{guard: g, ticket: ticket, token: token}, nil
}

// credential returns the token of a write, and whether a writ proves it.
func (g *Guard) credential(w fence.Write) (token fence.Token, verified bool, err error) {
	switch {
	case w.Writ == "":
		if !w.Token.Valid() {
			return 0, false, &fence.InvalidError{
				Kind: fence.ErrInvalidToken, Field: "token", Value: w.Token.Decimal(), Fix: "present a writ or a granted token",
			}
		}
		return w.Token, false, nil
	case w.Token != 0:
		return 0, false, &fence.InvalidError{
			Kind: fence.ErrInvalidToken, Field: "token", Value: w.Token.Decimal(), Fix: "present either a writ or a token",
		}
	}
	p, known, err := g.writs.verify(w.Writ)
	switch {
	case err != nil:
		return 0, false, err
	case !known:
		return 0, false, &fence.UnavailableError{
			Resource: w.Resource, Obstacle: fence.NotSeeded, Detail: "the quorum's keys are not known yet", RetryAfter: watchEvery,
		}
	case p.resource != w.Resource:
		return 0, false, fence.Writ{Resource: p.resource}.Require(fence.Expected{Resource: w.Resource})
	}
	return p.token, true, nil
}

// wait waits until a write that was parked is decided.
func (g *Guard) wait(ctx context.Context, ticket gate.Ticket, p *parked) error {
	select {
	case <-p.done:
		return p.Err
	case <-ctx.Done():
	}
	g.mu.Lock()
	select {
	case <-p.done: // at the same moment
		g.mu.Unlock()
		return p.Err
	default:
	}
	delete(g.parked, ticket)
	after := g.step(gate.Abandoned{Ticket: ticket})
	g.mu.Unlock()
	g.finish(after)
	return context.Cause(ctx)
}

// refused counts a refusal, and returns it.
func (g *Guard) refused(ctx context.Context, err error) error {
	if !IsCanary(ctx) {
		g.metrics.refuse(err)
	}
	return err
}

// admission is a write under way.
type admission struct {
	guard  *Guard
	ticket gate.Ticket
	token  fence.Token
	done   atomic.Bool
	cut    chan struct{} // guarded by guard.mu; nil: nobody has asked for it
}

// Token implements [fence.Admission].
func (a *admission) Token() fence.Token { return a.token }

// Cut implements [fence.Admission].
func (a *admission) Cut() <-chan struct{} {
	g := a.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.cut == nil {
		a.cut = make(chan struct{})
		_, told := g.cut[a.ticket]
		switch {
		case told || g.over:
			close(a.cut)
		case !a.done.Load():
			g.cuttable[a.ticket] = a
		}
	}
	return a.cut
}

// Done implements [fence.Admission]. Calling it again does nothing.
func (a *admission) Done(o fence.Outcome) {
	if a.done.Swap(true) {
		return
	}
	g := a.guard
	g.mu.Lock()
	delete(g.cuttable, a.ticket)
	delete(g.cut, a.ticket)
	if g.over {
		g.mu.Unlock()
		return
	}
	var after []later
	// That a write has finished is true at the instant of the last look as well, and cheaper. When one broke matters.
	if o != fence.Finished {
		after = g.look()
	}
	after = append(after, g.apply(g.gate.Done(g.now, a.ticket, o))...)
	g.mu.Unlock()
	g.finish(after)
}

// grant is what somebody holds.
type grant struct {
	token  fence.Token
	region string
}

// Grant returns the token under which the guard's own region holds a resource, as far as the quorum has told, and whether it
// does. Where a certificate of break-glass has opened the resource for the region, it is the certificate's. For stamp mode; the resource must be one of [Config.Stamps].
func (g *Guard) Grant(resource string) (fence.Token, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token := g.gate.Certified(resource, g.cfg.Region); token != 0 {
		return token, true
	}
	held, ok := g.grants[resource]
	if !ok || g.cfg.Region == "" || held.region != g.cfg.Region {
		return 0, false
	}
	return held.token, true
}

// NoGrant is what a front in stamp mode answers when [Guard.Grant] has nothing.
func (g *Guard) NoGrant(resource string) error {
	return &fence.UnavailableError{
		Resource: resource, Obstacle: fence.NoGrant, RetryAfter: watchEvery,
		Detail: fmt.Sprintf("region %s does not hold it", strings.ToValidUTF8(g.cfg.Region, "?")),
	}
}
