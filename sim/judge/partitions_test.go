package judge_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/singleton/partition"
)

// company is a group of two partitions whose leases the test writes.
type company struct {
	*court
	names partition.Names
	last  uint64
	recs  map[string]lease.Record
}

func newCompany(c *court) *company {
	names, err := partition.NewNames("queue")
	if err != nil {
		c.t.Fatal(err)
	}
	c.Consumers("queue", names, 2)
	return &company{court: c, names: names, recs: make(map[string]lease.Record)}
}

// take grants a lease to a member.
func (g *company) take(name, member string) {
	g.last++
	rec := lease.Record{Resource: lease.Resource(name), Held: true, Token: token(g.last), TTL: 10 * time.Second, RequestID: fmt.Sprint(g.last)}
	rec.Holder.Principal, rec.Holder.Instance = lease.Principal(member), member
	g.recs[name] = rec
	g.commit(g.entry(rec))
}

// leave ends it.
func (g *company) leave(name string, how lease.End) {
	rec := g.recs[name]
	g.Asked(lease.Release{Caller: lease.Caller{Principal: rec.Holder.Principal}, Ref: lease.Ref{Resource: rec.Resource, Token: rec.Token}})
	rec.Held, rec.End = false, how
	rec.Outcomes = []lease.Outcome{{Principal: rec.Holder.Principal, Request: lease.DigestRequest(rec.RequestID), Token: rec.Token, End: how}}
	g.recs[name] = rec
	g.commit(g.entry(rec))
}

func (g *company) joins(members ...string) {
	for _, m := range members {
		name, _ := g.names.Member(m)
		g.take(name, m)
	}
}

// at stores an offset.
func (g *company) at(index int, offset string) {
	rec := g.recs[g.names.Partition(index)]
	g.Asked(lease.Checkpoint{Caller: lease.Caller{Principal: rec.Holder.Principal}, Ref: lease.Ref{Resource: rec.Resource, Token: rec.Token}, Data: []byte(offset), Sequence: uint64(g.revision)})
	g.commit(quorum.Entry{Key: quorum.CheckpointKey(rec.Resource), Value: []byte(offset)}, g.entry(rec))
}

// P1: items come in order and nothing is left out, offsets do not go back, and who stays keeps what they have.
func TestPartitions(t *testing.T) {
	// rest has three members share two partitions for long, and one without any go away.
	rest := func(c *court, calm time.Duration) *company {
		g := newCompany(c)
		g.joins("a", "b", "c")
		g.take(g.names.Partition(0), "a")
		g.take(g.names.Partition(1), "b")
		c.now += calm
		return g
	}
	gone := func(g *company, member string) {
		name, _ := g.names.Member(member)
		g.leave(name, lease.EndExpired)
	}
	begin := func(c *court) *company {
		g := newCompany(c)
		g.joins("a")
		g.take(g.names.Partition(0), "a")
		c.Item("queue", 0, 1, token(2))
		c.Item("queue", 0, 2, token(2))
		return g
	}
	try(t, []twin{
		{"an item is left out", "P1",
			func(c *court) { begin(c); c.Item("queue", 0, 4, token(2)) },
			func(c *court) { begin(c); c.Item("queue", 0, 3, token(2)); c.Item("queue", 0, 2, token(2)) }},
		{"under an older token", "P1", func(c *court) { begin(c); c.Item("queue", 0, 3, token(1)) }, nil},
		{"the offset goes back", "P1",
			func(c *court) { g := begin(c); g.at(0, "2 x"); g.at(0, "1 x") },
			func(c *court) { g := begin(c); g.at(0, "1 x"); g.at(0, "2 x"); g.at(1, "0 x") }},
		{"the offset is ahead", "P1", func(c *court) { g := begin(c); g.at(0, "3 x") }, nil},
		{"who stays gives away", "P1",
			func(c *court) {
				g := rest(c, time.Minute)
				gone(g, "b")
				g.leave(g.names.Partition(0), lease.EndReleased)
				g.take(g.names.Partition(0), "c")
				g.leave(g.names.Partition(1), lease.EndExpired)
				g.take(g.names.Partition(1), "a")
			},
			func(c *court) {
				g := rest(c, time.Minute)
				gone(g, "b")
				g.leave(g.names.Partition(1), lease.EndExpired)
				g.take(g.names.Partition(1), "c")
				if g.Thinned() != 1 {
					t.Errorf("judged %d times", g.Thinned())
				}
			}},
	})
	c := newCourt(t) // what was decided before the rest
	g := rest(c, time.Second)
	gone(g, "b")
	g.leave(g.names.Partition(0), lease.EndReleased)
	g.take(g.names.Partition(0), "c")
	g.leave(g.names.Partition(1), lease.EndExpired)
	g.take(g.names.Partition(1), "a")
	if len(c.found) > 0 {
		t.Error(c.texts)
	}
	c = newCourt(t) // what was lost, and released then
	g = rest(c, time.Minute)
	gone(g, "b")
	c.Loses(lease.Ref{Resource: lease.Resource(g.names.Partition(0)), Token: token(4)})
	g.leave(g.names.Partition(0), lease.EndReleased)
	g.take(g.names.Partition(0), "c")
	g.leave(g.names.Partition(1), lease.EndExpired)
	g.take(g.names.Partition(1), "a")
	if len(c.found) > 0 {
		t.Error(c.texts)
	}
	c = newCourt(t)
	g = rest(c, time.Minute)
	if ok, how := g.AtRest("queue", []string{"c", "b", "a"}); !ok {
		t.Error(how)
	}
	if ok, _ := g.AtRest("queue", []string{"a", "b"}); ok || g.Owner("queue", 1) != "b" {
		t.Error("a member too many is not seen")
	}
	gone(g, "b")
	if ok, _ := g.AtRest("queue", []string{"a", "c"}); ok {
		t.Error("a partition of nobody is not seen")
	}
}
