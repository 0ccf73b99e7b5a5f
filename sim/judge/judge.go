package judge

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/singleton/cron"
)

// Grant is how a resource came to its holder.
type Grant struct {
	Resource lease.Resource
	// Handed says that the commit which made it also ended the grant before.
	Handed bool
	// After is how the grant before ended, and FreeFor how long ago.
	After   lease.End
	FreeFor time.Duration
	// NewEpoch says that it is the first of the resource in its epoch.
	NewEpoch bool
	// Bare says that no rule had it guarded.
	Bare bool
	// Proofs say how its guards were proved.
	Proofs []lease.Proof
}

// Judge keeps the books of one run.
type Judge struct {
	now    func() time.Duration
	report func(invariant, text string)
	// OnGrant, if set, hears of every grant when it is committed.
	OnGrant func(Grant)
	// OnSlot, if set, hears of every record that a job's history gets.
	OnSlot func(cron.Record)

	resources map[lease.Resource]*resource
	requests  map[request]*asked
	tokens    map[lease.Ref]grant // every grant that was committed, in any lineage
	ids       map[lease.RequestDigest]string
	promised  map[fence.Token]bool // grants that an answer said were not made
	// checkpoints tells under which token, and as the how manieth of it, each was asked to be stored.
	checkpoints map[string][]order

	failover failover

	functions []Function
	lost      map[lease.Ref]bool // their holders have lost them, and may release them then
	jobs      map[lease.Resource]*job
	groups    []*consumers

	lineage  int
	revision int64 // the newest commit of this lineage
	head     audit.Head
	heads    map[uint64][]audit.Head // of every audit record so far, by sequence: those of all lineages
	rebased  bool                    // nothing was recorded in this lineage yet
	claims   []claim
	rules    *writv1.GuardingRecord // as committed; was: before this commit
	was      *writv1.GuardingRecord
	log      []logged
}

type resource struct {
	name    lease.Resource
	highest fence.Token // of all grants that were committed, in any lineage
	acked   fence.Token // of all grants that were acknowledged to a client

	// What this lineage has committed.
	known     bool
	held      bool
	token     fence.Token
	by        request
	revision  int64
	passed    []fence.Token // grants that the last change ended
	how       lease.End     // how the last grant ended
	freed     time.Duration // T of that
	ends      int           // how many were committed, and requests cancelled that were never granted
	outcomes  []lease.Outcome
	regranted bool
	tenure    bool // a failover group decides about it, and nobody asks for it

	ended      map[fence.Token]time.Duration // T at which the end of a grant was committed
	released   map[fence.Token]bool          // its holder asked for that
	forced     map[fence.Token]bool          // an operator asked for that
	believers  []belief
	overlaps   []fence.Token        // of work that was reported
	checkpoint order                // stored last
	forcedNow  map[fence.Token]bool // an operator asked for that without waiting: guards take the place of S4
	fencing    bool
	fenced     fenced
}

// request names one acquisition.
type request struct {
	resource  lease.Resource
	principal lease.Principal
	digest    lease.RequestDigest // of its id, which is all that is left of a request that has ended
}

func requestOf(resource lease.Resource, principal lease.Principal, id string) request {
	return request{resource, principal, lease.DigestRequest(id)}
}

// grant is one that was committed.
type grant struct {
	by request
	at time.Duration
}

type asked struct {
	cancelled bool
	granted   fence.Token // acknowledged; 0: not
	made      fence.Token // committed; 0: not
	lineage   int         // of that
	over      bool        // its end was committed, as the end-th of the resource: so many are remembered
	end       int
}

// order is where a checkpoint stands among those of its grant.
type order struct {
	token    fence.Token
	sequence uint64
}

// claim is a term that began.
type claim struct {
	lineage int
	term    quorum.Term
	at      time.Duration
}

type belief struct {
	who   string
	token fence.Token
	until time.Duration
}

// New makes a judge. now tells T; report is called with each violation.
func New(now func() time.Duration, report func(invariant, text string)) *Judge {
	return &Judge{
		now: now, report: report,
		resources: make(map[lease.Resource]*resource), requests: make(map[request]*asked), tokens: make(map[lease.Ref]grant), ids: make(map[lease.RequestDigest]string), promised: make(map[fence.Token]bool),
		checkpoints: make(map[string][]order),
		jobs:        make(map[lease.Resource]*job),
		lost:        make(map[lease.Ref]bool),
		failover:    newFailover(),
		heads:       map[uint64][]audit.Head{0: {{}}},
	}
}

func (j *Judge) violation(invariant, format string, args ...any) {
	j.report(invariant, fmt.Sprintf(format, args...))
}

func (j *Judge) resource(name lease.Resource) *resource {
	r := j.resources[name]
	if r == nil {
		r = &resource{
			name: name, ended: make(map[fence.Token]time.Duration),
			released: make(map[fence.Token]bool), forced: make(map[fence.Token]bool), forcedNow: make(map[fence.Token]bool),
		}
		j.resources[name] = r
	}
	return r
}

func (j *Judge) request(key request) *asked {
	a := j.requests[key]
	if a == nil {
		a = &asked{}
		j.requests[key] = a
	}
	return a
}

const (
	leasePrefix = quorum.Prefix + "lease/"
	auditPrefix = quorum.Prefix + "audit/"

	checkpointPrefix = quorum.Prefix + "checkpoint/"
)

// Committed takes a change in when the first member has applied it.
func (j *Judge) Committed(lineage int, c quorum.Change) {
	if lineage != j.lineage {
		j.begin(lineage)
	}
	if c.Revision <= j.revision {
		j.violation("D1", "revision %d was committed after revision %d", c.Revision, j.revision)
	}
	j.revision = c.Revision
	j.was = j.ruled(c)
	var stored *quorum.Entry
	for i := range c.Entries {
		e := &c.Entries[i]
		switch {
		case strings.HasPrefix(e.Key, leasePrefix):
			name := lease.Resource(e.Key[len(leasePrefix):])
			j.record(name, c.Revision, i, e.Value)
			if stored != nil && stored.Key == quorum.CheckpointKey(name) {
				j.checkpoint(name, stored.Value)
				stored = nil
			}
		case strings.HasPrefix(e.Key, checkpointPrefix) && e.Value != nil:
			stored = e // its record comes in the same change
		case e.Key == quorum.KeyTerm:
			j.claims = append(j.claims, claim{lineage, quorum.Term(c.Revision), j.now()})
		case strings.HasPrefix(e.Key, auditPrefix):
			j.audited(e)
		}
	}
}

// begin starts the books of a lineage. What was committed before it may be lost, but no token comes back.
func (j *Judge) begin(lineage int) {
	j.lineage, j.revision, j.log, j.rebased = lineage, 0, nil, true
	for _, r := range j.resources { // each for itself: the order does not matter
		r.known = false
	}
}

// Diverged takes in that members of the store do not agree, or have lost something.
func (j *Judge) Diverged(what string) { j.violation("D1", "%s", what) }

// record takes in that the record of a resource was written, or, with a nil value, forgotten.
func (j *Judge) record(name lease.Resource, revision int64, index int, value []byte) {
	r := j.resource(name)
	j.log = append(j.log, logged{revision: revision, index: index, resource: name, removed: value == nil})
	if value == nil {
		if r.known && r.held {
			j.violation("S5", "%s was forgotten while it was held under %v", name, r.token)
		}
		r.known, r.held, r.fencing, r.revision = true, false, false, revision
		r.ends += lease.MaxOutcomes // nothing of it is remembered
		r.outcomes = nil
		return
	}
	var rec lease.Record
	if err := rec.UnmarshalBinary(value); err != nil {
		j.violation("D1", "a record of %s was committed that cannot be read: %v", name, err)
		return
	}
	told := &j.log[len(j.log)-1]
	told.token, told.held = rec.Token, rec.Held
	r.tenure = r.tenure || rec.TenureGroup != ""
	by := requestOf(name, rec.Holder.Principal, rec.RequestID)
	r.passed = r.passed[:0]
	was := *r
	stays := was.known && was.held && rec.Held && rec.Token == was.token
	if was.known && was.held && !stays {
		j.end(r, endOf(rec, was.token))
	}
	// One commit may make a grant and end it: only its end is left to be seen.
	known := remembered(was.outcomes, rec.Outcomes)
	for i, o := range rec.Outcomes {
		switch {
		case o.Token == 0 && i >= known: // cancelled before it was granted: it pushes others out too
			r.ends++
		case o.Token > was.highest && (!rec.Held || o.Token != rec.Token):
			j.granted(r, o.Token, request{name, o.Principal, o.Request}, rec.Proofs)
			j.end(r, o.End)
		}
	}
	if rec.Held && !stays {
		if j.OnGrant != nil {
			j.OnGrant(Grant{
				Resource: name, Handed: len(r.passed) > 0, After: r.how, FreeFor: j.now() - r.freed,
				NewEpoch: was.highest != 0 && rec.Token.Epoch() > was.highest.Epoch(), Proofs: rec.Proofs, Bare: !j.isGuarded(name),
			})
		}
		if rec.TenureGroup != "" {
			j.failover.regions[lease.Ref{Resource: name, Token: rec.Token}] = rec.Holder.Region
		}
		j.granted(r, rec.Token, by, rec.Proofs)
	}
	r.known, r.held, r.token, r.by, r.revision, r.outcomes = true, rec.Held, rec.Token, by, revision, rec.Outcomes
	r.fencing = rec.Fencing != 0
	j.consumed(name, &rec, len(r.passed) > 0, r.how)
}

// remembered is how many of the outcomes in a record were in the one before.
func remembered(before, now []lease.Outcome) int {
	n := min(len(before), len(now))
	for !slices.Equal(before[len(before)-n:], now[:n]) {
		n--
	}
	return n
}

// endOf is how a grant ended that a record is no longer of.
func endOf(rec lease.Record, token fence.Token) lease.End {
	for _, o := range rec.Outcomes {
		if o.Token == token {
			return o.End
		}
	}
	return rec.End
}

func (j *Judge) granted(r *resource, token fence.Token, by request, proofs []lease.Proof) {
	switch {
	case token == r.highest && !r.known && j.tokens[lease.Ref{Resource: r.name, Token: token}].by == by:
		// The first look at a record of an earlier lineage.
		return
	case token <= r.highest:
		j.violation("S1", "%s was granted under %v after %v", r.name, token, r.highest)
	}
	r.highest = max(r.highest, token)
	if j.isGuarded(r.name) {
		r.fenced.guarded(token, proofs)
	}
	a := j.request(by)
	if a.made != 0 && a.made != token && a.lineage == j.lineage && !r.tenure {
		if !a.over || r.ends-a.end < lease.MaxOutcomes {
			j.violation("S9", "request %q of %s for %s was granted under %v, and again under %v", j.ids[by.digest], by.principal, r.name, a.made, token)
		}
		r.regranted = true
	}
	a.made, a.lineage, a.over = token, j.lineage, false
	if j.promised[token] {
		j.changed(r.name, token)
	}
	j.tokens[lease.Ref{Resource: r.name, Token: token}] = grant{by, j.now()}
	r.token, r.by = token, by
	delete(r.ended, token)
}

// checkpoint takes in that a checkpoint was stored: its own grant must be the present one, or have ended in the same change.
func (j *Judge) checkpoint(name lease.Resource, data []byte) {
	r := j.resource(name)
	asked, ok := order{}, false
	for _, o := range j.checkpoints[string(data)] {
		if present := o.token == r.token || slices.Contains(r.passed, o.token); !ok || present {
			asked, ok = o, present
		}
	}
	switch {
	case !ok:
		j.violation("S5", "a checkpoint of %s that was asked for under %v was stored under %v", name, asked.token, r.token)
	case r.checkpoint.token == asked.token && asked.sequence < r.checkpoint.sequence:
		j.violation("D1", "checkpoint %d of %s under %v was stored over its checkpoint %d", asked.sequence, name, asked.token, r.checkpoint.sequence)
	}
	r.checkpoint = asked
	if b := j.jobs[name]; b != nil {
		j.stored(b, data)
	}
	j.offset(name, data)
}

// end takes in that the end of the present grant was committed.
func (j *Judge) end(r *resource, how lease.End) {
	now := j.now()
	r.how, r.freed, r.passed = how, now, append(r.passed, r.token)
	r.ended[r.token] = now
	r.ends++
	a := j.request(r.by)
	a.over, a.end = true, r.ends
	j.letGo(r.name, r.token, how)
	for _, b := range r.believers {
		if b.token == r.token && b.until > now && (how != lease.EndForced || !r.forcedNow[r.token]) {
			j.violation("S4", "the end (%v) of %s under %v was committed %v before %s stops believing in it", how, r.name, r.token, b.until-now, b.who)
		}
	}
	if r.tenure {
		j.failover.ended = append(j.failover.ended, lease.Ref{Resource: r.name, Token: r.token})
		return
	}
	switch how {
	case lease.EndReleased, lease.EndCancelled:
		if !r.released[r.token] && !j.request(r.by).cancelled {
			j.violation("S5", "%s under %v ended as %v, which its holder %s had not asked for", r.name, r.token, how, r.by.principal)
		}
	case lease.EndForced:
		if !r.forced[r.token] {
			j.violation("S5", "%s under %v was taken away, which nobody had asked for", r.name, r.token)
		}
	case lease.EndExpired, lease.NotEnded:
	}
}

func (j *Judge) audited(e *quorum.Entry) {
	sequence, err := strconv.ParseUint(e.Key[len(auditPrefix):], 10, 64)
	if err != nil || sequence == 0 {
		j.violation("M1", "an audit record stands under %s", e.Key)
		return
	}
	if j.rebased { // a lineage goes on behind some record of those before
		j.rebased = false
		for _, h := range j.heads[sequence-1] {
			if _, _, err := audit.Verify(h, e.Value); err == nil {
				j.head = h
			}
		}
	}
	rec, next, err := audit.Verify(j.head, e.Value)
	if err != nil {
		j.violation("M1", "%s: %v", e.Key, err)
		return
	}
	if next.Sequence != sequence {
		j.violation("M1", "record %d stands under %s", next.Sequence, e.Key)
	}
	j.noted(rec)
	j.head = next
	j.heads[next.Sequence] = append(j.heads[next.Sequence], next)
}

// Held tells whether, and for which request, a resource is held by what was committed last.
func (j *Judge) Held(name lease.Resource) (token fence.Token, held bool) {
	r := j.resource(name)
	return r.token, r.known && r.held
}

// Regranted tells whether a request for a resource was granted more than once: which may be, when so many others have ended
// since that its own end is no longer remembered.
func (j *Judge) Regranted(name lease.Resource) bool { return j.resource(name).regranted }

// RequestOf names the request that a committed grant was made to; empty if there is none, or nobody asked for it.
func (j *Judge) RequestOf(ref lease.Ref) string { return j.ids[j.tokens[ref].by.digest] }
