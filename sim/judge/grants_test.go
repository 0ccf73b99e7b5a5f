package judge_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

func TestTokensIncrease(t *testing.T) {
	then := func(next func(c *court)) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			c.end(lease.EndExpired)
			next(c)
		}
	}
	try(t, []twin{
		{
			"a smaller token", "S1",
			then(func(c *court) { c.grant(token(4), "b/1") }),
			then(func(c *court) { c.grant(token(6), "b/1") }),
		},
		{
			"a token that was used", "S1",
			then(func(c *court) { c.grant(token(5), "b/1") }),
			nil,
		},
		{
			"a token that was used, for the same request", "S1",
			then(func(c *court) { c.grant(token(5), "a/1") }),
			nil,
		},
		{
			"by the commit that ends the grant before", "S1",
			func(c *court) { c.grant(token(5), "a/1"); c.pass(lease.EndExpired, token(4), "b/1") },
			func(c *court) { c.grant(token(5), "a/1"); c.pass(lease.EndExpired, token(6), "b/1") },
		},
		{
			"after the record was forgotten", "S1",
			then(func(c *court) { c.forget(); c.grant(token(5), "b/1") }),
			then(func(c *court) { c.forget(); c.grant(token(6), "b/1") }),
		},
		{
			"a smaller token after a restore", "S1",
			then(func(c *court) { c.rebuild(lease.Record{Resource: jobs}); c.grant(token(4), "b/1") }),
			then(func(c *court) { c.rebuild(lease.Record{Resource: jobs}); c.grant(epoch(2, 1), "b/1") }),
		},
		{
			"the same token after a restore, for another request", "S1",
			then(func(c *court) { c.rebuild(lease.Record{Resource: jobs}); c.grant(token(5), "b/1") }),
			// The snapshot holds the grant itself, and its record is written again.
			func(c *court) {
				c.grant(token(5), "a/1")
				snapshot := c.rec
				c.rebuild(snapshot)
				c.rec.HasCheckpoint = true
				c.write()
			},
		},
		{
			"a grant that was made and ended by one commit", "S1",
			then(func(c *court) {
				c.cancels("b/1")
				c.remember(token(7), "b/1", lease.EndCancelled)
				c.write()
				c.grant(token(6), "c/1")
			}),
			then(func(c *court) {
				c.cancels("b/1")
				c.remember(token(7), "b/1", lease.EndCancelled)
				c.write()
				c.grant(token(8), "c/1")
			}),
		},
		{
			"a resource whose first grant was made and ended by one commit", "S1",
			func(c *court) {
				c.cancels("a/1")
				c.hold(token(7), "a/1")
				c.end(lease.EndCancelled)
				c.grant(token(7), "b/1")
			},
			func(c *court) {
				c.cancels("a/1")
				c.hold(token(7), "a/1")
				c.end(lease.EndCancelled)
				c.answers(1, c.now, acquire("a/1"), granted(token(7)))
				c.grant(token(8), "b/1")
			},
		},
	})
}

// cancels takes in that a request is given up.
func (c *court) cancels(by string) {
	a := acquire(by)
	c.Asked(lease.CancelAcquire{Caller: a.Caller, Resource: jobs, RequestID: a.RequestID})
}

func TestAcknowledgedGrants(t *testing.T) {
	told := func(before uint64) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			c.Granted(acquire("a/1"), &lease.Grant{Resource: jobs, Token: token(5)}, 0)
			if got := c.Acknowledged(jobs); got != token(5) {
				c.t.Errorf("%v is acknowledged", got)
			}
			c.pass(lease.EndExpired, token(6), "b/1")
			c.Granted(acquire("b/1"), &lease.Grant{Resource: jobs, Token: token(6)}, token(before))
		}
	}
	again := func(second uint64) func(c *court) {
		return func(c *court) {
			c.Granted(acquire("a/1"), &lease.Grant{Resource: jobs, Token: token(5)}, 0)
			c.Granted(acquire("b/1"), &lease.Grant{Resource: jobs, Token: token(9)}, token(5))
			// A late answer to a request that was sent before.
			c.Granted(acquire("a/1"), &lease.Grant{Resource: jobs, Token: token(second)}, 0)
		}
	}
	try(t, []twin{
		{"asked for after a greater token was acknowledged", "S1", told(7), told(5)},
		{"asked for after the very token was acknowledged", "S1", told(6), told(5)},
		{"two tokens for one request", "S9", again(10), again(5)},
	})
}

func TestRequestsAreGrantedOnce(t *testing.T) {
	// after makes a grant, lets it end, and so many others.
	after := func(others int, then func(c *court)) func(c *court) {
		return func(c *court) {
			c.grant(token(1), "a/1")
			c.end(lease.EndExpired)
			for n := range others {
				c.grant(token(uint64(n)+2), fmt.Sprint("b/", n))
				c.end(lease.EndExpired)
			}
			then(c)
		}
	}
	again := func(c *court) { c.grant(token(100), "a/1") }
	try(t, []twin{
		{"at once", "S9", after(0, again), after(0, func(c *court) { c.grant(token(100), "a/2") })},
		{"while it is held", "S9", func(c *court) { c.grant(token(1), "a/1"); c.pass(lease.EndExpired, token(2), "a/1") }, nil},
		{"of another principal", "S9", after(0, again), after(0, func(c *court) { c.grant(token(100), "b/1") })},
		{"as many others have ended as are remembered", "S9", after(lease.MaxOutcomes-1, again), after(lease.MaxOutcomes, again)},
		{
			"the record was forgotten", "S9", after(1, again),
			after(1, func(c *court) { c.forget(); again(c) }),
		},
		{
			"of a lineage before", "S9", after(1, again),
			after(1, func(c *court) { c.rebuild(lease.Record{Resource: jobs}); c.grant(epoch(2, 1), "a/1") }),
		},
		{
			"by one commit that also ends it", "S9",
			after(0, func(c *court) {
				c.cancels("a/1")
				c.remember(token(2), "a/1", lease.EndCancelled)
				c.write()
			}),
			after(0, func(c *court) {
				c.cancels("a/2")
				c.remember(token(2), "a/2", lease.EndCancelled)
				c.write()
			}),
		},
		{
			"requests that were never granted push it out", "S9",
			after(0, func(c *court) {
				for n := range lease.MaxOutcomes - 1 {
					c.remember(0, fmt.Sprint("c/", n), lease.EndCancelled)
					c.write()
				}
				again(c)
			}),
			after(0, func(c *court) {
				for n := range lease.MaxOutcomes {
					c.remember(0, fmt.Sprint("c/", n), lease.EndCancelled)
					c.write()
				}
				again(c)
			}),
		},
	})
}

func TestGrantsEndAsAskedFor(t *testing.T) {
	ends := func(how lease.End, asked ...lease.Command) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			for _, command := range asked {
				c.Asked(command)
			}
			c.end(how)
		}
	}
	a := lease.Caller{Principal: "a"}
	release := lease.Release{Caller: a, Ref: lease.Ref{Resource: jobs, Token: token(5)}}
	another := release
	another.Token = token(4)
	foreign := release
	foreign.Principal = "b"
	cancel := lease.CancelAcquire{Caller: a, Resource: jobs, RequestID: "1"}
	anotherRequest := cancel
	anotherRequest.RequestID = "2"
	force := lease.ForceRelease{Ref: lease.Ref{Resource: jobs, Token: token(5)}}
	forceOther := force
	forceOther.Resource = "other"
	forceAny := lease.ForceRelease{Ref: lease.Ref{Resource: jobs}}
	try(t, []twin{
		{"released", "S5", ends(lease.EndReleased), ends(lease.EndReleased, release)},
		{"released, where another was to be", "S5", ends(lease.EndReleased, another), ends(lease.EndReleased, another, release)},
		{"released, where somebody else asked for it", "S5", ends(lease.EndReleased, foreign), ends(lease.EndReleased, foreign, release)},
		{"cancelled", "S5", ends(lease.EndCancelled), ends(lease.EndCancelled, cancel)},
		{"cancelled, where another was to be", "S5", ends(lease.EndCancelled, anotherRequest), ends(lease.EndCancelled, anotherRequest, cancel)},
		{"forced", "S5", ends(lease.EndForced), ends(lease.EndForced, force)},
		{"forced, where the holder released", "S5", ends(lease.EndForced, release), ends(lease.EndForced, forceAny)},
		{"forced, where another resource was to be", "S5", ends(lease.EndForced, forceOther), ends(lease.EndForced, force)},
		{
			"forced, where the grant before was to be", "S5",
			func(c *court) {
				c.grant(token(4), "b/1")
				c.Asked(forceAny)
				c.pass(lease.EndExpired, token(5), "a/1")
				c.end(lease.EndForced)
			},
			ends(lease.EndExpired),
		},
		{
			"forced, before it was known to be granted", "S5",
			ends(lease.EndForced),
			func(c *court) {
				c.grant(token(4), "b/1")
				c.Asked(force)
				c.pass(lease.EndExpired, token(5), "a/1")
				c.end(lease.EndForced)
			},
		},
		{
			"forgotten while it was held", "S5",
			func(c *court) { c.grant(token(5), "a/1"); c.forget() },
			func(c *court) { c.grant(token(5), "a/1"); c.end(lease.EndExpired); c.forget() },
		},
		{
			"handed on", "S5",
			func(c *court) { c.grant(token(5), "a/1"); c.pass(lease.EndReleased, token(6), "b/1") },
			func(c *court) { c.grant(token(5), "a/1"); c.Asked(release); c.pass(lease.EndReleased, token(6), "b/1") },
		},
		{
			"made and ended by one commit", "S5",
			func(c *court) {
				c.grant(token(4), "b/1")
				c.end(lease.EndExpired)
				c.hold(token(5), "a/1")
				c.end(lease.EndReleased)
			},
			func(c *court) {
				c.grant(token(4), "b/1")
				c.end(lease.EndExpired)
				c.cancels("a/1")
				c.hold(token(5), "a/1")
				c.end(lease.EndCancelled)
			},
		},
	})
}

func TestCheckpointsAreOfTheirGrant(t *testing.T) {
	stored := quorum.Entry{Key: quorum.CheckpointKey(jobs), Value: []byte("half")}
	asked := func(c *court, n uint64) {
		c.Asked(lease.Checkpoint{Ref: lease.Ref{Resource: jobs, Token: token(n)}, Data: stored.Value})
	}
	under := func(n uint64, then func(c *court)) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			asked(c, n)
			then(c)
			c.commit(stored, c.entry(c.rec))
		}
	}
	nothing := func(*court) {}
	passed := func(c *court) { c.let(lease.EndExpired); c.hold(token(6), "b/1") }
	try(t, []twin{
		{"of an older one", "S5", under(4, nothing), under(5, nothing)},
		{"that nobody asked for", "S5", func(c *court) { c.hold(token(5), "a/1"); c.commit(stored, c.entry(c.rec)) }, nil},
		{
			"of the grant before", "S5",
			under(5, func(c *court) { passed(c); c.write() }),
			under(5, passed), // by the commit that ends it
		},
		{"of the next one", "S5", under(6, nothing), under(6, passed)},
		{
			"that is removed", "S5", under(4, nothing),
			func(c *court) {
				c.grant(token(5), "a/1")
				c.commit(quorum.Entry{Key: stored.Key}, c.entry(c.rec))
			},
		},
	})
}

func TestOverran(t *testing.T) {
	c := newCourt(t)
	c.Overran("a", jobs, token(1), time.Nanosecond)
	c.LostUpdate(jobs, "a#1")
	c.Diverged("n1 and n2 differ")
	if want := "[S7 S3 D1]"; fmt.Sprint(c.found) != want {
		t.Errorf("reported as %v, want %s", c.found, want)
	}
}
