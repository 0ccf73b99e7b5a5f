//writ:core

package quorum

import (
	"slices"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/mutant"
)

// Engine is the pure core of a coordinator. It turns what clients ask into rounds: what arrived while the last round was
// under way is decided at once against memory, goes into one commit (or, if nothing changed, one confirm), and is answered
// when that has succeeded. One round is in flight. When the outcome of a round is unknown, nothing is guessed: the engine
// throws its memory away and claims a new term.
type Engine struct {
	config EngineConfig
	role   Role
	leader bool
	term   Term
	// attempt counts claims, so that results of earlier ones are told apart.
	attempt  uint64
	retryAt  clock.Instant
	identity *writv1.IdentityRecord
	table    *lease.Table
	machine  *region.Machine // beside the table, always
	members  []MemberInfo
	nodes    []*writv1.NodeRecord
	own      *writv1.WitnessRecord
	nonce    string

	queue  []Submit
	left   map[lease.CallID]bool // abandoned while something was in the queue
	round  *round
	gather gather
	rounds uint64
	// reserved is the ceiling that has been committed and not been witnessed yet; 0: none.
	reserved uint64
	unsent   bool // reserved is in no round yet
	// Recovery: grants are allowed from waitUntil on.
	waitUntil clock.Instant
	waitFor   string
	// contradiction is the recovery that a guard's memory asks for; nil: none does.
	contradiction *writv1.Recovery
	// doubt asks for a round that shows whether the term is still this node's.
	doubt bool
	// overQuota refuses what makes the state grow.
	overQuota  bool
	dirtyID    bool
	extra      []Write // writes of this round beside the table's
	extraBytes int     // bounds what they take
	now        clock.Instant
	loadedAt   clock.Instant
	state      Loaded // until the table is built from it
	effects    Effects
}

// EngineConfig holds what the engine's decisions depend on besides events.
type EngineConfig struct {
	Node    string
	Cluster string
	Table   lease.TableConfig
	// Approvers is the set that a quorum without one begins with; nil: none.
	Approvers *writv1.ApproverSet
	// TokenBlock is how many sequences are reserved at a time.
	TokenBlock uint64
	// RetryClaim is how long to wait after a failed claim.
	RetryClaim time.Duration
	// MaxQueue bounds the requests that wait for a round.
	MaxQueue int
}

func (c EngineConfig) withDefaults() EngineConfig {
	if c.TokenBlock == 0 {
		c.TokenBlock = 1 << 16
	}
	if c.RetryClaim == 0 {
		c.RetryClaim = 50 * time.Millisecond
	}
	if c.MaxQueue == 0 {
		c.MaxQueue = 100_000
	}
	return c
}

// Role is what the engine is doing.
type Role uint8

// The roles, in the order in which a coordinator goes through them.
const (
	Follower Role = iota
	Claiming
	Loading
	Reserving  // first commit and witness of the new term
	Recovering // a foreign state on its way to a new epoch
	Serving
)

func (r Role) String() string {
	return [...]string{"follower", "claiming", "loading", "reserving", "recovering", "serving"}[r]
}

// EngineEvent is something that happens to an engine.
type EngineEvent interface{ engineEvent() }

// Leadership says whether the coordinator should be here.
type Leadership struct{ Leader bool }

// Claimed is the result of a Claim effect. Nonce is fresh randomness, for names that must be unique.
type Claimed struct {
	Attempt uint64
	Term    Term
	Nonce   string
	Err     error
}

// Loaded is the state at or after the claim of Term. A nil Identity means that there is no history.
type Loaded struct {
	Attempt     uint64
	Revision    int64
	Identity    *writv1.IdentityRecord
	Leases      []lease.Record
	Checkpoints map[lease.Resource][]byte
	Guards      []*writv1.GuardRecord
	Guarding    *writv1.GuardingRecord
	Region      region.State
	Nodes       []*writv1.NodeRecord
	Members     []MemberInfo
	Own         *writv1.WitnessRecord
	Err         error
}

// guarded says whether the state has guards, or rules for them.
func (l *Loaded) guarded() bool { return len(l.Guards) > 0 || len(l.Guarding.GetRules()) > 0 }

// Submit is a request. Command is a lease.Command, a region.Command, or one of BeginMemberChange, EndMemberChange, SettleMembers.
type Submit struct {
	ID      lease.CallID
	Intake  clock.Instant
	Command any
}

// Submits hands requests in, in order of their intake.
type Submits []Submit

// Abandoned says that nobody waits for the answer to that request any more.
type Abandoned struct{ ID lease.CallID }

// RoundDone is the result of a Commit or Confirm effect.
type RoundDone struct {
	Round uint64
	Err   error
}

// Witnessed says that this node's witness has been saved with that epoch, its incarnation, and that ceiling.
type Witnessed struct {
	Epoch       fence.Epoch
	Incarnation string
	Ceiling     uint64
}

// NodesChanged says what the nodes have announced and who is a member.
type NodesChanged struct {
	Nodes   []*writv1.NodeRecord
	Members []MemberInfo
}

// Quota says whether the soft quota of the store is exceeded.
type Quota struct{ Exceeded bool }

// Tick lets time pass.
type Tick struct{}

func (Leadership) engineEvent()   {}
func (Claimed) engineEvent()      {}
func (Loaded) engineEvent()       {}
func (Submits) engineEvent()      {}
func (Abandoned) engineEvent()    {}
func (RoundDone) engineEvent()    {}
func (Witnessed) engineEvent()    {}
func (NodesChanged) engineEvent() {}
func (Quota) engineEvent()        {}
func (Tick) engineEvent()         {}

// Effects is what a step wants done; valid until the next step. At most one of Claim, Load, Commit, Confirm is set.
type Effects struct {
	// Claim: raise the term, then step Claimed with this attempt.
	Claim uint64
	// Load: read the state at or after Term, then step Loaded with this attempt.
	Load uint64
	Term Term
	// Round numbers the Commit or Confirm to carry out.
	Round   uint64
	Commit  []Write
	Confirm bool
	// Witness: save these in the witness file, then step Witnessed.
	Witness *Witnessed
	// Replies may leave.
	Replies []lease.Reply
	// DropAll: answer every request that is still open with lease.ErrNotCoordinator, after Replies.
	DropAll bool
	// Wake is when the next Tick has something to do; clock.Never if nothing.
	Wake clock.Instant
	// Warning is something an operator should know; empty: nothing.
	Warning string
}

// round is what is in flight.
type round struct {
	number  uint64
	replies []lease.Reply
	commit  bool
	ceiling uint64 // committed by this round; 0: none
}

// NewEngine makes a follower.
func NewEngine(config EngineConfig) *Engine {
	return &Engine{config: config.withDefaults(), retryAt: clock.Never, waitUntil: clock.Never}
}

// Role is what the engine is doing.
func (e *Engine) Role() Role { return e.role }

// Held is how many leases are held, while serving.
func (e *Engine) Held() int {
	if e.table == nil {
		return 0
	}
	return e.table.HeldCount()
}

// Waiting says what a recovery waits for and until when (clock.Never: not known yet); empty outside of one.
func (e *Engine) Waiting() (what string, until clock.Instant) {
	if e.role != Recovering {
		return "", clock.Never
	}
	return e.waitFor, e.waitUntil
}

// Step takes one event in.
func (e *Engine) Step(m lease.Moment, ev EngineEvent) *Effects {
	if mutant.On(mutant.WallClock) {
		return e.stepByWallTime(m, ev)
	}
	return e.step(m, ev)
}

// stepByWallTime is what no step may do: it counts by the time of day. Only a mutant does it.
func (e *Engine) stepByWallTime(m lease.Moment, ev EngineEvent) *Effects {
	ahead := clock.Instant(m.Wall.UnixNano()).Sub(m.Now)
	if submits, ok := ev.(Submits); ok {
		submits = slices.Clone(submits)
		for i := range submits {
			submits[i].Intake = submits[i].Intake.Add(ahead)
		}
		ev = submits
	}
	m.Now = m.Now.Add(ahead)
	effects := e.step(m, ev)
	if effects.Wake != clock.Never {
		effects.Wake = effects.Wake.Add(-ahead)
	}
	return effects
}

func (e *Engine) step(m lease.Moment, ev EngineEvent) *Effects {
	e.effects = Effects{Replies: e.effects.Replies[:0]}
	e.now = m.Now
	switch ev := ev.(type) {
	case Leadership:
		e.leadership(m, ev.Leader)
	case Claimed:
		e.claimed(m, ev)
	case Loaded:
		e.loaded(m, ev)
	case Submits:
		for _, s := range ev {
			e.submit(s)
		}
	case Abandoned:
		e.abandoned(m, ev.ID)
	case RoundDone:
		e.roundDone(m, ev)
	case Witnessed:
		e.witnessed(m, ev)
	case NodesChanged:
		e.nodesChanged(m, ev)
	case Quota:
		e.overQuota = ev.Exceeded
	case Tick:
	}
	e.advance(m)
	e.effects.Wake = e.wake()
	return &e.effects
}

// advance does what has become possible: retry a claim, go on with a recovery, start a round.
func (e *Engine) advance(m lease.Moment) {
	switch e.role {
	case Follower:
		if e.leader && e.retryAt <= m.Now {
			e.becomeClaiming()
		}
	case Recovering:
		e.recover(m)
	case Serving:
		e.startRound(m)
	case Claiming, Loading, Reserving:
	}
}

func (e *Engine) wake() clock.Instant {
	switch {
	case e.role == Follower && e.leader:
		return e.retryAt
	case e.role == Recovering && e.round == nil:
		return e.waitUntil
	case e.role == Serving && e.round == nil && e.gather.holds(e.now, len(e.queue)):
		return e.gather.until
	case e.role == Serving && e.round == nil:
		return e.nextDue()
	}
	return clock.Never
}

func (e *Engine) leadership(m lease.Moment, leader bool) {
	if leader == e.leader {
		// It may have been away in between, and another have claimed: then what that one granted has to be loaded.
		e.doubt = leader
		return
	}
	e.leader = leader
	if leader {
		e.retryAt = m.Now
		return
	}
	e.becomeFollower(m, clock.Never)
}

func (e *Engine) becomeClaiming() {
	e.assertRole(Follower)
	e.role = Claiming
	e.attempt++
	e.effects.Claim = e.attempt
}

func (e *Engine) claimed(m lease.Moment, ev Claimed) {
	if e.role != Claiming || ev.Attempt != e.attempt {
		return
	}
	if ev.Err != nil {
		e.becomeFollower(m, m.Now.Add(e.config.RetryClaim))
		return
	}
	e.assertRole(Claiming)
	e.role, e.term, e.nonce = Loading, ev.Term, ev.Nonce
	e.effects.Load, e.effects.Term = e.attempt, e.term
}

// becomeFollower gives the term up: everything in memory is forgotten, and nobody is told that something did or did not
// happen unless that is known.
func (e *Engine) becomeFollower(m lease.Moment, retryAt clock.Instant) {
	if r := e.round; r != nil {
		e.fail(r, lease.Errorf(lease.ReasonUnknownOutcome, "the coordinator stepped down before the outcome was known"))
	}
	if e.role != Follower {
		e.effects.DropAll = true
	}
	e.role, e.term, e.round, e.table, e.machine, e.identity = Follower, 0, nil, nil, nil, nil
	e.queue, e.left, e.extra, e.extraBytes, e.dirtyID, e.reserved, e.unsent = nil, nil, nil, 0, false, 0, false
	e.state, e.doubt, e.gather, e.contradiction = Loaded{}, false, gather{}, nil
	e.waitUntil, e.waitFor = clock.Never, ""
	e.retryAt = retryAt
}

// fail answers everything in a round with err.
func (e *Engine) fail(r *round, err *lease.Error) {
	for _, reply := range r.replies {
		e.effects.Replies = append(e.effects.Replies, lease.Reply{ID: reply.ID, Err: err})
	}
}

func (e *Engine) assertRole(want Role) {
	if e.role != want {
		panic("quorum: engine is " + e.role.String() + ", not " + want.String())
	}
}
