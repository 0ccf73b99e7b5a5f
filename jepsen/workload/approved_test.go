//go:build linux

package workload

import (
	"testing"

	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// papers is a script of approvals.
type papers struct{ *tape }

func (p papers) propose(id string, number, version uint64) {
	what := asked{ID: id, Number: number, Version: version}
	p.call(Approvals, opPropose, asked{Number: number, Version: version}, record.OK, what)
}

func (p papers) sign(id, who string, outcome record.Outcome) {
	p.call(Approvals, opApprove, asked{ID: id, Person: who}, outcome, nil)
}

func (p papers) do(op, id, who string, outcome record.Outcome) {
	p.call(Approvals, op, asked{ID: id, Person: who}, outcome, nil)
}

func (p papers) group(version, number uint64) {
	p.w.Event(Approvals, "clerk", opGroup, grouped{State: "steady", Version: version, Number: number})
}

// agreed is a change that two people have agreed to.
func (p papers) agreed(id string, number, version uint64) {
	p.propose(id, number, version)
	p.sign(id, "ann", record.OK)
	p.sign(id, "bob", record.OK)
	p.do(opExecuteOperation, id, "", record.OK)
	p.do(opExecuteOperation, id, "", record.OK)
	p.group(version+1, number)
}

func TestApprovals(t *testing.T) {
	for name, row := range map[string]struct {
		do       func(papers)
		want     verdict.Verdict
		evidence string
	}{
		"sound": {func(p papers) { p.agreed("one", 1, 1); p.agreed("two", 2, 2) }, verdict.Valid, ""},
		"what may have been": {func(p papers) {
			p.propose("one", 1, 1)
			p.sign("one", "ann", record.Unknown)
			p.sign("one", "bob", record.OK)
			p.do(opExecuteOperation, "one", "", record.Unknown)
			p.group(2, 1)
		}, verdict.Valid, ""},
		"one person": {func(p papers) {
			p.propose("one", 1, 1)
			p.sign("one", "ann", record.OK)
			p.sign("one", "ann", record.OK)
			p.do(opExecuteOperation, "one", "", record.OK)
		}, verdict.Invalid, "1 people can have agreed"},
		"a signature that was refused": {func(p papers) {
			p.propose("one", 1, 1)
			p.sign("one", "ann", record.OK)
			p.sign("one", "bob", record.Fail)
			p.do(opExecuteOperation, "one", "", record.OK)
		}, verdict.Invalid, "1 people can have agreed"},
		"a signature that was taken back": {func(p papers) {
			p.propose("one", 1, 1)
			p.sign("one", "ann", record.OK)
			p.sign("one", "bob", record.OK)
			p.do(opWithdraw, "one", "bob", record.OK)
			p.do(opExecuteOperation, "one", "", record.OK)
		}, verdict.Invalid, "1 people can have agreed"},
		"a signature that came later": {func(p papers) {
			p.propose("one", 1, 1)
			p.sign("one", "ann", record.OK)
			p.do(opExecuteOperation, "one", "", record.OK)
			p.sign("one", "bob", record.OK)
		}, verdict.Invalid, "1 people can have agreed"},
		"a replay": {func(p papers) {
			p.propose("one", 1, 1)
			p.call(Approvals, opApprove, asked{ID: "one", Person: "ann", Of: ofAnother}, record.OK, nil)
		}, verdict.Invalid, "over something else"},
		"a conflict": {func(p papers) { p.agreed("one", 1, 1); p.agreed("two", 2, 1) }, verdict.Invalid, "both made for version 1"},
		"an effect of what was refused": {func(p papers) {
			p.propose("one", 1, 1)
			p.sign("one", "ann", record.OK)
			p.sign("one", "bob", record.OK)
			p.do(opExecuteOperation, "one", "", record.Fail)
			p.group(2, 1)
		}, verdict.Invalid, "was refused or never asked for"},
		"an effect without people": {func(p papers) {
			p.propose("one", 1, 1)
			p.do(opExecuteOperation, "one", "", record.Unknown)
			p.group(2, 1)
		}, verdict.Invalid, "0 people can have agreed"},
		"an effect of nothing":           {func(p papers) { p.group(2, 7) }, verdict.Invalid, "nobody has proposed"},
		"a version that changes":         {func(p papers) { p.agreed("one", 1, 1); p.group(2, 0) }, verdict.Invalid, "and had 1"},
		"an operation that nobody knows": {func(p papers) { p.sign("one", "ann", record.OK) }, verdict.Unknown, "nobody has proposed it"},
	} {
		t.Run(name, func(t *testing.T) {
			p := papers{newTape(t)}
			row.do(p)
			expect(t, checkApprovals(p.read(true)), row.want, row.evidence)
		})
	}
}
