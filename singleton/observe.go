package singleton

import (
	"context"
	"iter"

	"github.com/writ-io/writ/lease"
)

// Observe yields the terms of a resource, of whichever process, as they begin and end: first the present one, if there is
// one, and then each twice, the second time with Ended. End is known unless the next term began in the same moment. What
// is yielded has happened; it confers nothing, and may be over already.
//
// Terms that began and ended while no node could be heard are left out if the watch could not be continued afterwards.
// Errors end it, as those of lease.Client.Watch: that of ctx, lease.ErrClosed, INVALID, DENIED.
func (s *Singleton) Observe(ctx context.Context, resource string) iter.Seq2[Term, error] {
	return func(yield func(Term, error) bool) {
		if _, err := lease.ParseResource(resource); err != nil {
			yield(Term{}, err)
			return
		}
		var o observer
		for event, err := range s.client.Watch(ctx, lease.WatchOptions{Prefix: resource}) {
			if err != nil {
				yield(Term{}, err)
				return
			}
			if string(event.Info.Resource) != resource {
				continue // another one under the same prefix
			}
			for _, term := range o.saw(event.Info) {
				if !yield(term, nil) {
					return
				}
			}
		}
	}
}

// observer makes terms of what a resource is.
type observer struct {
	term Term // the last one; Ended if it is over
}

// saw returns the terms that have ended and begun since.
func (o *observer) saw(info lease.Info) []Term {
	var terms []Term
	held := info.State == lease.Held || info.State == lease.Ending
	same := info.Token == o.term.Token
	if o.term.Token != 0 && !o.term.Ended && (!same || !held) {
		o.term.Ended = true
		if same {
			o.term.End = info.End
		}
		terms = append(terms, o.term)
	}
	if held && !same {
		o.term = Term{Resource: info.Resource, Token: info.Token, Holder: info.Holder, GrantedAt: info.GrantedAt}
		terms = append(terms, o.term)
	}
	return terms
}
