package judge_test

import (
	"errors"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

func TestAnswersRestOnCommits(t *testing.T) {
	grant := func(by string) func(c *court) {
		return func(c *court) {
			term := c.claim()
			c.grant(token(5), "a/1")
			c.answers(term, c.now, acquire(by), granted(token(5)))
		}
	}
	release := func(committed bool) func(c *court) {
		return func(c *court) {
			term := c.claim()
			c.grant(token(5), "a/1")
			command := lease.Release{Caller: lease.Caller{Principal: "a"}, Ref: c.ref()}
			c.Asked(command)
			if committed {
				c.end(lease.EndReleased)
			}
			c.answers(term, c.now, command, lease.Reply{})
		}
	}
	try(t, []twin{
		{
			"a grant", "D1",
			func(c *court) { c.answers(c.claim(), c.now, acquire("a/1"), granted(token(5))) },
			grant("a/1"),
		},
		{"the grant of another request", "D1", grant("a/2"), grant("a/1")},
		{"the grant of another principal", "D1", grant("b/1"), grant("a/1")},
		{"a release", "D1", release(false), release(true)},
		{
			"a place in the queue", "D1",
			func(c *court) { c.answers(c.claim(), c.now, acquire("a/1"), granted(token(5))) },
			func(c *court) { c.answers(c.claim(), c.now, acquire("a/1"), lease.Reply{Value: &lease.Waiting{}}) },
		},
		{
			"of a lineage before", "D1",
			func(c *court) { c.claim(); c.lineage++; c.answers(c.claim(), c.now, acquire("a/1"), granted(token(5))) },
			func(c *court) {
				term := c.claim()
				c.lineage++
				c.claim()
				c.lineage--
				c.answers(term, c.now, acquire("a/1"), granted(token(5)))
			},
		},
	})
}

func TestAnswersAreFresh(t *testing.T) {
	// answered tells of an answer under a term that was taken in so long after a newer one began.
	answered := func(after time.Duration, reply lease.Reply) func(c *court) {
		return func(c *court) {
			term := c.claim()
			c.now += time.Second
			began := c.now
			c.claim()
			c.now += time.Second
			c.claim() // the newest one is not what counts
			c.now += time.Second
			c.answers(term, began+after, lease.Inspect{Ref: lease.Ref{Resource: jobs}}, reply)
		}
	}
	info := lease.Reply{Value: lease.Info{Resource: jobs}}
	try(t, []twin{
		{"taken in after a newer term had begun", "S9", answered(1, info), answered(0, info)},
		{"a refusal that shows the state", "S9", answered(1, refused(lease.ReasonHeld)), answered(1, refused(lease.ReasonNoQuorum))},
		{"expired", "S9", answered(1, refused(lease.ReasonExpired)), answered(1, refused(lease.ReasonUnknownOutcome))},
		{"released", "S9", answered(1, refused(lease.ReasonReleased)), answered(1, refused(lease.ReasonNotCoordinator))},
		{"not the holder", "S9", answered(1, refused(lease.ReasonNotHolder)), answered(1, refused(lease.ReasonInvalid))},
		{
			"under the newest term", "S9", answered(1, info),
			func(c *court) {
				c.claim()
				term := c.claim()
				c.now += time.Second
				c.answers(term, c.now, lease.Inspect{Ref: lease.Ref{Resource: jobs}}, info)
			},
		},
	})
}

func TestNothingWasChanged(t *testing.T) {
	promise := func(c *court, rec lease.Record, since time.Duration) {
		e := c.entry(rec)
		c.Unchanged([]quorum.Write{{Key: quorum.KeyIdentity, Value: []byte("x")}, {Key: e.Key, Value: e.Value}, {Key: quorum.LeaseKey("gone")}}, since)
	}
	// later commits a grant after it was promised that another one, or that one, was not.
	later := func(promised uint64) func(c *court) {
		return func(c *court) {
			c.hold(token(promised), "a/1")
			promise(c, c.rec, c.now)
			c.now += time.Minute
			c.grant(token(5), "a/1")
		}
	}
	before := func(since time.Duration) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			promise(c, c.rec, c.now+since)
		}
	}
	try(t, []twin{
		{"and then it was", "S9", later(5), later(4)},
		{"and it had been", "S9", before(0), before(1)}, // 1: what stood there before the write was sent off
		{
			"a grant of the lineage before", "S9", later(5),
			func(c *court) {
				c.grant(token(5), "a/1")
				c.let(lease.EndExpired)
				promise(c, c.rec, c.now) // nothing was to be granted
				c.write()
			},
		},
	})
}

func TestTakeovers(t *testing.T) {
	// found is what a coordinator finds after a grant, as of so many revisions later.
	found := func(later int64, change func(l *quorum.Loaded)) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			l := &quorum.Loaded{Revision: c.revision + later, Leases: []lease.Record{c.rec}}
			change(l)
			c.Loaded("n1", c.lineage, l)
		}
	}
	same := func(*quorum.Loaded) {}
	older := func(l *quorum.Loaded) { l.Leases[0].Token = token(4) }
	free := func(l *quorum.Loaded) { l.Leases[0].Held = false }
	gone := func(l *quorum.Loaded) { l.Leases = nil }
	try(t, []twin{
		{"an older grant", "D1", found(0, older), found(0, same)},
		{"an older grant, later", "D1", found(3, older), found(-1, older)},
		{"an ended one", "D1", found(0, free), found(-1, free)},
		{"nothing", "D1", found(0, gone), found(-1, gone)},
		{
			"nothing, in an attempt that failed", "D1", found(0, gone),
			found(0, func(l *quorum.Loaded) { l.Leases, l.Err = nil, errors.New("no majority") }),
		},
		{
			"a grant whose end was committed", "D1",
			func(c *court) {
				c.grant(token(5), "a/1")
				was := c.rec
				c.end(lease.EndExpired)
				c.Loaded("n1", c.lineage, &quorum.Loaded{Revision: c.revision, Leases: []lease.Record{was}})
			},
			func(c *court) {
				c.grant(token(5), "a/1")
				was := c.rec
				c.end(lease.EndExpired)
				c.Loaded("n1", c.lineage, &quorum.Loaded{Revision: c.revision - 1, Leases: []lease.Record{was}})
			},
		},
		{
			"a forgotten one", "D1",
			func(c *court) {
				c.grant(token(5), "a/1")
				was := c.rec
				c.end(lease.EndExpired)
				c.forget()
				c.Loaded("n1", c.lineage, &quorum.Loaded{Revision: c.revision, Leases: []lease.Record{was}})
			},
			func(c *court) {
				c.grant(token(5), "a/1")
				c.end(lease.EndExpired)
				c.forget()
				c.Loaded("n1", c.lineage, &quorum.Loaded{Revision: c.revision})
			},
		},
		{
			"what another lineage has lost", "D1", found(0, gone),
			func(c *court) {
				c.grant(token(5), "a/1")
				c.lineage++
				c.claim()
				c.Loaded("n1", c.lineage, &quorum.Loaded{Revision: 9})
				c.Loaded("n1", c.lineage-1, &quorum.Loaded{Revision: 9})
			},
		},
		{
			"what a lineage has lost that has committed nothing yet", "D1", found(0, gone),
			func(c *court) {
				c.grant(token(5), "a/1")
				c.Loaded("n1", c.lineage+1, &quorum.Loaded{Revision: 9})
			},
		},
	})
}

func TestCommitsThatCannotBe(t *testing.T) {
	try(t, []twin{
		{
			"a revision that was used", "D1",
			func(c *court) { c.claim(); c.revision--; c.claim() },
			func(c *court) { c.claim(); c.rebuild(c.rec); c.claim() },
		},
		{
			"a record that cannot be read", "D1",
			func(c *court) { c.commit(quorum.Entry{Key: quorum.LeaseKey(jobs), Value: []byte("?")}) },
			func(c *court) { c.commit(quorum.Entry{Key: quorum.KeyHead, Value: []byte("?")}) },
		},
	})
}
