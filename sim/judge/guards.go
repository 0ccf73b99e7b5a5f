package judge

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// What guards let through is held to what they have let through before, to what has been granted, and to their disks.

// fenced is what is known of a resource that guards stand before.
type fenced struct {
	// granted is the highest token that was granted while a rule had the resource guarded: no guard admits less, but for those
	// that are loose.
	granted fence.Token
	// loose guards may go on under tokens from there on: nobody has promised that newer grants waited for them.
	loose map[string]fence.Token
	// admitted is the highest token that each floor store has let through.
	admitted map[string]fence.Token
	// undone: something stale has taken effect that nobody promised to stop.
	undone bool
}

// Admission is something that a guard lets through.
type Admission struct {
	// Guard is the name that it has enrolled under, Process its own, Store that of its floors.
	Guard, Process, Store string
	Resource              lease.Resource
	Token                 fence.Token
	// Durable is the floor on its disk. Seeded says that the disk holds the seed that the quorum gave this life of the guard.
	Durable fence.Token
	Seeded  bool
	// Older is a token below under which something is under way; 0: nothing is.
	Older fence.Token
}

// Loosen takes in that nobody waits for a guard where it may go on without contact: the quorum was put back to when it did
// not know of it, or not of the rule that it goes by.
func (j *Judge) Loosen(guard string, name lease.Resource) {
	j.resource(name).fenced.loosen(guard, j.resource(name).fenced.granted)
}

func (f *fenced) loosen(guard string, from fence.Token) {
	if f.loose == nil {
		f.loose = make(map[string]fence.Token)
	}
	if _, already := f.loose[guard]; !already {
		f.loose[guard] = from
	}
}

// Tighten takes in that the quorum has told a guard the present floors: all tokens that had been taken are below base. What has been
// granted without it since is none of them.
func (j *Judge) Tighten(guard string, base fence.Token) {
	for _, r := range j.resources { // each for itself: the order does not matter
		if r.fenced.granted < base {
			delete(r.fenced.loose, guard)
		}
	}
}

// least is the lowest token that a guard may admit.
func (f *fenced) least(guard string) (token fence.Token, loose bool) {
	if from, ok := f.loose[guard]; ok {
		return from, true
	}
	return f.granted, false
}

// Admits takes in that a guard lets something through, and answers whether it is loose for that resource.
func (j *Judge) Admits(a Admission) (loose bool) {
	r := j.resource(a.Resource)
	f := &r.fenced
	least, loose := f.least(a.Guard)
	switch before := f.admitted[a.Store]; {
	case !a.Seeded:
		j.violation("D2", "%s admitted %s under %v before a seed of the quorum was on its disk", a.Process, r.name, a.Token)
	case a.Durable < a.Token:
		j.violation("D2", "%s admitted %s under %v with a floor of %v on its disk", a.Process, r.name, a.Token, a.Durable)
	case a.Token < before:
		j.violation("S2", "%s admitted %s under %v after it had admitted it under %v", a.Process, r.name, a.Token, before)
	case a.Token < least && j.moved(r, a.Token):
		j.violation("S6", "%s admitted a write of %s under %v, of another region than %v", a.Process, r.name, a.Token, r.highest)
	case a.Token < least:
		j.violation("S2", "%s admitted %s under %v after it had been granted under %v", a.Process, r.name, a.Token, least)
	case a.Older != 0:
		j.violation("S2", "%s admitted %s under %v while a write under %v was on its way", a.Process, r.name, a.Token, a.Older)
	}
	if f.admitted == nil {
		f.admitted = make(map[string]fence.Token)
	}
	f.admitted[a.Store] = max(f.admitted[a.Store], a.Token)
	return loose
}

// PutBack takes in that a floor store has forgotten what it held.
func (j *Judge) PutBack(store string) {
	for _, r := range j.resources { // each for itself: the order does not matter
		delete(r.fenced.admitted, store)
	}
}

// Acknowledges takes in that a guard says that nothing below a floor is admitted, or on its way, any more.
func (j *Judge) Acknowledges(guard string, name lease.Resource, floor, durable, older fence.Token) {
	switch {
	case durable < floor:
		j.violation("D2", "%s acknowledged the floor %v of %s with %v on its disk", guard, floor, name, durable)
	case older != 0:
		j.violation("S2", "%s acknowledged the floor %v of %s while a write under %v was on its way", guard, floor, name, older)
	}
}

// Reaches takes in that a write takes effect at a storage that does not compare tokens. loose: its guard was when it let the
// write through.
func (j *Judge) Reaches(a Admission, loose bool) {
	r := j.resource(a.Resource)
	least, now := r.fenced.least(a.Guard)
	switch {
	case a.Token < least && !loose && !now && j.moved(r, a.Token):
		j.violation("S6", "a write under %v reached %s through %s, of another region than %v", a.Token, r.name, a.Process, r.highest)
	case a.Token < least && !loose && !now:
		j.violation("S2", "a write under %v reached %s through %s after it had been granted under %v", a.Token, r.name, a.Process, least)
	case a.Token < r.highest:
		r.fenced.undone = true
	}
}

// Undone says whether something stale has taken effect on a resource that nobody promised to stop: S3 says nothing of it then.
func (j *Judge) Undone(name lease.Resource) bool { return j.resource(name).fenced.undone }

// Rules takes in the rules that a lineage begins with; nil: none, or nobody knows.
func (j *Judge) Rules(rules *writv1.GuardingRecord) { j.rules = rules }

// Ruling are the rules that were committed last; nil: none were, or nobody knows.
func (j *Judge) Ruling() *writv1.GuardingRecord { return j.rules }

// ruled takes the rules of a commit in. A grant in it counts as guarded if it is by those before and after.
func (j *Judge) ruled(c quorum.Change) (before *writv1.GuardingRecord) {
	before = j.rules
	for _, e := range c.Entries {
		if e.Key != quorum.KeyGuarding {
			continue
		}
		j.rules = &writv1.GuardingRecord{}
		if err := proto.Unmarshal(e.Value, j.rules); err != nil {
			j.violation("D1", "rules were committed that cannot be read: %v", err)
		}
	}
	return before
}

// isGuarded says whether a resource that is granted in this commit is guarded.
func (j *Judge) isGuarded(name lease.Resource) bool {
	return covered(j.rules, name) && covered(j.was, name)
}

// Newest is the highest token that a resource was granted under; 0: it was not.
func (j *Judge) Newest(name lease.Resource) fence.Token { return j.resource(name).highest }

func covered(rules *writv1.GuardingRecord, name lease.Resource) bool {
	return slices.ContainsFunc(rules.GetRules(), func(rule *writv1.GuardingRule) bool {
		return rule.Prefix == string(name) || !rule.Exact && strings.HasPrefix(string(name), rule.Prefix)
	})
}

// guarded takes in that a resource was granted while it was guarded.
func (f *fenced) guarded(token fence.Token, proofs []lease.Proof) {
	for _, p := range proofs {
		if p.How == lease.Unproven {
			f.loosen(p.Guard, f.granted)
		}
	}
	f.granted = max(f.granted, token)
}

// Fencing counts the resources whose guards are being raised, or have been and nobody has been granted them.
func (j *Judge) Fencing() int {
	n := 0
	for _, r := range j.resources {
		if r.known && r.fencing {
			n++
		}
	}
	return n
}

// Proved says whether one of them is of that kind.
func (g Grant) Proved(how lease.ProofHow) bool {
	return slices.ContainsFunc(g.Proofs, func(p lease.Proof) bool { return p.How == how })
}
