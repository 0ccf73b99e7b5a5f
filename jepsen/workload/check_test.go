//go:build linux

package workload

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// tape writes a record by hand.
type tape struct {
	t   *testing.T
	dir string
	w   *record.Writer
}

func newTape(t *testing.T) *tape {
	t.Helper()
	dir := t.TempDir()
	w, err := record.Create(dir, record.Run{Name: "run", Workloads: Kinds.Names(Kinds.All), Problems: []record.Problem{}})
	if err != nil {
		t.Fatal(err)
	}
	w.Round([]string{"kill-node"})
	return &tape{t, dir, w}
}

// call makes a call that is answered at once.
func (p *tape) call(workload, op string, value any, outcome record.Outcome, result any) {
	p.w.Call(workload, "client", op, value)(outcome, result)
}

// read returns what was written; ended tells whether the run was.
func (p *tape) read(ended bool) *record.History {
	p.t.Helper()
	if ended {
		p.w.Healed()
		if err := p.w.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
	h, err := record.Read(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

func expect(t *testing.T, judgements []verdict.Judgement, want verdict.Verdict, evidence string) {
	t.Helper()
	if got := verdict.Of(judgements); got != want {
		t.Errorf("%v, want %v: %+v", got, want, judgements)
	}
	for _, j := range judgements {
		if evidence != "" && strings.Contains(strings.Join(j.Evidence, "\n")+j.Reason, evidence) {
			return
		}
	}
	if evidence != "" {
		t.Errorf("%q is in no evidence of %+v", evidence, judgements)
	}
}

// counts is a script of the counter: grants with the number that came, and stores.
type counts struct{ *tape }

func (c counts) grant(token uint64, number int) {
	c.call("counter", "acquire", counted{Resource: "r"}, record.OK, counted{Resource: "r", Token: token, Number: number})
}

func (c counts) store(token uint64, number int, outcome record.Outcome) {
	what := counted{Resource: "r", Token: token, Number: number}
	c.call("counter", "checkpoint", what, outcome, what)
}

func TestCounter(t *testing.T) {
	for name, row := range map[string]struct {
		do       func(counts)
		want     verdict.Verdict
		evidence string
	}{
		"sound":                              {func(c counts) { c.grant(1, 0); c.store(1, 1, record.OK); c.grant(2, 1); c.store(2, 2, record.OK) }, verdict.Valid, ""},
		"an unknown store that was made":     {func(c counts) { c.grant(1, 0); c.store(1, 1, record.Unknown); c.grant(2, 1) }, verdict.Valid, ""},
		"an unknown store that was not made": {func(c counts) { c.grant(1, 0); c.store(1, 1, record.Unknown); c.grant(2, 0) }, verdict.Valid, ""},
		"an acknowledged store that is lost": {func(c counts) { c.grant(1, 0); c.store(1, 1, record.OK); c.grant(2, 0) }, verdict.Invalid, "0 came with the grant of 2"},
		"a refused store that was made":      {func(c counts) { c.grant(1, 0); c.store(1, 1, record.Fail); c.grant(2, 1) }, verdict.Invalid, "1 came with the grant of 2"},
		"a store that comes back later": {func(c counts) {
			c.grant(1, 0)
			c.store(1, 1, record.Unknown)
			c.grant(2, 0)
			c.store(2, 5, record.OK)
			c.grant(3, 1)
		}, verdict.Invalid, "1 came with the grant of 3"},
		"a token granted twice":  {func(c counts) { c.grant(1, 0); c.grant(1, 0) }, verdict.Invalid, "granted twice"},
		"a token that goes back": {func(c counts) { c.grant(2, 0); c.grant(1, 0) }, verdict.Invalid, "only asked for"},
		"a store under no grant": {func(c counts) { c.store(9, 1, record.OK) }, verdict.Unknown, "nobody was granted"},
	} {
		t.Run(name, func(t *testing.T) {
			c := counts{newTape(t)}
			row.do(c)
			expect(t, checkCounter(c.read(true)), row.want, row.evidence)
		})
	}
}

// Grants that overlap may have any order.
func TestCounterOfOverlappingGrants(t *testing.T) {
	c := counts{newTape(t)}
	first := c.w.Call("counter", "one", "acquire", counted{Resource: "r"})
	c.grant(1, 0)
	first(record.OK, counted{Resource: "r", Token: 2})
	expect(t, checkCounter(c.read(true)), verdict.Valid, "")
}

func TestRegister(t *testing.T) {
	acquired := func(p *tape, instance string, token uint64) {
		op := history.Op{Kind: history.Acquire, Resource: "r", Instance: instance, TTL: time.Minute}
		p.call("register", "acquire", op, record.OK, answer{history.OK, history.Sight{Token: token, Holder: instance}, ""})
	}
	t.Run("sound", func(t *testing.T) {
		p := newTape(t)
		acquired(p, "a", 1)
		expect(t, checkRegister(p.read(true)), verdict.Valid, "")
	})
	t.Run("two holders", func(t *testing.T) {
		p := newTape(t)
		acquired(p, "a", 1)
		acquired(p, "b", 2)
		judgements := checkRegister(p.read(true))
		expect(t, judgements, verdict.Invalid, "r is not linearizable")
		if !slices.Equal(judgements[0].Rounds, []int{1}) {
			t.Errorf("of rounds %v", judgements[0].Rounds)
		}
	})
	t.Run("a call without an answer may have had its effect", func(t *testing.T) {
		p := newTape(t)
		p.w.Call("register", "client", "acquire", history.Op{Kind: history.Acquire, Resource: "r", Instance: "a", TTL: time.Minute})
		held := answer{history.Held, history.Sight{Token: 7, Holder: "a"}, ""}
		p.call("register", "acquire", history.Op{Kind: history.Acquire, Resource: "r", Instance: "b", TTL: time.Minute}, record.Fail, held)
		expect(t, checkRegister(p.read(false)), verdict.Valid, "")
	})
	t.Run("an answer that no server gives", func(t *testing.T) {
		p := newTape(t)
		p.call("register", "get", history.Op{Kind: history.Get, Resource: "r"}, record.Unknown, answer{Outcome: history.Absurd, Detail: "INTERNAL"})
		expect(t, checkRegister(p.read(true)), verdict.Invalid, "INTERNAL")
	})
	t.Run("a record that is no record", func(t *testing.T) {
		p := newTape(t)
		p.call("register", "get", map[string]int{"Kin": 1}, record.OK, nil)
		expect(t, checkRegister(p.read(true)), verdict.Unknown, "cannot be read")
	})
}

func TestAppends(t *testing.T) {
	const old, young = fence.Token(1<<48 | 1), fence.Token(1<<48 | 2)
	write := func(p *tape, page appends.Page, element string, token fence.Token) appends.Page {
		done := p.w.Call(Appends, "writer", opAppend, attempt{Element: element, Token: token})
		page = page.Append(element)
		p.w.Event(Appends, "store", opApplied, appends.Applied{Page: page, Token: token})
		done(record.OK, attempt{})
		return page
	}
	late := func(p *tape) {
		page := write(p, appends.Page{}, "a", old)
		write(p, page, "b", young)
		write(p, page, "c", old)
	}
	for name, row := range map[string]struct {
		do    func(p *tape)
		ended bool
		want  verdict.Verdict
	}{
		"sound": {func(p *tape) { write(p, write(p, appends.Page{}, "a", old), "b", young) }, true, verdict.Valid},
		"late":  {late, true, verdict.Invalid},
		"late, and the store stood still": {func(p *tape) {
			late(p)
			p.w.Event(Appends, "store", opStall, time.Minute)
		}, true, verdict.Unknown},
		"late, and a guard stood still": {func(p *tape) {
			late(p)
			Paused(p.w, time.Minute)
		}, true, verdict.Unknown},
		"late, and a guard stood still for a moment": {func(p *tape) {
			late(p)
			Paused(p.w, lab.Slack/2)
		}, true, verdict.Invalid},
		"refused but applied, and the store stood still": {func(p *tape) {
			p.w.Call(Appends, "writer", opAppend, attempt{Element: "a", Token: old})(record.Fail, attempt{})
			p.w.Event(Appends, "store", opApplied, appends.Applied{Page: appends.Page{}.Append("a"), Token: old})
			p.w.Event(Appends, "store", opStall, time.Minute)
		}, true, verdict.Invalid},
		"acknowledged and never applied": {func(p *tape) {
			p.call(Appends, opAppend, attempt{Element: "a", Token: old}, record.OK, attempt{})
		}, true, verdict.Invalid},
		"acknowledged, and the record ends": {func(p *tape) {
			p.call(Appends, opAppend, attempt{Element: "a", Token: old}, record.OK, attempt{})
		}, false, verdict.Valid},
		"applied, and nobody tried": {func(p *tape) {
			p.w.Event(Appends, "store", opApplied, appends.Applied{Page: appends.Page{}.Append("x"), Token: old})
		}, true, verdict.Invalid},
		"not understood": {func(p *tape) { p.w.Event(Appends, "store", opApplied, []int{1}) }, true, verdict.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTape(t)
			row.do(p)
			expect(t, appending.Check(p.read(row.ended)), row.want, "")
		})
	}
}

// sights is a script of watchers.
type sights struct{ *tape }

func (s sights) see(who string, all ...seen) {
	for _, one := range all {
		s.w.Event("watch", who, opSaw, one)
	}
}

func changed(token uint64, revision int64) seen {
	return seen{Kind: kindChanged, Resource: "r", Token: token, Held: true, Revision: revision}
}

func TestWatch(t *testing.T) {
	synced, resync := seen{Kind: kindSynced}, seen{Kind: kindResync}
	over := seen{Kind: kindChanged, Resource: "r", Token: 7, Revision: 50}
	end := seen{Kind: kindChanged, Resource: endMark(1), Token: 99, Held: true, Revision: 99}
	one, two, three := changed(1, 10), changed(2, 20), changed(3, 30)
	acknowledge := func(s sights, token uint64) {
		op := history.Op{Kind: history.Acquire, Resource: "r", Instance: "a"}
		s.call("watch", "acquire", op, record.OK, answer{Outcome: history.OK, Saw: history.Sight{Token: token}})
	}
	for name, row := range map[string]struct {
		do       func(sights)
		want     verdict.Verdict
		evidence string
	}{
		"sound":                {func(s sights) { s.see("a", synced, one, two, end); s.see("b", synced, one, two, end) }, verdict.Valid, ""},
		"a later beginning":    {func(s sights) { s.see("a", synced, one, two, end); s.see("b", synced, two, end) }, verdict.Valid, ""},
		"a gap":                {func(s sights) { s.see("a", synced, one, two, three, end); s.see("b", synced, one, three, end) }, verdict.Invalid, "differ"},
		"twice":                {func(s sights) { s.see("a", synced, one, one, end) }, verdict.Invalid, "twice"},
		"back":                 {func(s sights) { s.see("a", synced, two, one, end) }, verdict.Invalid, "after revision 20"},
		"an old token":         {func(s sights) { s.see("a", synced, changed(2, 10), changed(1, 20), end) }, verdict.Invalid, "after token 2"},
		"another's change":     {func(s sights) { s.see("a", synced, one, two, end); s.see("b", synced, one, changed(4, 20), end) }, verdict.Invalid, "differ"},
		"not whole":            {func(s sights) { s.see("a", synced); acknowledge(s, 7); s.see("a", one, end) }, verdict.Invalid, "did not see r granted under 7"},
		"over at once":         {func(s sights) { s.see("a", synced); acknowledge(s, 7); s.see("a", one, over, end) }, verdict.Valid, ""},
		"before it came":       {func(s sights) { acknowledge(s, 7); s.see("a", synced, one, end) }, verdict.Valid, ""},
		"a gap after a resync": {func(s sights) { s.see("a", synced, one, two, end); s.see("b", synced, one, resync, end) }, verdict.Unknown, "1 times that they had missed something"},
		"the end not seen":     {func(s sights) { s.see("a", synced, one, end); s.see("b", synced, one) }, verdict.Unknown, "1 of 2"},
		"a kind that is none":  {func(s sights) { s.see("a", seen{Kind: "x"}) }, verdict.Unknown, `field "kind"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := sights{newTape(t)}
			row.do(s)
			expect(t, checkWatch(s.read(true)), row.want, row.evidence)
		})
	}
}

// What took too long to decide is not known to be wrong, nor right.
func TestUndecidedRegister(t *testing.T) {
	for err, want := range map[error]verdict.Verdict{
		nil: verdict.Valid, history.ErrUndecided: verdict.Unknown,
		&history.Violation{Resource: "r"}: verdict.Invalid, errors.New("an answer that no server may give"): verdict.Invalid,
	} {
		j := judgement("register", "linearizable", "all is well", 3)
		if decide(&j, 3, err); j.Verdict != want || (err != nil) == (j.Reason == "all is well") || !slices.Equal(j.Rounds, []int{3}) {
			t.Errorf("%v: %+v", err, j)
		}
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	c := counts{newTape(t)}
	for i := range uint64(10 * shown) {
		c.grant(i+1, int(i)+100)
	}
	for _, j := range checkCounter(c.read(true)) {
		if len(j.Evidence) > shown {
			t.Errorf("%d lines of evidence", len(j.Evidence))
		}
	}
}
