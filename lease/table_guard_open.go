//writ:core

package lease

import (
	"iter"
	"slices"
)

// await is a guard that a raise awaits. It stands in the raise, and in the guard's list of all that await it.
type await struct {
	guard      *guard
	entry      *entry
	prev, next *await // in the guard's list
}

// openRaises lists the resources whose raises await one guard, oldest first. A guard that comes back after an outage may prove
// a hundred thousand of them, in any order, so taking one off the list costs the same wherever it stands.
type openRaises struct {
	first, last *await
	n           int
}

// add puts the raise of e at the end.
func (o *openRaises) add(g *guard, e *entry) *await {
	a := &await{guard: g, entry: e, prev: o.last}
	if o.last == nil {
		o.first = a
	} else {
		o.last.next = a
	}
	o.last = a
	o.n++
	return a
}

// remove takes one off, which must be there. Its own next stays, so that whoever goes through the list may go on.
func (o *openRaises) remove(a *await) {
	if a.prev == nil {
		o.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		o.last = a.prev
	} else {
		a.next.prev = a.prev
	}
	o.n--
}

// all goes through the list; the one that it is at may be taken off.
func (o *openRaises) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for a := o.first; a != nil; a = a.next {
			if !yield(a.entry) {
				return
			}
		}
	}
}

// waitsFor says whether g is among those that a raise awaits.
func (r *raise) waitsFor(g *guard) bool {
	return slices.ContainsFunc(r.awaits, func(a *await) bool { return a.guard == g })
}

// settle takes g off those that a raise awaits.
func (r *raise) settle(g *guard) {
	for i, a := range r.awaits {
		if a.guard == g {
			g.open.remove(a)
			r.awaits = slices.Delete(r.awaits, i, i+1)
			return
		}
	}
}
