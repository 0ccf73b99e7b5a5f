package judge_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

func TestBeliefs(t *testing.T) {
	const until = 2 * time.Minute // a believes so long
	expire := func(at time.Duration) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			c.believes("a", token(5), until)
			c.now = at
			c.end(lease.EndExpired)
		}
	}
	follow := func(at time.Duration) func(c *court) {
		return func(c *court) {
			c.believes("a", token(5), until)
			c.now = at
			c.believes("b", token(6), at+time.Minute)
		}
	}
	after := func(until time.Duration) func(c *court) {
		return func(c *court) {
			c.grant(token(5), "a/1")
			c.end(lease.EndExpired)
			c.believes("a", token(5), until)
		}
	}
	try(t, []twin{
		{"the end is committed a nanosecond before", "S4", expire(until - 1), expire(until)},
		{"the end is committed before it is known", "S4", after(time.Minute + 1), after(time.Minute)},
		{"two for a nanosecond", "S4", follow(until - 1), follow(until)},
		{
			"two with one token", "S4",
			func(c *court) { c.believes("a", token(5), until); c.believes("b", token(5), until) },
			func(c *court) { c.believes("a", token(5), until); c.believes("a", token(5), until+1) },
		},
		{
			"one with two tokens", "S4",
			func(c *court) { c.believes("a", token(5), until); c.believes("a", token(6), until) },
			func(c *court) {
				c.believes("a", token(5), until)
				c.believes("a", token(5), 0)
				c.believes("a", token(6), until)
			},
		},
		{
			"extended into that of another", "S4",
			func(c *court) {
				c.believes("a", token(5), c.now+1)
				c.now++
				c.believes("b", token(6), until)
				c.believes("a", token(5), until)
			},
			func(c *court) {
				c.believes("a", token(5), c.now+1)
				c.now++
				c.believes("b", token(6), until)
				c.believes("b", token(6), until+1)
			},
		},
		{
			"handed on", "S4",
			func(c *court) {
				c.grant(token(5), "a/1")
				c.believes("a", token(5), until)
				c.pass(lease.EndExpired, token(6), "b/1")
			},
			func(c *court) {
				c.grant(token(5), "a/1")
				c.believes("a", token(5), until)
				c.believes("a", token(5), 0) // it stops
				c.pass(lease.EndExpired, token(6), "b/1")
				c.believes("b", token(6), until)
			},
		},
		{
			"of another resource", "S4", follow(until - 1),
			func(c *court) { c.believes("a", token(5), until); c.Believes("b", "other", token(6), until) },
		},
		{
			"works after its end was committed", "S4",
			func(c *court) { c.grant(token(5), "a/1"); c.end(lease.EndExpired); c.Works("a", jobs, token(5)) },
			func(c *court) {
				c.grant(token(5), "a/1")
				c.Works("a", jobs, token(5))
				c.now++
				c.end(lease.EndExpired)
			},
		},
		{
			"works while somebody believes", "S4",
			func(c *court) { c.believes("a", token(5), until); c.Works("b", jobs, token(6)) },
			func(c *court) { c.believes("a", token(5), until); c.Works("a", jobs, token(5)) },
		},
		{
			"believes in a grant of a lineage before", "S4",
			func(c *court) {
				c.grant(token(5), "a/1")
				c.believes("a", token(5), until)
				c.rebuild(lease.Record{Resource: jobs})
				c.grant(epoch(2, 1), "b/1")
				c.believes("b", epoch(2, 1), until)
			},
			func(c *court) {
				c.grant(token(5), "a/1")
				c.believes("a", token(5), until)
				c.rebuild(lease.Record{Resource: jobs})
				c.now = until
				c.grant(epoch(2, 1), "b/1")
				c.believes("b", epoch(2, 1), until+time.Minute)
			},
		},
	})
}
