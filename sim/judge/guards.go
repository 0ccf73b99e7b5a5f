package judge

import (
	"slices"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What guards let through is held to what they have let through before, to what has been granted, and to their disks.

// fenced is what is known of a resource that guards stand before.
type fenced struct {
	admitted fence.Token // the highest, by any guard
	by       string
	excused  bool
}

// Excuse ends the judging of S2 for a resource: a rebuilt quorum may not know of a guard that may go on without contact.
func (j *Judge) Excuse(name lease.Resource) { j.resource(name).fenced.excused = true }

// Excused says whether S2 and S3 are not judged any more for a resource.
func (j *Judge) Excused(name lease.Resource) bool { return j.resource(name).fenced.excused }

// Admits takes in that a guard lets something through. durable is the floor on its disk; seeded says that the disk holds the
// seed that the quorum gave this life of the guard; older is a token below under which something is under way, 0 if nothing is.
func (j *Judge) Admits(guard string, name lease.Resource, token, durable fence.Token, seeded bool, older fence.Token) {
	r := j.resource(name)
	if token > r.fenced.admitted {
		r.fenced.admitted, r.fenced.by = token, guard
	}
	switch {
	case r.fenced.excused:
	case !seeded:
		j.violation("D2", "%s admitted %s under %v before a seed of the quorum was on its disk", guard, name, token)
	case durable < token:
		j.violation("D2", "%s admitted %s under %v with a floor of %v on its disk", guard, name, token, durable)
	case token < r.fenced.admitted:
		j.violation("S2", "%s admitted %s under %v after %s had admitted it under %v", guard, name, token, r.fenced.by, r.fenced.admitted)
	case token < r.highest:
		j.violation("S2", "%s admitted %s under %v after it had been granted under %v", guard, name, token, r.highest)
	case older != 0:
		j.violation("S2", "%s admitted %s under %v while a write under %v was on its way", guard, name, token, older)
	}
}

// Acknowledges takes in that a guard says that nothing below a floor is admitted, or on its way, any more.
func (j *Judge) Acknowledges(guard string, name lease.Resource, floor, durable, older fence.Token) {
	switch {
	case j.resource(name).fenced.excused:
	case durable < floor:
		j.violation("D2", "%s acknowledged the floor %v of %s with %v on its disk", guard, floor, name, durable)
	case older != 0:
		j.violation("S2", "%s acknowledged the floor %v of %s while a write under %v was on its way", guard, floor, name, older)
	}
}

// Reaches takes in that a write takes effect at a storage that does not compare tokens.
func (j *Judge) Reaches(guard string, name lease.Resource, token fence.Token) {
	r := j.resource(name)
	switch {
	case r.fenced.excused:
	case token < r.highest:
		j.violation("S2", "a write under %v reached %s through %s after it had been granted under %v", token, name, guard, r.highest)
	case token < r.fenced.admitted:
		j.violation("S2", "a write under %v reached %s through %s after %s had admitted %v", token, name, guard, r.fenced.by, r.fenced.admitted)
	}
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
