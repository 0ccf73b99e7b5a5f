//writ:core

package lease

import (
	"cmp"
	"slices"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// How a guarded resource gets from one holder to the next. When it becomes free, the token of the next grant is taken and
// committed with its record, and every guard of the resource is raised to it. Once each has been proved to refuse what is
// older, the resource is ready, and the first in the queue gets that token. There may be none yet: the guards have been told
// then that the old token is over, and whoever asks next need not wait for them.

// raise is a fencing under way, or done: nobody is awaited any more.
type raise struct {
	token  fence.Token
	begun  clock.Instant
	awaits []*await // in order of the guards' names
	proofs []Proof  // of the others
	// givenUp: nothing guarded the resource any more while guards were awaited. It is taken up again if that changes.
	givenUp bool
}

func (e *entry) raise() *raise {
	if e.extra == nil {
		return nil
	}
	return e.extra.raise
}

// guarded answers the rule of a resource, nil if it has none.
func (t *Table) guarded(name Resource) *writv1.GuardingRule { return t.guards.rules.of(name) }

// fenced says whether a free resource may be granted. If it is guarded and no raise is under way, one begins.
func (t *Table) fenced(m Moment, e *entry) bool {
	rule := t.guarded(e.name)
	if rule == nil {
		return true
	}
	if e.raise() == nil {
		t.beginRaise(m, e, rule)
	}
	t.takeUp(m, e, rule)
	return e.raise().over()
}

// takeUp asks anew for the proofs of a raise that another rule, or none, was content without.
func (t *Table) takeUp(m Moment, e *entry, rule *writv1.GuardingRule) {
	r := e.raise()
	if r == nil || (!r.givenUp && (rule.GetAllowUnproven() || !r.unproven())) {
		return
	}
	t.dropRaise(e)
	t.raiseTo(m, e, rule, r.token)
}

func (r *raise) unproven() bool {
	return slices.ContainsFunc(r.proofs, func(p Proof) bool { return p.How == Unproven })
}

// over says whether every guard has been proved.
func (r *raise) over() bool { return len(r.awaits) == 0 || mutant.On(mutant.GrantBeforeProof) }

// beginRaise takes the token of the next grant and asks every guard of the resource for proof.
func (t *Table) beginRaise(m Moment, e *entry, rule *writv1.GuardingRule) {
	t.raiseTo(m, e, rule, t.takeToken())
	t.mark(e)
	t.wakeFree(e)
}

func (t *Table) raiseTo(m Moment, e *entry, rule *writv1.GuardingRule, token fence.Token) {
	r := &raise{token: token, begun: m.Now}
	e.more().raise = r
	for _, g := range t.guards.order {
		if !g.covers(e.name) {
			continue
		}
		if how := g.known(rule); how != 0 {
			r.proofs = append(r.proofs, Proof{Guard: g.rec.Name, How: how})
			continue
		}
		r.awaits = append(r.awaits, g.open.add(g, e))
	}
}

// prove notes that g refuses what is older than the entry's next token. Whoever waits for the resource is served by the next
// tick: one message may prove more than a round can carry.
func (t *Table) prove(m Moment, g *guard, e *entry, how ProofHow) {
	r := e.raise()
	r.proofs = append(r.proofs, Proof{Guard: g.rec.Name, How: how})
	t.proved(m, g, e)
}

// proved ends the waiting for g, and wakes e when no other guard is awaited.
func (t *Table) proved(m Moment, g *guard, e *entry) {
	e.raise().settle(g)
	if len(e.raise().awaits) == 0 && len(e.queue()) > 0 {
		t.wakeAt(e, max(m.Now, e.due))
	}
}

// dropRaise forgets a raise, of a resource that is forgotten or not guarded any more.
func (t *Table) dropRaise(e *entry) {
	r := e.raise()
	if r == nil {
		return
	}
	for _, a := range r.awaits {
		a.guard.open.remove(a)
	}
	e.extra.raise = nil
}

// nextToken is the one that the guards have been raised to, or a fresh one.
func (t *Table) nextToken(e *entry) fence.Token {
	r := e.raise()
	if r == nil {
		if e.extra != nil {
			e.extra.proofs = nil
		}
		return t.takeToken()
	}
	token := r.token
	e.extra.proofs = r.kept()
	t.dropRaise(e)
	return token
}

// MaxProofs is how many proofs a record keeps: those that are more than an ack first.
const MaxProofs = 128

// kept are the proofs that go into the record, by guard.
func (r *raise) kept() []Proof {
	slices.SortFunc(r.proofs, func(a, b Proof) int { return cmp.Or(cmp.Compare(b.How, a.How), strings.Compare(a.Guard, b.Guard)) })
	kept := r.proofs[:min(len(r.proofs), MaxProofs)]
	slices.SortFunc(kept, func(a, b Proof) int { return strings.Compare(a.Guard, b.Guard) })
	return kept
}

// loadRaise goes on with a raise that an earlier coordinator began. Its guards are asked for proof again.
func (t *Table) loadRaise(m Moment, e *entry, token fence.Token) {
	rule := t.guarded(e.name)
	if token == 0 || token.Epoch() != t.epoch || (rule == nil && e.tenure() == "") || e.held {
		return
	}
	t.raiseTo(m, e, rule, token)
}

// retire begins the raise of a resource whose grant has ended, so that its guards refuse the old token though nobody asks
// for a new one.
func (t *Table) retire(m Moment, e *entry) {
	if rule := t.guarded(e.name); rule != nil && e.raise() == nil {
		t.beginRaise(m, e, rule)
	}
}

// patience is how long a request that does not wait for others waits for the guards.
const patience = 2 * time.Second

// fencingError tells a caller who does not wait which guards are awaited.
func (t *Table) fencingError(e *entry) *Error {
	if e.held {
		return t.heldError(e) // somebody of a higher priority was served first
	}
	err := Errorf(ReasonFencing, "nobody holds %q, but not every guard has proved yet that it refuses who held it last (%s)",
		e.name, awaited(e.raise()))
	err.Resource, err.RetryAfter = e.name, time.Second
	return err
}

func awaited(r *raise) string {
	const shown = 4
	text := ""
	for i, name := range r.names() {
		switch {
		case i == shown:
			return text + " and others"
		case i > 0:
			text += ", "
		}
		text += name
	}
	return text
}

// names lists the guards that are awaited.
func (r *raise) names() []string {
	if r == nil {
		return nil
	}
	var names []string
	for _, a := range r.awaits {
		names = append(names, a.guard.rec.Name)
	}
	return names
}
