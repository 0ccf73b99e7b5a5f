//writ:core

package lease

import (
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// Tenure is the state of a resource whose grants have no deadline: it changes hands only when a failover group says so, and
// the guards of the resource make it count.
type Tenure struct {
	// Group is the failover group that decides; empty: the resource is not a tenure's.
	Group string
	// Token of the present tenure, or of the last one; 0: there was none.
	Token fence.Token
	// Held: Region has the tenure.
	Held   bool
	Region string
	// Fencing is the token of the next tenure, which the guards are being raised to, or have been; 0: none.
	Fencing fence.Token
	// Awaits are the guards that have not been proved to refuse what is older than Fencing, by name.
	Awaits []TenureWait
	// Proofs are those of the others, and of the present tenure where nothing is being fenced.
	Proofs []Proof
}

// Ready says whether the next tenure may be granted.
func (t Tenure) Ready() bool { return t.Fencing != 0 && len(t.Awaits) == 0 }

// TenureWait is a guard that is awaited.
type TenureWait struct {
	Guard  string
	Region string
	// Lapses is when it is proved at the latest; clock.Never: it may go on without contact, and has to acknowledge.
	Lapses clock.Instant
}

// TenureGuard is a guard that covers a tenure's resource.
type TenureGuard struct {
	Name   string
	Region string
	// Out: it has lapsed or left.
	Out bool
	// Proved: it is out, and known to admit nothing: it left, or lapsed under a rule that it knew to close.
	Proved bool
	// Fenceable: it is known to refuse writes when it has had no contact for its guard lease.
	Fenceable bool
	// NeverLapses: its storage goes on by itself, so that it never will be.
	NeverLapses bool
	// Lapses is when its guard lease, and W, run out if it is not heard of.
	Lapses clock.Instant
}

// CoveringGuard is a guard with the tenures that it covers, now or before its newest enrolment.
type CoveringGuard struct {
	Name   string
	Region string
	// Session is that of its newest enrolment, and Store names the floors that it enrolled with.
	Session string
	Store   string
	// Out: it has lapsed or left.
	Out bool
	// Lapses is when its guard lease, and W, run out if it is not heard of.
	Lapses clock.Instant
	// Tenures are in the order of their resources.
	Tenures []CoveredTenure
}

// CoveredTenure is the resource of a tenure, and the failover group that decides about it.
type CoveredTenure struct {
	Resource Resource
	Group    string
}

// Attestation is the word of people that a guard is gone.
type Attestation struct {
	Guard string
	// Session is that of the enrolment whose process they answer for.
	Session string
	// Operation is what they have signed, Actor who had it executed, and Reason how it is known.
	Operation string
	Actor     string
	Reason    string
}
