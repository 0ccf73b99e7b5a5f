package judge_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/judge"
)

// court is a judge with what it is shown: the history of one resource, whose record it keeps as the quorum would.
type court struct {
	*judge.Judge
	t        *testing.T
	now      time.Duration
	lineage  int
	revision int64
	found    []string // invariants
	texts    []string

	rec  lease.Record
	head audit.Head // of the audit chain
}

const jobs lease.Resource = "jobs"

func newCourt(t *testing.T) *court {
	c := &court{t: t, now: time.Minute, rec: lease.Record{Resource: jobs}}
	c.Judge = judge.New(func() time.Duration { return c.now }, func(invariant, text string) {
		c.found, c.texts = append(c.found, invariant), append(c.texts, text)
	})
	return c
}

// twin is a history that breaks an invariant, and one like it that does not.
type twin struct {
	name     string
	breaks   string
	guilty   func(c *court)
	innocent func(c *court)
}

func try(t *testing.T, twins []twin) {
	t.Helper()
	for _, twin := range twins {
		t.Run(twin.name, func(t *testing.T) {
			c := newCourt(t)
			twin.guilty(c)
			if !slices.Equal(c.found, []string{twin.breaks}) {
				t.Errorf("the guilty history was reported as %q, want %s once:\n%s", c.found, twin.breaks, strings.Join(c.texts, "\n"))
			}
			if twin.innocent == nil {
				return
			}
			c = newCourt(t)
			twin.innocent(c)
			if len(c.found) > 0 {
				t.Errorf("the innocent history was reported as %q:\n%s", c.found, strings.Join(c.texts, "\n"))
			}
		})
	}
}

// token is the n-th one of the first epoch.
func token(n uint64) fence.Token { return epoch(1, n) }

func epoch(e fence.Epoch, n uint64) fence.Token {
	t, err := fence.NewToken(e, n)
	if err != nil {
		panic(err)
	}
	return t
}

// acquire is a request, given as "principal/id".
func acquire(by string) lease.Acquire {
	principal, id, _ := strings.Cut(by, "/")
	return lease.Acquire{Caller: lease.Caller{Principal: lease.Principal(principal)}, Resource: jobs, RequestID: id}
}

func (c *court) ref() lease.Ref { return lease.Ref{Resource: jobs, Token: c.rec.Token} }

// entry is how a record stands in the store.
func (c *court) entry(rec lease.Record) quorum.Entry {
	c.t.Helper()
	value, err := rec.AppendBinary(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return quorum.Entry{Key: quorum.LeaseKey(rec.Resource), Value: value}
}

func (c *court) commit(entries ...quorum.Entry) {
	c.revision++
	c.Committed(c.lineage, quorum.Change{Revision: c.revision, Entries: entries})
}

// write commits the record as it is now.
func (c *court) write() { c.t.Helper(); c.commit(c.entry(c.rec)) }

func (c *court) hold(t fence.Token, by string) {
	a := acquire(by)
	c.rec.Held, c.rec.Token, c.rec.Holder.Principal, c.rec.RequestID = true, t, a.Principal, a.RequestID
	c.rec.TTL, c.rec.End = 10*time.Second, lease.NotEnded
}

func (c *court) let(how lease.End) {
	c.remember(c.rec.Token, string(c.rec.Holder.Principal)+"/"+c.rec.RequestID, how)
	c.rec.Held, c.rec.End = false, how
}

// remember takes an outcome into the record; token 0: of a request that was cancelled before it was granted.
func (c *court) remember(t fence.Token, by string, how lease.End) {
	a := acquire(by)
	outcomes := append(slices.Clone(c.rec.Outcomes), lease.Outcome{Principal: a.Principal, Request: lease.DigestRequest(a.RequestID), Token: t, End: how})
	c.rec.Outcomes = outcomes[max(0, len(outcomes)-lease.MaxOutcomes):]
}

// grant commits a grant, end the end of the present one, and pass both at once.
func (c *court) grant(t fence.Token, by string) { c.t.Helper(); c.hold(t, by); c.write() }
func (c *court) end(how lease.End)              { c.t.Helper(); c.let(how); c.write() }
func (c *court) pass(how lease.End, t fence.Token, by string) {
	c.t.Helper()
	c.let(how)
	c.grant(t, by)
}

// forget commits that nothing of the resource is remembered.
func (c *court) forget() {
	c.rec = lease.Record{Resource: jobs}
	c.commit(quorum.Entry{Key: quorum.LeaseKey(jobs)})
}

// rebuild begins a lineage with the state of a snapshot.
func (c *court) rebuild(snapshot lease.Record) {
	c.lineage++
	c.revision = 0
	c.rec = snapshot
}

// claim commits that a term began.
func (c *court) claim() quorum.Term {
	c.commit(quorum.Entry{Key: quorum.KeyTerm, Value: []byte("n1")})
	return quorum.Term(c.revision)
}

func (c *court) believes(who string, t fence.Token, until time.Duration) {
	c.Believes(who, jobs, t, until)
}

// answers takes in that the answer to a command leaves its node, under a term, taken in at some instant.
func (c *court) answers(term quorum.Term, intake time.Duration, command lease.Command, reply lease.Reply) {
	c.Answered(judge.Answer{Node: "n1", Lineage: c.lineage, Term: term, Intake: intake, Command: command, Reply: reply})
}

func granted(t fence.Token) lease.Reply {
	return lease.Reply{Value: &lease.Grant{Resource: jobs, Token: t}}
}

func refused(reason lease.Reason) lease.Reply { return lease.Reply{Err: lease.Errorf(reason, "no")} }
