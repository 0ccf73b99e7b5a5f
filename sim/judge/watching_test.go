package judge_test

import (
	"testing"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/judge"
)

// changed and removed are what a watcher is told.
func changed(name lease.Resource, revision int64) quorum.WatchEvent {
	return quorum.WatchEvent{Kind: quorum.WatchChanged, Lease: lease.Info{Resource: name, Revision: revision}}
}

func removed(name lease.Resource, revision int64) quorum.WatchEvent {
	return quorum.WatchEvent{Kind: quorum.WatchRemoved, Lease: lease.Info{Resource: name, Revision: revision}}
}

func TestWatchersAreToldEverythingInOrder(t *testing.T) {
	// told tells a watcher of everything under r, from its beginning, of a history with: r1 at revision 1, r2 and x at 2,
	// nothing at 3, r1 at 4, r2 removed at 5.
	told := func(synced int64, events ...quorum.WatchEvent) func(c *court) {
		return func(c *court) {
			w := c.Watch("w1", "r")
			record := func(name lease.Resource) quorum.Entry {
				return c.entry(lease.Record{Resource: name, End: lease.EndExpired})
			}
			c.commit(record("r1"))
			c.commit(record("r2"), record("x"))
			c.claim()
			c.commit(record("r1"))
			c.commit(quorum.Entry{Key: quorum.LeaseKey("r2")})
			w.Synced(synced)
			for _, ev := range events {
				w.Told(ev)
			}
		}
	}
	all := []quorum.WatchEvent{changed("r1", 1), changed("r2", 2), changed("r1", 4), removed("r2", 5)}
	try(t, []twin{
		{"a gap", "S10", told(0, all[0], all[2]), told(0, all...)},
		{"a gap at the start", "S10", told(0, all[1]), told(1, all[1:]...)},
		{"a duplicate", "S10", told(0, all[0], all[0]), told(0, all[0])},
		{"what the whole state had already", "S10", told(2, all[1]), told(2, all[2:]...)},
		{"another order", "S10", told(0, all[1], all[0]), told(0, all[0], all[1])},
		{"removed, where it was changed", "S10", told(0, removed("r1", 1)), told(0, all[0])},
		{"changed, where it was removed", "S10", told(4, changed("r2", 5)), told(4, all[3])},
		{"a change that was not committed", "S10", told(5, changed("r1", 6)), told(5)},
		{"another resource", "S10", told(1, changed("x", 2)), told(1, all[1])},
		{"another revision", "S10", told(0, changed("r1", 2)), told(0, all[0])},
		{
			"one report is enough", "S10", told(0, all[2], all[3]), nil,
		},
	})
}

func TestWatchersAreToldWhatIs(t *testing.T) {
	told := func(change func(info *lease.Info)) func(c *court) {
		return func(c *court) {
			w := c.Watch("w1", "")
			w.Synced(0)
			c.grant(token(5), "a/1")
			ev := changed(jobs, 1)
			ev.Lease.Token, ev.Lease.State = token(5), lease.Held
			change(&ev.Lease)
			w.Told(ev)
			c.end(lease.EndExpired)
			ev = changed(jobs, 2)
			ev.Lease.Token, ev.Lease.State = token(5), lease.Free
			w.Told(ev)
		}
	}
	same := told(func(*lease.Info) {})
	try(t, []twin{
		{"another token", "S10", told(func(info *lease.Info) { info.Token-- }), same},
		{"free, where it is held", "S10", told(func(info *lease.Info) { info.State = lease.Free }), same},
		{
			"in no state", "S10", told(func(info *lease.Info) { info.State = 0 }),
			told(func(info *lease.Info) { info.State = lease.Ending }),
		},
	})
}

func TestWatchersOfTwoLineages(t *testing.T) {
	history := func(then func(c *court, w *judge.Watch)) func(c *court) {
		return func(c *court) {
			w := c.Watch("w1", "")
			c.write()
			w.Synced(1)
			c.write()
			c.write()
			if w.Behind() != 2 {
				c.t.Errorf("behind by %d, want 2", w.Behind())
			}
			c.rebuild(c.rec)
			c.write()
			c.write()
			if w.Behind() != 0 {
				c.t.Errorf("behind by %d of a lineage that it was not told of", w.Behind())
			}
			w.Told(changed(jobs, 3)) // of a history that has ended
			w.Synced(1)
			if w.Behind() != 1 {
				c.t.Errorf("behind by %d, want 1", w.Behind())
			}
			then(c, w)
		}
	}
	try(t, []twin{
		{
			"resynced", "S10",
			history(func(_ *court, w *judge.Watch) { w.Told(changed(jobs, 3)) }),
			history(func(c *court, w *judge.Watch) {
				w.Told(changed(jobs, 2))
				if w.Behind() != 0 {
					c.t.Errorf("behind by %d, want 0", w.Behind())
				}
			}),
		},
		{
			"resynced in one lineage", "S10",
			history(func(_ *court, w *judge.Watch) { w.Synced(2); w.Told(changed(jobs, 2)) }),
			history(func(c *court, w *judge.Watch) { w.Synced(2); c.write(); w.Told(changed(jobs, 3)) }),
		},
		{
			"before it has the whole state", "S10",
			history(func(_ *court, w *judge.Watch) { w.Told(changed(jobs, 3)) }),
			func(c *court) { w := c.Watch("w1", ""); c.write(); w.Told(changed("nonsense", 9)) },
		},
	})
}

// records are audit records, one behind the other.
func (c *court) records(n int) (entries []quorum.Entry, heads []audit.Head) {
	heads = []audit.Head{c.head}
	for range n {
		stored, next, err := audit.Append(c.head, audit.Record{Actor: "a", Action: "grant", Target: "jobs", Detail: map[string]string{"lineage": string(rune('0' + c.lineage))}})
		if err != nil {
			c.t.Fatal(err)
		}
		entries = append(entries, quorum.Entry{Key: quorum.AuditKey(next.Sequence), Value: stored})
		c.head = next
		heads = append(heads, next)
	}
	return entries, heads
}

func TestAuditChain(t *testing.T) {
	committed := func(change func(e []quorum.Entry) []quorum.Entry) func(c *court) {
		return func(c *court) {
			entries, _ := c.records(4)
			for _, e := range change(entries) {
				c.commit(e)
			}
		}
	}
	whole := committed(func(e []quorum.Entry) []quorum.Entry { return e })
	// goOn writes 4 records, and then one of a new lineage behind the n-th of them; then it does more.
	goOn := func(n int, then func(c *court, heads []audit.Head)) func(c *court) {
		return func(c *court) {
			entries, heads := c.records(4)
			c.commit(entries...)
			c.rebuild(c.rec)
			c.head = heads[n]
			next, _ := c.records(1)
			c.commit(next...)
			then(c, heads)
		}
	}
	add := func(c *court) { next, _ := c.records(1); c.commit(next...) }
	try(t, []twin{
		{"a gap", "M1", committed(func(e []quorum.Entry) []quorum.Entry { return []quorum.Entry{e[0], e[2]} }), whole},
		{"a gap at the start", "M1", committed(func(e []quorum.Entry) []quorum.Entry { return e[1:2] }), whole},
		{"a duplicate", "M1", committed(func(e []quorum.Entry) []quorum.Entry { return []quorum.Entry{e[0], e[0]} }), whole},
		{"another order", "M1", committed(func(e []quorum.Entry) []quorum.Entry { return []quorum.Entry{e[1], e[0]} }), whole},
		{"a removed record", "M1", committed(func(e []quorum.Entry) []quorum.Entry { return []quorum.Entry{{Key: e[0].Key}} }), whole},
		{
			"a broken link", "M1",
			func(c *court) {
				first, _ := c.records(1)
				c.commit(first...)
				c.head.Hash = []byte("another")
				add(c)
			},
			func(c *court) { add(c); add(c) },
		},
		{
			"under the key of another", "M1",
			committed(func(e []quorum.Entry) []quorum.Entry { return []quorum.Entry{{Key: e[1].Key, Value: e[0].Value}} }), whole,
		},
		{
			"under no number", "M1",
			committed(func(e []quorum.Entry) []quorum.Entry {
				return []quorum.Entry{{Key: quorum.Prefix + "audit/first", Value: e[0].Value}}
			}), whole,
		},
		{
			"a new lineage that goes on behind nothing", "M1",
			goOn(4, func(c *court, _ []audit.Head) { c.rebuild(c.rec); c.head.Sequence += 3; add(c) }),
			goOn(4, func(c *court, _ []audit.Head) { add(c) }),
		},
		{
			"a new lineage that goes back within", "M1",
			goOn(2, func(c *court, heads []audit.Head) { c.head = heads[3]; add(c) }),
			goOn(2, func(c *court, _ []audit.Head) { add(c) }),
		},
		{
			"a new lineage that begins the chain anew", "M1",
			goOn(0, func(c *court, _ []audit.Head) { c.head.Hash = nil; add(c) }),
			goOn(0, func(c *court, _ []audit.Head) { add(c) }),
		},
		{
			"a lineage that goes on where one before the last did", "M1",
			goOn(2, func(c *court, _ []audit.Head) {
				c.rebuild(c.rec)
				c.head = audit.Head{Sequence: 4, Hash: []byte("nobody")}
				add(c)
			}),
			goOn(2, func(c *court, heads []audit.Head) { c.rebuild(c.rec); c.head = heads[3]; add(c); add(c) }),
		},
	})
}
