//writ:core

package quorum

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// loaded takes the state of the new term and goes the short way to serving, or, if the state is foreign, the long one.
func (e *Engine) loaded(m lease.Moment, ev Loaded) {
	if e.role != Loading || ev.Attempt != e.attempt {
		return
	}
	if ev.Err != nil {
		e.becomeFollower(m, m.Now.Add(e.config.RetryClaim))
		return
	}
	e.loadedAt, e.state = m.Now, ev
	e.members, e.nodes, e.own = ev.Members, ev.Nodes, ev.Own
	reason := e.foreign(ev.Identity, ev.Revision)
	if ev.Identity != nil {
		e.identity = proto.CloneOf(ev.Identity)
	} else {
		e.identity = &writv1.IdentityRecord{Cluster: e.config.Cluster, Members: e.memberMap()}
	}
	switch {
	case e.identity.Cluster != e.config.Cluster:
		e.effects.Warning = fmt.Sprintf("the replicated state is of cluster %q, this node is configured for %q: it will not decide", e.identity.Cluster, e.config.Cluster)
		e.becomeFollower(m, clock.Never)
	case e.identity.Recovery != nil && (reason == "" || !e.identity.Recovery.EpochRaised):
		// Somebody began it; what is foreign is dealt with when the epoch is raised.
		e.role = Recovering
	case reason != "":
		// Also where a recovery is under way whose epoch has been raised: the state is then a backup from the middle of
		// it, and tokens of that epoch have been handed out since.
		e.becomeRecovering(m, reason)
	default:
		if ev.Identity == nil {
			e.identity.Incarnation, e.identity.Epoch = e.nonce, 1
		}
		e.becomeReserving(m, nil)
	}
}

// becomeReserving commits a fresh block of tokens under the new term, and what else this node's configuration implies.
func (e *Engine) becomeReserving(m lease.Moment, finished *writv1.Recovery) {
	e.role = Reserving
	e.table = lease.NewTable(e.config.Table, e.epoch())
	e.table.LoadGuards(m, e.state.Guards, e.state.Guarding)
	guarded := e.state.guarded()
	for i := range e.state.Leases {
		rec := e.state.Leases[i]
		e.table.Load(m, rec, e.state.Checkpoints[rec.Resource])
	}
	e.loadRegion(m, e.state.Region)
	e.state = Loaded{}
	first := e.identity.Ceiling + 1
	e.identity.Ceiling += e.config.TokenBlock
	e.table.Allow(first, first-1)
	e.reserved, e.unsent = e.identity.Ceiling, true
	e.identity.MaxTtlMs = max(e.identity.MaxTtlMs, e.longestPromise(guarded).Milliseconds())
	if e.identity.Pending != nil || finished != nil {
		// Whoever announced the change of membership is gone: what the store says happened, happened.
		e.identity.Pending, e.identity.Members = nil, e.memberMap()
	}
	e.dirtyID = true
	e.send(nil, e.writes())
}

func (e *Engine) becomeServing(m lease.Moment, ceiling uint64) {
	e.assertRole(Reserving)
	if ceiling < e.reserved || !e.undisputed(m) {
		return
	}
	e.role = Serving
	e.table.Extend(e.reserved)
	e.reserved = 0
	for _, s := range e.queue { // guards that came before there was a state to hold their memory against
		if e.contradiction = e.contradicted(s.Command); e.contradiction != nil {
			return
		}
	}
}

func (e *Engine) epoch() fence.Epoch { return fence.Epoch(e.identity.Epoch) }

// foreign says why the state may be another history than the one that tokens were handed out from; empty if nothing says
// so. Evidence comes from outside of the state: what nodes remember, and the membership of the store.
func (e *Engine) foreign(id *writv1.IdentityRecord, revision int64) string {
	return because(foreignTo(id, revision, e.own), e.foreignToNodes(id, revision), e.strangers(id))
}

// because is the first of the reasons to call a state foreign.
func because(reasons ...string) string {
	if mutant.On(mutant.ForeignUnnoticed) {
		return ""
	}
	return cmp.Or(reasons...)
}

func (e *Engine) foreignToNodes(id *writv1.IdentityRecord, revision int64) string {
	for _, n := range e.nodes {
		if reason := foreignTo(id, revision, n.Witness); reason != "" {
			return reason
		}
	}
	return ""
}

func foreignTo(id *writv1.IdentityRecord, revision int64, w *writv1.WitnessRecord) string {
	switch {
	case w == nil:
		return ""
	case w.Foreign != "" && (id == nil || w.Epoch >= id.Epoch):
		return fmt.Sprintf("node %s: %s", w.Node, w.Foreign)
	case id == nil && w.Epoch > 0:
		return fmt.Sprintf("the state is empty, but node %s remembers epoch %d", w.Node, w.Epoch)
	case id == nil:
		return ""
	case w.Epoch > id.Epoch:
		return fmt.Sprintf("the state is of epoch %d, but node %s remembers epoch %d", id.Epoch, w.Node, w.Epoch)
	case w.Epoch < id.Epoch || w.Incarnation == "":
		return ""
	case w.Incarnation != id.Incarnation:
		return fmt.Sprintf("the state is incarnation %s of epoch %d, but node %s remembers incarnation %s of it", id.Incarnation, id.Epoch, w.Node, w.Incarnation)
	case w.Ceiling > id.Ceiling:
		return fmt.Sprintf("the state's token ceiling is %d, but node %s remembers %d", id.Ceiling, w.Node, w.Ceiling)
	case w.Revision > revision:
		return fmt.Sprintf("the state is at revision %d, but node %s remembers %d", revision, w.Node, w.Revision)
	}
	return ""
}

// strangers compares the store's membership with what this history committed.
func (e *Engine) strangers(id *writv1.IdentityRecord) string {
	if id == nil {
		return ""
	}
	missing := make(map[uint64]bool, len(id.Members))
	for _, name := range slices.Sorted(maps.Keys(id.Members)) {
		missing[id.Members[name]] = true
	}
	for _, member := range e.members {
		if missing[member.ID] {
			delete(missing, member.ID)
			continue
		}
		if p := id.Pending; p == nil || !p.Add || !slices.Contains(member.PeerURLs, p.PeerUrl) {
			return fmt.Sprintf("member %x (%s) was not admitted by this quorum", member.ID, strings.Join(member.PeerURLs, ","))
		}
	}
	if p := id.Pending; p != nil && !p.Add {
		delete(missing, p.MemberId)
	}
	if len(missing) > 0 {
		return fmt.Sprintf("%d members left without being removed by this quorum", len(missing))
	}
	return ""
}

func (e *Engine) memberMap() map[string]uint64 {
	names := make(map[uint64]string, len(e.nodes))
	for _, name := range slices.Sorted(maps.Keys(e.identity.GetMembers())) {
		names[e.identity.GetMembers()[name]] = name // of members that have not started yet nothing else is known
	}
	for _, n := range e.nodes {
		names[n.MemberId] = n.Name
	}
	members := make(map[string]uint64, len(e.members))
	for _, member := range e.members {
		name := member.Name
		if name == "" {
			name = names[member.ID]
		}
		if p := e.identity.GetPending(); name == "" && p.GetAdd() && slices.Contains(member.PeerURLs, p.GetPeerUrl()) {
			name = p.GetName()
		}
		if name == "" {
			name = fmt.Sprintf("%x", member.ID)
		}
		members[name] = member.ID
	}
	return members
}

func (e *Engine) becomeRecovering(m lease.Moment, reason string) {
	e.role = Recovering
	e.identity.Recovery = &writv1.Recovery{Id: e.nonce, Reason: reason}
	e.effects.Warning = "foreign state: " + reason + "; the epoch will be raised above every witness before anything is granted"
	e.audit(m, audit.Record{Actor: "node/" + e.config.Node, Action: "quorum.foreign-state", Target: e.config.Cluster, Reason: reason})
	e.send(nil, e.takeWrites())
}

// recover goes as far on the way to the new epoch as what is known allows.
func (e *Engine) recover(m lease.Moment) {
	if e.round != nil {
		return
	}
	if len(e.queue) > 0 || e.doubt {
		e.dropLeft()
		var replies []lease.Reply
		for _, s := range e.queue {
			if isClients(s.Command) { // it came while this was not known to be a recovery
				e.refuse(s.ID, e.recoveringError())
				continue
			}
			replies = append(replies, e.changeMembers(m, s))
		}
		e.queue = nil
		if e.send(replies, e.takeWrites()); e.round != nil {
			return
		}
	}
	r := e.identity.Recovery
	if !r.EpochRaised {
		if e.await("has not shown its witness", func(n *writv1.NodeRecord) bool { return n.RecoveryId == r.Id }) {
			e.raiseEpoch(m)
		}
		return
	}
	if !e.await("has not witnessed the new epoch", func(n *writv1.NodeRecord) bool {
		return n.Witness.GetEpoch() == e.identity.Epoch && n.Witness.GetIncarnation() == e.identity.Incarnation
	}) {
		return
	}
	e.waitUntil = e.loadedAt.Add(time.Duration(e.identity.MaxTtlMs) * time.Millisecond)
	if m.Now < e.waitUntil && !mutant.On(mutant.RecoveryWithoutWait) {
		e.waitFor = "every lease that may have been granted before runs out"
		return
	}
	e.audit(m, audit.Record{Actor: "node/" + e.config.Node, Action: "quorum.recovered", Target: e.config.Cluster, Reason: r.Reason})
	e.identity.Recovery, e.waitFor, e.waitUntil = nil, "", clock.Never
	e.becomeReserving(m, r)
}

// await says whether every member's node fulfils the condition, and if not, notes which one does not.
func (e *Engine) await(what string, done func(*writv1.NodeRecord) bool) bool {
	e.waitUntil = clock.Never
	for _, member := range e.members {
		i := slices.IndexFunc(e.nodes, func(n *writv1.NodeRecord) bool { return n.MemberId == member.ID })
		if i < 0 || !done(e.nodes[i]) {
			name := member.Name
			if name == "" {
				name = fmt.Sprintf("%x", member.ID)
			}
			e.waitFor = fmt.Sprintf("node %s %s; start it, or remove it with: writ quorum member remove %s", name, what, name)
			return false
		}
	}
	return true
}

// longestPromise bounds for how long anybody may act on what this quorum has promised: a holder for its TTL, a guard for its
// lease, and the storage for W more.
func (e *Engine) longestPromise(guarded bool) time.Duration {
	longest := e.config.Table.Policy.LongestTTL()
	if guarded {
		longest = max(longest, e.config.Table.LongestGuardLease())
	}
	return longest
}

// promiseGuards notes, with the first rule or guard, that guards may act on their leases from now on.
func (e *Engine) promiseGuards() {
	if ms := e.longestPromise(true).Milliseconds(); ms > e.identity.MaxTtlMs {
		e.identity.MaxTtlMs, e.dirtyID = ms, true
	}
}

// raiseEpoch commits an epoch above everything that any member remembers.
func (e *Engine) raiseEpoch(m lease.Moment) {
	highest := max(e.identity.Epoch, e.own.GetEpoch(), e.identity.Recovery.GetAbove())
	longest := max(e.identity.MaxTtlMs, e.longestPromise(e.state.guarded()).Milliseconds(), e.own.GetMaxTtlMs())
	for _, n := range e.nodes {
		highest = max(highest, n.Witness.GetEpoch())
		longest = max(longest, n.Witness.GetMaxTtlMs())
	}
	if mutant.On(mutant.EpochFromBackup) {
		highest = e.identity.Epoch
	}
	next, err := fence.Epoch(highest).Next()
	if err != nil {
		e.waitFor = fmt.Sprintf("no epoch is left above %d", highest)
		return
	}
	e.audit(m, audit.Record{
		Actor: "node/" + e.config.Node, Action: "quorum.raise-epoch", Target: e.config.Cluster, Reason: e.identity.Recovery.Reason,
		Detail: map[string]string{"from": fmt.Sprint(e.identity.Epoch), "to": fmt.Sprint(next), "incarnation": e.identity.Recovery.Id},
	})
	e.identity.Epoch, e.identity.Incarnation, e.identity.Ceiling = uint32(next), e.identity.Recovery.Id, 0
	e.identity.MaxTtlMs, e.identity.Recovery.EpochRaised = longest, true
	e.identity.Members, e.identity.Pending = e.memberMap(), nil
	e.dirtyID = true
	e.send(nil, e.takeWrites())
}

// nodesChanged hears what the nodes announce. A witness that contradicts the state, however late, ends the term: the next
// one starts with a recovery.
func (e *Engine) nodesChanged(m lease.Moment, ev NodesChanged) {
	e.nodes, e.members = ev.Nodes, ev.Members
	if e.role == Serving { // before, the claim's own look or the step to serving finds it
		e.undisputed(m)
	}
}

// undisputed gives the term up if a witness contradicts the state.
func (e *Engine) undisputed(m lease.Moment) bool {
	reason := e.foreignWitness()
	if reason == "" {
		return true
	}
	e.effects.Warning = "a witness contradicts the state: " + reason
	e.becomeFollower(m, m.Now)
	return false
}

func (e *Engine) foreignWitness() string {
	const anyRevision = 1<<63 - 1
	return because(e.foreignToNodes(e.identity, anyRevision))
}

// BeginMemberChange announces a change of membership before the store is asked for it, so that a coordinator that finds
// the changed membership knows that it is no stranger's.
type BeginMemberChange struct {
	Actor  lease.Principal
	Change *writv1.MemberChange
}

// EndMemberChange commits the membership that resulted, by node name.
type EndMemberChange struct {
	Members map[string]uint64
	Removed string // node whose record is to be dropped
}

// SettleMembers asks for the membership that is committed, and has a change that is pending committed once more. Whatever this
// coordinator asked of the store before is in the log before that: once this is answered, the store's membership tells what came
// of it. The answer is a *Membership.
type SettleMembers struct{}

// Membership is the membership that is committed.
type Membership struct {
	Members map[string]uint64
	Pending *writv1.MemberChange // announced and not ended; nil: none
}

// NameMembers names the members that a store has, for EndMemberChange: as they were committed, as they were just added, by
// their own word, or, if nothing is known of one, by its id.
func NameMembers(members []MemberInfo, committed, added map[string]uint64) map[string]uint64 {
	names := make(map[uint64]string, len(committed)+len(added))
	for _, known := range []map[string]uint64{committed, added} {
		for _, name := range slices.Sorted(maps.Keys(known)) {
			names[known[name]] = name
		}
	}
	named := make(map[string]uint64, len(members))
	for _, m := range members {
		named[cmp.Or(names[m.ID], m.Name, fmt.Sprintf("%x", m.ID))] = m.ID
	}
	return named
}

func (e *Engine) changeMembers(m lease.Moment, s Submit) lease.Reply {
	switch c := s.Command.(type) {
	case BeginMemberChange:
		if p := e.identity.Pending; p != nil && !proto.Equal(p, c.Change) {
			return lease.Reply{ID: s.ID, Err: lease.Errorf(lease.ReasonConflict, "another change of membership is under way (%s)", p.Name)}
		}
		e.identity.Pending = c.Change
		action := "quorum.member-remove"
		if c.Change.Add {
			action = "quorum.member-add"
		}
		e.audit(m, audit.Record{Actor: string(c.Actor), Action: action, Target: c.Change.Name, Detail: map[string]string{"peer_url": c.Change.PeerUrl}})
	case EndMemberChange:
		e.identity.Pending, e.identity.Members = nil, c.Members
		e.dirtyID = true
		if c.Removed != "" {
			e.add(Write{Key: NodeKey(c.Removed)})
		}
	case SettleMembers:
		e.dirtyID = e.dirtyID || e.identity.Pending != nil
		return lease.Reply{ID: s.ID, Value: &Membership{Members: maps.Clone(e.identity.Members), Pending: proto.CloneOf(e.identity.Pending)}}
	case PruneAudit:
		return e.pruneAudit(m, s.ID, c)
	default:
		return lease.Reply{ID: s.ID, Err: lease.Errorf(lease.ReasonInternal, "unknown command %T", s.Command)}
	}
	return lease.Reply{ID: s.ID}
}
