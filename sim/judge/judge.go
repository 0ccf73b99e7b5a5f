package judge

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// Judge keeps the books of one run.
type Judge struct {
	now    func() time.Duration
	report func(invariant, text string)

	resources map[lease.Resource]*resource
	requests  map[request]*asked
	tokens    map[fence.Token]grant // every grant that was committed, in any lineage
	promised  map[fence.Token]bool  // grants that an answer said were not made

	lineage  int
	revision int64        // the newest commit of this lineage
	chain    []audit.Head // of every audit record so far, behind that of the empty chain
	rebased  bool         // nothing was recorded in this lineage yet
	claims   []claim
	log      []logged
}

type resource struct {
	name    lease.Resource
	highest fence.Token // of all grants that were committed, in any lineage
	acked   fence.Token // of all grants that were acknowledged to a client

	// What this lineage has committed.
	known    bool
	held     bool
	token    fence.Token
	by       request
	revision int64

	ended     map[fence.Token]time.Duration // T at which the end of a grant was committed
	released  map[fence.Token]bool          // its holder asked for that
	forced    map[fence.Token]bool          // an operator asked for that
	believers []belief
}

// request names one acquisition.
type request struct {
	resource  lease.Resource
	principal lease.Principal
	id        string
}

// grant is one that was committed.
type grant struct {
	by request
	at time.Duration
}

type asked struct {
	cancelled bool
	granted   fence.Token // acknowledged; 0: not
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
		resources: make(map[lease.Resource]*resource), requests: make(map[request]*asked), tokens: make(map[fence.Token]grant), promised: make(map[fence.Token]bool),
		chain: []audit.Head{{}},
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
			released: make(map[fence.Token]bool), forced: make(map[fence.Token]bool),
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
	for i := range c.Entries {
		e := &c.Entries[i]
		switch {
		case strings.HasPrefix(e.Key, leasePrefix):
			j.record(lease.Resource(e.Key[len(leasePrefix):]), c.Revision, i, e.Value)
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
		r.known, r.held, r.revision = true, false, revision
		return
	}
	var rec lease.Record
	if err := rec.UnmarshalBinary(value); err != nil {
		j.violation("D1", "a record of %s was committed that cannot be read: %v", name, err)
		return
	}
	by := request{name, rec.Holder.Principal, rec.RequestID}
	if r.known && r.held && (rec.Token != r.token || !rec.Held) {
		how := rec.End
		for _, o := range rec.Outcomes {
			if o.Token == r.token {
				how = o.End
			}
		}
		j.ended(r, how)
	}
	if rec.Held && !(r.known && r.held && rec.Token == r.token) {
		j.granted(r, rec.Token, by)
	}
	r.known, r.held, r.token, r.by, r.revision = true, rec.Held, rec.Token, by, revision
}

func (j *Judge) granted(r *resource, token fence.Token, by request) {
	switch {
	case token == r.highest && !r.known:
		// The first look at a record of an earlier lineage.
		return
	case token <= r.highest:
		j.violation("S1", "%s was granted under %v after %v", r.name, token, r.highest)
	}
	r.highest = max(r.highest, token)
	if j.promised[token] {
		j.changed(r.name, token)
	}
	j.tokens[token] = grant{by, j.now()}
	delete(r.ended, token)
}

// ended takes in that the end of the present grant was committed.
func (j *Judge) ended(r *resource, how lease.End) {
	now := j.now()
	r.ended[r.token] = now
	for _, b := range r.believers {
		if b.token == r.token && b.until > now {
			j.violation("S4", "the end (%v) of %s under %v was committed %v before %s stops believing in it", how, r.name, r.token, b.until-now, b.who)
		}
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
	if j.rebased { // a lineage goes on behind some record of the one before
		j.rebased = false
		if sequence <= uint64(len(j.chain)) {
			j.chain = j.chain[:sequence]
		}
	}
	_, next, err := audit.Verify(j.chain[len(j.chain)-1], e.Value)
	if err != nil {
		j.violation("M1", "%s: %v", e.Key, err)
		return
	}
	if next.Sequence != sequence {
		j.violation("M1", "record %d stands under %s", next.Sequence, e.Key)
	}
	j.chain = append(j.chain, next)
}

// Grants is how many grants were committed.
func (j *Judge) Grants() int { return len(j.tokens) }

// Held tells whether, and for which request, a resource is held by what was committed last.
func (j *Judge) Held(name lease.Resource) (token fence.Token, held bool) {
	r := j.resource(name)
	return r.token, r.known && r.held
}

// RequestOf names the request that a committed token was granted to; empty if there is none.
func (j *Judge) RequestOf(token fence.Token) string { return j.tokens[token].by.id }
