package singletontest

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/leasetest"
)

// Config says what quorum to play. The zero value is ready for use.
type Config struct {
	// Policy bounds leases as the policy of a real quorum does.
	Policy lease.Policy
}

// TB is what a quorum needs of a test; *testing.T and *testing.B are ones.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(f func())
	Context() context.Context
}

// Thief is who holds what [Quorum.Steal] has taken.
const Thief lease.Principal = "spiffe://test/thief"

// Quorum decides who holds what. It is safe for concurrent use.
type Quorum struct {
	tb      TB
	clock   clock.Clock
	network *leasetest.Network
	state   *state
}

// New starts a quorum that knows no resource, for as long as the test lasts.
func New(tb TB, cfg Config) *Quorum {
	tb.Helper()
	if err := cfg.Policy.Validate(); err != nil {
		tb.Fatalf("singletontest: %v", err)
	}
	signer, err := fence.GenerateSigner()
	if err != nil {
		tb.Fatalf("singletontest: %v", err)
	}
	base := clock.Monotonic()
	s := &state{
		clock: base, table: lease.NewTable(lease.TableConfig{Policy: cfg.Policy}, 1), signer: signer,
		calls: make(map[lease.CallID]chan lease.Reply), infos: make(map[lease.Resource]lease.Info),
		names:   make(map[string]bool),
		journal: leasetest.NewJournal(), timer: base.NewTimer(clock.Never), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	s.table.Allow(1, 1<<40)
	go s.run()
	tb.Cleanup(s.close)
	return &Quorum{tb: tb, clock: base, network: leasetest.NewNetwork(), state: s}
}

// Keys verify the writs that this quorum signs.
func (q *Quorum) Keys() fence.KeySet {
	q.tb.Helper()
	keys, err := fence.NewKeySet(q.state.signer.Public())
	if err != nil {
		q.tb.Fatalf("singletontest: %v", err)
	}
	return keys
}

// Info returns what the quorum knows of a resource, with its checkpoint; the zero Info if it was never asked for.
func (q *Quorum) Info(resource string) lease.Info {
	value, err := q.state.do(lease.Inspect{Ref: lease.Ref{Resource: lease.Resource(resource)}, WithCheckpoint: true})
	if err != nil {
		return lease.Info{}
	}
	info, _ := value.(lease.Info)
	return info
}

// Held returns the resources under a prefix that are held now, in name order.
func (q *Quorum) Held(prefix string) []lease.Info { return q.state.List(prefix, "", true) }

// Commits returns how many transactions this would have taken a real quorum so far that did one thing at a time. Renewals
// take none.
func (q *Quorum) Commits() int { return q.state.journal.Len() }

// Advance lets time pass and everything settle. It works inside of a bubble only; elsewhere wait for what should happen.
func (q *Quorum) Advance(d time.Duration) {
	timer := q.clock.NewTimer(q.clock.Now().Add(d))
	defer timer.Stop()
	<-timer.C()
	synctest.Wait()
}

// Expire ends the present grant at the quorum at once, as if its holder had not been heard of for the TTL, and returns its
// token. Whoever waits is granted the resource. The holder believes until its next renewal, or its deadline. It fails the
// test if nobody holds the resource.
func (q *Quorum) Expire(resource string) fence.Token {
	q.tb.Helper()
	token, ok := q.state.expire(lease.Resource(resource))
	if !ok {
		q.tb.Fatalf("singletontest: nobody holds %q, so that it cannot expire", resource)
	}
	return token
}

// Steal has somebody else, the [Thief], hold a resource at once, before everybody who waits, and returns the new token. The
// holder, if there is one, believes until its next renewal, or its deadline. The thief does not renew: the resource is free
// again after the TTL of the grant that was stolen, or the default TTL, or with [Quorum.Expire].
func (q *Quorum) Steal(resource string) fence.Token {
	q.tb.Helper()
	token, err := q.state.steal(lease.Resource(resource))
	if err != nil {
		q.tb.Fatalf("singletontest: %q cannot be stolen: %v", resource, err)
	}
	return token
}

// state is the shell of a table: what the engine and its store are in a real node.
type state struct {
	clock   clock.Clock
	signer  *fence.Signer
	journal *leasetest.Journal
	timer   clock.Timer
	stop    chan struct{}
	stopped chan struct{}

	mu       sync.Mutex
	table    *lease.Table                      // guarded by mu
	calls    map[lease.CallID]chan lease.Reply // guarded by mu
	lastCall lease.CallID                      // guarded by mu
	infos    map[lease.Resource]lease.Info     // guarded by mu; as committed
	revision int64                             // guarded by mu
	names    map[string]bool                   // guarded by mu; of processes
}

var _ leasetest.State = (*state)(nil)

// name takes a process's name, and returns false if it is taken.
func (s *state) name(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.names[name]
	s.names[name] = true
	return !taken
}

func (s *state) run() {
	defer close(s.stopped)
	for {
		select {
		case <-s.timer.C():
			s.mu.Lock()
			s.step(lease.Tick{MaxWrites: math.MaxInt, MaxBytes: math.MaxInt})
			s.mu.Unlock()
		case <-s.stop:
			return
		}
	}
}

func (s *state) close() {
	close(s.stop)
	<-s.stopped
	s.timer.Stop()
}

// step takes an event in, commits what changed and answers. The caller holds mu.
func (s *state) step(event lease.TableEvent) {
	moment := lease.Moment{Now: s.clock.Now(), Wall: s.clock.Wall()}
	replies := slices.Clone(s.table.Step(moment, event).Replies)
	s.table.Dirty(func(c lease.Change) {
		s.revision++
		if c.Record == nil {
			delete(s.infos, c.Resource)
			s.journal.Removed(c.Resource)
			return
		}
		info := c.Record.Info()
		info.Revision = s.revision
		s.infos[c.Resource] = info
		s.journal.Changed(info)
	})
	for _, r := range replies {
		if answer := s.calls[r.ID]; answer != nil {
			answer <- r
			delete(s.calls, r.ID)
		}
	}
	s.timer.Reset(s.table.NextDue())
}

// begin takes a command in, whose intake is at some instant, and returns where the answer comes. The caller holds mu.
func (s *state) begin(c lease.Command, intake clock.Instant) (lease.CallID, chan lease.Reply) {
	s.lastCall++
	answer := make(chan lease.Reply, 1)
	s.calls[s.lastCall] = answer
	id := s.lastCall
	s.step(lease.Request{ID: id, Intake: intake, Command: c})
	return id, answer
}

// Do implements leasetest.State.
func (s *state) Do(ctx context.Context, c lease.Command) (any, error) {
	s.mu.Lock()
	id, answer := s.begin(c, s.clock.Now())
	s.mu.Unlock()
	select {
	case r := <-answer:
		return valueOf(r)
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case r := <-answer:
		return valueOf(r)
	default:
	}
	delete(s.calls, id)
	s.step(lease.Gone{ID: id})
	return nil, ctx.Err()
}

// do carries out a command that is answered at once.
func (s *state) do(c lease.Command) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, answer := s.begin(c, s.clock.Now())
	return valueOf(<-answer)
}

func valueOf(r lease.Reply) (any, error) {
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Value, nil
}

// List implements leasetest.State.
func (s *state) List(prefix, after string, heldOnly bool) []lease.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []lease.Info
	for name, info := range s.infos {
		held := info.State == lease.Held || info.State == lease.Ending
		if strings.HasPrefix(string(name), prefix) && string(name) > after && info.Token != 0 && (held || !heldOnly) {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b lease.Info) int { return cmp.Compare(a.Resource, b.Resource) })
	return infos
}

// Journal implements leasetest.State.
func (s *state) Journal() *leasetest.Journal { return s.journal }

// Sign implements leasetest.State.
func (s *state) Sign(w fence.Writ) (string, error) {
	w.Issuer = "singletontest"
	return s.signer.Sign(w)
}

func (s *state) expire(name lease.Resource) (fence.Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expireLocked(name)
}

// expireLocked asks about the grant in a request that was taken in when its deadline had certainly passed. It is for another
// token than whoever is granted the resource then, so that it has no effect but that. The caller holds mu.
func (s *state) expireLocked(name lease.Resource) (fence.Token, bool) {
	info := s.infos[name]
	if info.State != lease.Held && info.State != lease.Ending {
		return 0, false
	}
	s.begin(lease.ForceRelease{Ref: lease.Ref{Resource: name, Token: info.Token}}, clock.Never)
	return info.Token, true
}

func (s *state) steal(name lease.Resource) (fence.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ttl := cmp.Or(s.infos[name].TTL, lease.DefaultTTL)
	_, answer := s.begin(lease.Acquire{
		Caller: lease.Caller{Principal: Thief, Instance: "thief"}, Resource: name, RequestID: "theft-" + time.Duration(s.lastCall).String(),
		TTL: ttl, Wait: ttl / 3, Priority: lease.MaxPriority,
	}, s.clock.Now())
	select {
	case r := <-answer:
		return tokenOf(r)
	default:
	}
	s.expireLocked(name)
	select {
	case r := <-answer:
		return tokenOf(r)
	default:
		return 0, lease.Errorf(lease.ReasonHeld, "a request of the highest priority has waited for longer")
	}
}

func tokenOf(r lease.Reply) (fence.Token, error) {
	value, err := valueOf(r)
	if err != nil {
		return 0, err
	}
	grant, ok := value.(*lease.Grant)
	if !ok {
		return 0, lease.Errorf(lease.ReasonHeld, "a request of the highest priority has waited for longer")
	}
	return grant.Token, nil
}
