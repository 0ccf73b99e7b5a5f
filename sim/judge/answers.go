package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// Asked takes in that a client sends a command, before it does.
func (j *Judge) Asked(command lease.Command) {
	switch c := command.(type) {
	case lease.CancelAcquire:
		j.request(requestOf(c.Resource, c.Principal, c.RequestID)).cancelled = true
	case lease.Release:
		if j.tokens[c.Ref].by.principal == c.Principal {
			j.resource(c.Resource).released[c.Token] = true
		}
	case lease.ForceRelease:
		r := j.resource(c.Resource)
		r.forced[r.token] = true // whichever there is; the one after it would have to be asked for anew
		r.forced[c.Token] = true
		if c.Now {
			r.forcedNow[c.Token] = true
		}
	case lease.Checkpoint:
		orders := j.checkpoints[string(c.Data)]
		if i := slices.IndexFunc(orders, func(o order) bool { return o.token == c.Token }); i >= 0 {
			orders[i].sequence = c.Sequence
		} else {
			j.checkpoints[string(c.Data)] = append(orders, order{c.Token, c.Sequence})
		}
	case lease.Acquire:
		j.ids[lease.DigestRequest(c.RequestID)] = c.RequestID
	case lease.Renew, lease.Inspect:
	}
}

// Acknowledged is the highest token of a resource that any client has been told of: what the next request must exceed.
func (j *Judge) Acknowledged(name lease.Resource) fence.Token { return j.resource(name).acked }

// Answer is an answer that leaves the node that decided it.
type Answer struct {
	Node    string
	Lineage int
	Term    quorum.Term // under which it was decided
	Intake  time.Duration
	Command lease.Command
	Reply   lease.Reply
}

// Answered takes an answer in that leaves the node which decided it: what it says must have been committed, and its term
// been the newest after its intake.
func (j *Judge) Answered(a Answer) {
	if a.Lineage != j.lineage {
		return
	}
	if a.Reply.Err != nil {
		switch a.Reply.Err.Reason {
		case lease.ReasonHeld, lease.ReasonExpired, lease.ReasonReleased, lease.ReasonNotHolder, lease.ReasonNotFound:
			j.fresh(a)
		default: // it says nothing of the state
		}
		return
	}
	j.fresh(a)
	switch c := a.Command.(type) {
	case lease.Acquire:
		if g, ok := a.Reply.Value.(*lease.Grant); ok {
			if made, ok := j.tokens[lease.Ref{Resource: g.Resource, Token: g.Token}]; !ok || made.by != requestOf(c.Resource, c.Principal, c.RequestID) {
				j.violation("D1", "%s acknowledged the grant of %s under %v to %s before it was committed", a.Node, g.Resource, g.Token, c.Principal)
			}
		}
	case lease.Release:
		if r := j.resource(c.Resource); r.known && r.held && r.token == c.Token {
			j.violation("D1", "%s acknowledged the release of %s under %v before it was committed", a.Node, c.Resource, c.Token)
		}
	case lease.CancelAcquire, lease.Renew, lease.Checkpoint, lease.ForceRelease, lease.Inspect:
	}
}

// Unchanged takes in that an answer promised that nothing was changed, although these writes had been sent off for it at
// since: none of the grants among them may have been committed from then on, or ever be.
func (j *Judge) Unchanged(writes []quorum.Write, since time.Duration) {
	for _, w := range writes {
		var rec lease.Record
		if !strings.HasPrefix(w.Key, leasePrefix) || w.Value == nil || rec.UnmarshalBinary(w.Value) != nil || !rec.Held {
			continue
		}
		made, ok := j.tokens[lease.Ref{Resource: rec.Resource, Token: rec.Token}]
		switch {
		case !ok:
			j.promised[rec.Token] = true
		case made.at >= since:
			j.changed(rec.Resource, rec.Token)
		}
	}
}

func (j *Judge) changed(name lease.Resource, token fence.Token) {
	j.violation("S9", "it was answered that nothing was changed, and %s has been granted under %v", name, token)
}

// fresh checks that no newer term had begun when the request was taken in: then its answer would rest on a state that may
// have changed since.
func (j *Judge) fresh(a Answer) {
	for _, c := range slices.Backward(j.claims) {
		if c.lineage != a.Lineage || c.term <= a.Term {
			return
		}
		if c.at < a.Intake {
			j.violation("S9", "%s answered a request under term %d that it had taken in %v after term %d had begun", a.Node, a.Term, a.Intake-c.at, c.term)
			return
		}
	}
}

// Granted takes in that a client was told of a grant. before is what Acknowledged said when the client sent the first
// attempt of this request.
func (j *Judge) Granted(c lease.Acquire, g *lease.Grant, before fence.Token) {
	r, a := j.resource(c.Resource), j.request(requestOf(c.Resource, c.Principal, c.RequestID))
	if a.granted != 0 && a.granted != g.Token {
		j.violation("S9", "request %s of %s for %s was granted under %v and under %v", c.RequestID, c.Principal, c.Resource, a.granted, g.Token)
	}
	if a.granted == 0 && g.Token <= before {
		j.violation("S1", "%s was granted under %v on a request that was sent after %v had been acknowledged", c.Resource, g.Token, before)
	}
	a.granted = g.Token
	r.acked = max(r.acked, g.Token)
}

// Believes takes in until when a client believes in a lease, from now on; an instant that has passed ends the belief.
func (j *Judge) Believes(who string, name lease.Resource, token fence.Token, until time.Duration) {
	r, now := j.resource(name), j.now()
	at := slices.IndexFunc(r.believers, func(b belief) bool { return b.who == who && b.token == token })
	if until <= now {
		if at >= 0 {
			r.believers = slices.Delete(r.believers, at, at+1)
		}
		return
	}
	b := belief{who, token, until}
	if at >= 0 {
		r.believers[at] = b
	} else {
		r.believers = append(r.believers, b)
	}
	j.alone(r, b)
}

// alone checks a belief against everybody else's, and against what has been committed.
func (j *Judge) alone(r *resource, b belief) (ok bool) {
	now := j.now()
	ok = true
	r.believers = slices.DeleteFunc(r.believers, func(o belief) bool { return o.until <= now && o != b })
	for _, o := range r.believers {
		if (o.who != b.who || o.token != b.token) && !r.forcedNow[o.token] && !r.forcedNow[b.token] {
			ok = false
			j.violation("S4", "%s %s while %s believes in it under %v until %v", b.who, b.says(r, now), o.who, o.token, o.until)
		}
	}
	if end, over := r.ended[b.token]; over && b.until > end && !r.forcedNow[b.token] {
		ok = false
		j.violation("S4", "%s %s, whose end was committed at %v", b.who, b.says(r, now), end)
	}
	return ok
}

// says puts a belief into words.
func (b belief) says(r *resource, now time.Duration) string {
	if b.until == now+1 {
		return fmt.Sprintf("works on %s under %v", r.name, b.token)
	}
	return fmt.Sprintf("believes in %s under %v until %v", r.name, b.token, b.until)
}

// Works takes in that a client acts in the belief that it holds a lease, having looked at its clock this very moment.
func (j *Judge) Works(who string, name lease.Resource, token fence.Token) {
	r, b := j.resource(name), belief{who, token, j.now() + 1}
	if reported := slices.Contains(r.overlaps, token); !reported && !j.alone(r, b) {
		r.overlaps = append(r.overlaps, token) // once is enough
	}
}

// Overran takes in that work went on after the local deadline of its lease although its process was running all the time.
func (j *Judge) Overran(who string, name lease.Resource, token fence.Token, by time.Duration) {
	j.violation("S7", "%s still worked on %s under %v, %v after its deadline", who, name, token, by)
}

// LostUpdate takes in that an update of a fenced list which was acknowledged is not there.
func (j *Judge) LostUpdate(name lease.Resource, what string) {
	j.violation("S3", "an acknowledged update of %s is lost: %s", name, what)
}

// Loaded takes in what a coordinator found when it took over: whatever was committed, or a later state.
func (j *Judge) Loaded(node string, lineage int, l *quorum.Loaded) {
	if l.Err != nil || lineage != j.lineage {
		return
	}
	seen := make(map[lease.Resource]bool, len(l.Leases))
	for i := range l.Leases {
		rec := &l.Leases[i]
		seen[rec.Resource] = true
		if r := j.resource(rec.Resource); !r.known {
			j.consumed(rec.Resource, rec, false, lease.NotEnded)
		} else if r.revision <= l.Revision && (rec.Held != r.held || rec.Token != r.token) {
			j.violation("D1", "%s took over at revision %d and found %s under %v (held: %v), not under %v (held: %v) as of revision %d",
				node, l.Revision, r.name, rec.Token, rec.Held, r.token, r.held, r.revision)
		}
	}
	for _, name := range j.names() {
		if r := j.resources[name]; r.known && r.held && r.revision <= l.Revision && !seen[name] {
			j.violation("D1", "%s took over at revision %d and found nothing of %s, held under %v as of revision %d", node, l.Revision, name, r.token, r.revision)
		}
	}
}
