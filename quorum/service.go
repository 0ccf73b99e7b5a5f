package quorum

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Service is one node: the shell around the engine, the node's view of the state, and what the node tells the others. It
// carries the engine's effects out on the store and brings the results back.
type Service struct {
	config Config
	member Member
	view   *view
	logger hclog.Logger
	clock  clock.Clock

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Whoever has an event steps the engine, under engineMu, so that a command and the end of a round cost no change of
	// goroutine. Nothing that blocks is done under it. It is taken by withEngine and turn alone.
	engineMu sync.Mutex
	engine   *Engine
	armed    clock.Instant // guarded by engineMu; when the loop's timer fires
	over     bool          // guarded by engineMu; the engine is not stepped any more
	rearm    chan struct{} // capacity 1: the timer is to fire earlier than it would

	mu     sync.Mutex // never held while engineMu is taken
	lastID lease.CallID
	inbox  []inboxItem
	open   map[lease.CallID]*submission
	// Of the engine, published for Status.
	role    Role
	held    int
	waitFor string
	until   clock.Instant
	stopped bool

	rounds chan roundWork

	witnessMu sync.Mutex
	witness   *writv1.WitnessRecord

	changing sync.Mutex // held while a change of membership is under way; nobody waits for it

	heads auditHeads
	// overQuota is what housekeeping found last, unseenBytes what has been committed since, and houseDue, of capacity 1, calls
	// it before its tick when that is much.
	overQuota   atomic.Bool
	unseenBytes atomic.Int64
	houseDue    chan struct{}
}

// submission is commands that were handed over together. Those that are answered together are delivered together.
type submission struct {
	deliver func([]lease.Reply)
	ready   []lease.Reply // belongs to whoever answers
}

type inboxItem struct {
	submit    Submit
	abandoned lease.CallID // not 0: instead of submit
}

type roundWork struct {
	number  uint64
	term    Term
	commit  []Write
	confirm bool
}

// Start runs a node on its member of the store. The member stays the caller's to close, after the service.
func Start(config Config, member Member) (*Service, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{
		config: config, member: member, logger: config.Logger, clock: config.Clock, ctx: ctx, cancel: cancel,
		rearm: make(chan struct{}, 1), armed: clock.Never, open: make(map[lease.CallID]*submission), until: clock.Never,
		rounds: make(chan roundWork, 1), witness: config.Witness, houseDue: make(chan struct{}, 1),
	}
	s.engine = NewEngine(EngineConfig{
		Node: config.Name, Cluster: config.Cluster, TokenBlock: config.TokenBlock,
		Table:      lease.TableConfig{Policy: config.Policy, Retention: config.Retention, GuardLease: config.GuardLease},
		Approvers:  config.Approvers,
		RetryClaim: max(config.Election/10, 10*time.Millisecond),
	})
	s.view = newView(member, config.Logger.Named("view"))
	s.view.regions = config.Regions
	s.own(func() { s.view.run(ctx, s.pause) })
	s.own(s.loop)
	s.own(s.work)
	s.own(s.herald)
	s.own(s.keepHouse)
	return s, nil
}

// own runs f as a goroutine that Close joins.
func (s *Service) own(f func()) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		f()
	}()
}

// pause waits a little before a retry; false when the service stops.
func (s *Service) pause(ctx context.Context) bool {
	t := s.clock.NewTimer(s.clock.Now().Add(50 * time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// Close stops the node: open requests are answered with NOT_COORDINATOR, so that callers turn to another node.
func (s *Service) Close() {
	s.withEngine(func() { s.over = true })
	s.cancel()
	s.wg.Wait()
	s.signLastAuditHead()
	s.mu.Lock()
	s.stopped = true
	s.inbox = nil
	s.mu.Unlock()
	s.dropAll()
}

func (s *Service) moment() lease.Moment {
	return lease.Moment{Now: s.clock.Now(), Wall: s.clock.Wall()}
}

// Submit hands commands over, in order, to be decided as soon as there is room, and returns at once. Every command is
// answered exactly once, unless it is abandoned: deliver gets the answers, together where they are decided together, each
// under its id, which is first for the first command and goes up by one. It may be called by Submit itself, before that
// returns; it must neither block nor call the service. A command is a lease command, see [lease.Command].
//
// Errors: NOT_COORDINATOR, and then nothing was handed over.
func (s *Service) Submit(commands []any, deliver func([]lease.Reply)) (first lease.CallID, err error) {
	to := &submission{deliver: deliver}
	s.mu.Lock()
	if s.stopped || s.role == Follower {
		s.mu.Unlock()
		return 0, lease.ErrNotCoordinator
	}
	first = s.lastID + 1
	// The intake is taken under the lock: requests stand in the inbox in the order of their intake.
	intake := s.clock.Now()
	for _, command := range commands {
		s.lastID++
		s.open[s.lastID] = to
		s.inbox = append(s.inbox, inboxItem{submit: Submit{ID: s.lastID, Intake: intake, Command: command}})
	}
	s.mu.Unlock()
	s.turn()
	return first, nil
}

// Abandon says that nobody waits for the answer of a command any more. Whether it has its effect is unknown.
func (s *Service) Abandon(id lease.CallID) {
	s.mu.Lock()
	delete(s.open, id)
	s.inbox = append(s.inbox, inboxItem{abandoned: id})
	s.mu.Unlock()
	s.turn()
}

// do hands a command to the engine and waits for its answer. When ctx ends first, whether it had its effect is unknown.
func (s *Service) do(ctx context.Context, command any) (any, error) {
	reply := make(chan lease.Reply, 1)
	id, err := s.Submit([]any{command}, func(r []lease.Reply) { reply <- r[0] })
	if err != nil {
		return nil, err
	}
	select {
	case r := <-reply:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Value, nil
	case <-ctx.Done():
		s.Abandon(id)
		return nil, context.Cause(ctx)
	}
}

// answer hands replies out. The caller holds engineMu, or the engine is over.
func (s *Service) answer(replies []lease.Reply) {
	if len(replies) == 0 {
		return
	}
	var ready []*submission
	s.mu.Lock()
	for _, r := range replies {
		to := s.open[r.ID]
		if to == nil {
			continue // abandoned
		}
		delete(s.open, r.ID)
		if len(to.ready) == 0 {
			ready = append(ready, to)
		}
		to.ready = append(to.ready, r)
	}
	s.mu.Unlock()
	for _, to := range ready {
		replies := to.ready
		to.ready = nil
		to.deliver(replies)
	}
}

// dropAll answers everything that is open: nothing of it has been decided, or its answer has left the engine already.
func (s *Service) dropAll() {
	s.mu.Lock()
	waiting := make(map[lease.CallID]bool, len(s.inbox))
	for _, item := range s.inbox {
		waiting[item.submit.ID] = true
	}
	var replies []lease.Reply
	for id := range s.open {
		if !waiting[id] {
			replies = append(replies, lease.Reply{
				ID: id, Err: lease.Errorf(lease.ReasonNotCoordinator, "node %s has stopped deciding", s.config.Name),
			})
		}
	}
	s.mu.Unlock()
	s.answer(replies)
}
