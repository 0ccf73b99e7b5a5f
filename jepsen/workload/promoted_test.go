//go:build linux

package workload

import (
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// promotionTape is a script of promotions.
type promotionTape struct{ *tape }

var allProved = map[string]string{"guard1": "acked", "guard2": "lapsed", "guard3": "cut"}

// nth is a token of epoch 1; 0: none.
func nth(n int) fence.Token {
	if n == 0 {
		return 0
	}
	return 1<<48 + fence.Token(n)
}

func (p promotionTape) state(id, state string, expected, token int) {
	s := promoted{ID: id, State: state, Expected: nth(expected), Token: nth(token), Proofs: allProved}
	p.w.Event(Promotion, "operator", opState, s)
}

func (p promotionTape) group(primary string, token int) {
	p.w.Event(Promotion, "operator", opGroup, grouped{State: "steady", Primary: primary, Token: nth(token)})
}

func (p promotionTape) hook(id, step string) {
	p.w.Event(Promotion, "agent", opHook, ran{id, step, "promote", "us"})
}

// write is applied before it is acknowledged, with what was written before it.
func (p promotionTape) write(client string, token int, elements ...string) {
	element := elements[len(elements)-1]
	done := p.w.Call(promotionWrites, client, opAppend, attempt{Element: element, Token: nth(token)})
	p.w.Event(promotionWrites, "store", opApplied, appends.Applied{Page: appends.Page{Elements: elements}, Token: nth(token), Presented: nth(token)})
	done(record.OK, attempt{})
}

// sound goes to us and back.
func (p promotionTape) sound() {
	p.group("eu", 1)
	p.write("paireu.1", 1, "a")
	p.state("one", "fencing", 1, 0)
	p.state("one", "granted", 1, 2)
	p.w.Event(Promotion, "o", opOpen, []promoted{{ID: "one", State: "granted"}, {ID: "two", State: "approving"}})
	p.hook("one", "1")
	p.state("one", "done", 1, 2)
	p.group("us", 2)
	p.write("pairus.1", 2, "a", "b")
	p.state("two", "cancelled", 2, 0)
	p.state("three", "fencing", 2, 3)
	p.state("three", "done", 2, 3)
	p.hook("three", "1")
	p.group("eu", 3)
	p.write("paireu.1", 3, "a", "b", "c")
}

func TestPromotion(t *testing.T) {
	for name, row := range map[string]struct {
		do       func(promotionTape)
		evidence string
	}{
		"sound":                  {func(promotionTape) {}, ""},
		"a token that goes back": {func(p promotionTape) { p.group("us", 2) }, "after 1.3"},
		"two regions, one token": {func(p promotionTape) { p.group("us", 3) }, "both had the tenure"},
		"no newer token":         {func(p promotionTape) { p.state("four", "done", 3, 3) }, "four: token"},
		"one token twice":        {func(p promotionTape) { p.state("four", "done", 2, 3) }, "both gave token"},
		"a token taken back":     {func(p promotionTape) { p.state("four", "fencing", 3, 5); p.state("four", "done", 3, 4) }, "four: token"},
		"void":                   {func(p promotionTape) { p.state("four", "void", 3, 0) }, "void"},
		"two at a time":          {func(p promotionTape) { p.state("one", "degraded", 1, 2); p.state("four", "done", 3, 4) }, "before one was over"},
		"two open": {func(p promotionTape) {
			p.w.Event(Promotion, "o", opOpen, []promoted{{ID: "four", State: "fencing"}, {ID: "five", State: "approving"}, {ID: "six", State: "granted"}})
		}, "at a time: four fencing, six granted"},
		"no proof": {func(p promotionTape) {
			p.w.Event(Promotion, "o", opState, promoted{ID: "four", State: "done", Token: nth(4)})
		}, "how guard1 was proved"},
		"a hook that ran twice": {func(p promotionTape) { p.hook("three", "1") }, "ran twice"},
		"a write of the other":  {func(p promotionTape) { p.write("pairus.1", 3, "a", "b", "c", "d") }, "was acknowledged to pairus.1"},
		"a late write":          {func(p promotionTape) { p.write("pairus.1", 2, "a", "b", "c", "d") }, "under"},
		"a write that is lost":  {func(p promotionTape) { p.write("paireu.1", 3, "a", "b", "d") }, "c"},
		"one that does not end": {func(p promotionTape) { p.state("four", "draining", 3, 0) }, "four is draining in the end"},
		"one that did not in time": {func(p promotionTape) {
			p.call(Promotion, opPromote, promoted{}, record.Unknown, promoted{ID: "three", State: "fencing"})
		}, "after the faults"},
	} {
		t.Run(name, func(t *testing.T) {
			p := promotionTape{newTape(t)}
			p.sound()
			row.do(p)
			want := verdict.Invalid
			if row.evidence == "" {
				want = verdict.Valid
			}
			expect(t, checkPromotion(p.read(true)), want, row.evidence)
		})
	}
}

// What is not understood is not judged, and what is not whole is not valid.
func TestPromotionOfABadRecord(t *testing.T) {
	p := promotionTape{newTape(t)}
	p.sound()
	expect(t, checkPromotion(p.read(false)), verdict.Unknown, "")

	p = promotionTape{newTape(t)}
	p.w.Event(Promotion, "operator", "else", nil)
	expect(t, checkPromotion(p.read(true)), verdict.Unknown, "cannot be read")
}
