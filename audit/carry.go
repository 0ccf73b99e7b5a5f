package audit

import (
	"cmp"
	"maps"
	"slices"

	"github.com/writ-io/writ/region/approval"
)

// Carry gathers, of the records before some point of a chain, those that later ones refer to: the set of approvers, what is
// proposed and not done yet with its signatures, the tenures and grants in force with what approved them, the specs of the
// groups, and the rules for guards. Of the sets of approvers it keeps the present one and those that a signature which it keeps was judged by. Records
// are handed in in order.
type Carry struct {
	kept   map[string]carried // rules, by prefix
	groups map[string]carried // their specs
	grants map[string]carried // in force, by resource
	leases int                // of grants, those that are no tenures
	ops    map[string]*carriedOperation
	last   map[string]string // the promotion executed last, by group
	set    *carried          // the approvers in force
	change string            // an executed operation that is about to change them, or a group
}

type carried struct {
	sequence  uint64
	stored    []byte
	promotion string // what a tenure was granted by
	lease     bool   // it is a grant, not a tenure
}

// carriedOperation is one that has not ended, or that approved a tenure.
type carriedOperation struct {
	parts    map[string]carried // by approver; the document and the execution by names that nobody has
	sets     map[uint64]carried // of approvers, which its parts were judged by
	kind     string
	group    string
	executed bool
}

// Names of parts which no approver can have.
const (
	partDocument = "\x00document"
	partExecuted = "\x00executed"
)

const (
	// maxCarriedGrants bounds the grants that are kept: where there are more, leases end soon enough.
	maxCarriedGrants = 1000
	// maxCarriedGroups bounds the specs that are kept. Who verifies says what of the other groups cannot be checked.
	maxCarriedGroups = 1000
)

// Add takes the next record in.
func (c *Carry) Add(r Record, stored []byte) {
	if c.kept == nil {
		c.kept, c.groups, c.grants = map[string]carried{}, map[string]carried{}, map[string]carried{}
		c.ops, c.last = map[string]*carriedOperation{}, map[string]string{}
	}
	this := carried{sequence: r.Sequence, stored: stored}
	switch r.Action {
	case ActionApproversChange:
		c.set = &this
		c.changed("")
	case ActionPropose:
		c.ops[r.Target] = &carriedOperation{
			parts: map[string]carried{}, sets: map[uint64]carried{}, kind: r.Detail[detailKind], group: r.Detail[detailGroup],
		}
		c.keep(r.Target, partDocument, this)
	case ActionApprove:
		c.keep(r.Target, r.Detail[detailApprover], this)
	case ActionWithdraw:
		if op := c.ops[r.Target]; op != nil {
			delete(op.parts, r.Detail[detailApprover])
		}
	case ActionExecute:
		c.execute(r, this)
	case ActionGrant, ActionTenureGrant:
		this.promotion, this.lease = r.Detail[detailPromotion], r.Action == ActionGrant
		c.grant(r, this)
	case ActionTenureFence, ActionTenureEnd, ActionEnd:
		c.end(r.Target)
	case ActionRaiseEpoch:
		for _, name := range slices.Collect(maps.Keys(c.grants)) {
			c.end(name)
		}
	case ActionGuardRule:
		c.kept[r.Target] = this
	case ActionGroupApply:
		c.changed("")
		if _, known := c.groups[r.Target]; known || len(c.groups) < maxCarriedGroups {
			c.groups[r.Target] = this
		}
	case ActionGroupRemove:
		c.changed("")
	case ActionGroupRemoved:
		delete(c.groups, r.Target)
	default:
		if op := c.ops[r.Target]; op != nil && !op.executed && ends(r.Action) {
			delete(c.ops, r.Target)
		}
	}
}

func (c *Carry) keep(id, part string, this carried) {
	op := c.ops[id]
	if op == nil {
		return // it was proposed before everything that is known
	}
	op.parts[part] = this
	if c.set != nil {
		op.sets[c.set.sequence] = *c.set
	}
}

// changed forgets an executed change, of which the record has come; next is another one, or empty.
func (c *Carry) changed(next string) {
	delete(c.ops, c.change)
	c.change = next
}

// execute keeps the promotion that was executed last: the tenure that it grants comes later. So does a change of approvers, or
// of a group.
func (c *Carry) execute(r Record, this carried) {
	op := c.ops[r.Target]
	if op == nil {
		return
	}
	c.keep(r.Target, partExecuted, this)
	op.executed = true
	switch op.kind {
	case approval.KindApproversChange, approval.KindGroupChange:
		c.changed(r.Target)
	case approval.KindPromotion:
		before := c.last[op.group]
		c.last[op.group] = r.Target
		c.forget(before)
	default:
		delete(c.ops, r.Target)
	}
}

func (c *Carry) grant(r Record, this carried) {
	c.end(r.Target)
	if this.lease {
		if c.leases >= maxCarriedGrants {
			return
		}
		c.leases++
	}
	c.grants[r.Target] = this
}

// end forgets a grant, and what approved it.
func (c *Carry) end(name string) {
	g, known := c.grants[name]
	if !known {
		return
	}
	delete(c.grants, name)
	if g.lease {
		c.leases--
	}
	c.forget(g.promotion)
}

// forget drops a promotion that nothing refers to any more.
func (c *Carry) forget(id string) {
	op := c.ops[id]
	if op == nil || !op.executed || c.last[op.group] == id {
		return
	}
	for _, g := range c.grants {
		if g.promotion == id {
			return
		}
	}
	delete(c.ops, id)
}

// Records answers what is carried, as it is stored, by sequence.
func (c *Carry) Records() [][]byte {
	all := map[uint64][]byte{}
	if c.set != nil {
		all[c.set.sequence] = c.set.stored
	}
	for _, some := range []map[string]carried{c.kept, c.groups, c.grants} {
		for _, r := range some {
			all[r.sequence] = r.stored
		}
	}
	for _, op := range c.ops {
		for _, r := range op.parts {
			all[r.sequence] = r.stored
		}
		for _, r := range op.sets {
			all[r.sequence] = r.stored
		}
	}
	stored := make([][]byte, 0, len(all))
	for _, sequence := range slices.SortedFunc(maps.Keys(all), cmp.Compare[uint64]) {
		stored = append(stored, all[sequence])
	}
	return stored
}
