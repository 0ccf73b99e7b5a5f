//writ:core

package region

import (
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Command is what people, programs and agents ask of the machine: one of the requests of writv1.RegionService. The answer is
// that call's response.
type Command struct {
	lease.Caller
	Ask proto.Message
	// Traceparent is the caller's W3C trace context; empty: it has none.
	Traceparent string
}

// Tenures is what the machine asks of the table of leases, which acts in the same commit.
type Tenures interface {
	// ClaimTenure makes a resource a tenure's of a group: no lease on it is granted from then on, and it is guarded by a rule
	// that closes, which is added if there is none. Claiming it again for the same group changes nothing.
	// Errors: HELD while somebody has a lease on it, CONFLICT if it is another group's, INVALID if a rule leaves it open.
	ClaimTenure(m lease.Moment, name lease.Resource, group string) *lease.Error
	// DropTenure ends what there is, and gives the resource back to leases.
	DropTenure(m lease.Moment, name lease.Resource)
	// FenceTenure ends the tenure that there is, takes the token of the next one, and raises every guard to it. Where a raise
	// is under way, or done, it goes on with that one. It answers the token.
	FenceTenure(m lease.Moment, name lease.Resource) fence.Token
	// AttestTenure notes that people answer for a guard which the raise under way awaits; false if it does not.
	AttestTenure(m lease.Moment, name lease.Resource, guard string) bool
	// CoveringGuard tells what there is of a guard, and which tenures it covers; false: it is not on the list.
	CoveringGuard(name string) (lease.CoveringGuard, bool)
	// AttestGuard takes a guard off the list that is out and for which people answer, unless it has enrolled anew since;
	// false otherwise. Whatever awaits it takes that for a proof.
	AttestGuard(m lease.Moment, by lease.Attestation) bool
	// GrantTenure gives the tenure to a region, under the token that every guard has been raised to; false if one has not
	// been proved.
	GrantTenure(m lease.Moment, name lease.Resource, region string) (fence.Token, bool)
	// Tenure tells what there is.
	Tenure(name lease.Resource) lease.Tenure
	// TenureGuards lists the guards that cover a resource, by name.
	TenureGuards(name lease.Resource) []lease.TenureGuard
	// ShowGuards lists them for people.
	ShowGuards(m lease.Moment, name lease.Resource) []*writv1.Guard
}

// Config holds what the machine's decisions depend on besides what it is asked.
type Config struct {
	Cluster     string
	Incarnation string
	Epoch       fence.Epoch
	// Term is the coordinator's: the tasks of a later one come after those of this one.
	Term int64
	// Approvers is the set that a quorum without one begins with; nil: none, and nothing can be approved before there is one.
	Approvers *writv1.ApproverSet
	// Interval is how often agents report; a report counts for three of them. Default one second.
	Interval time.Duration
}

// Event is something that happens to the machine.
type Event interface{ machineEvent() }

// Request is a command that was taken in at a time.
type Request struct {
	ID      lease.CallID
	Intake  clock.Instant
	Command Command
}

// Gone says that nobody waits for that answer any more.
type Gone struct{ ID lease.CallID }

// Tick lets time pass, and lets promotions go on that guards have been proved for. It comes once in every round, after the
// table's. Nothing more begins to move when the changes of this round have reached MaxWrites or MaxBytes, where these are not
// 0; it is due at once then.
type Tick struct{ MaxWrites, MaxBytes int }

func (Request) machineEvent() {}
func (Gone) machineEvent()    {}
func (Tick) machineEvent()    {}

// Effects is what a step wants done; valid until the next step.
type Effects struct {
	// Replies carry a proto.Message each, or an error.
	Replies []lease.Reply
	// Notes are for the audit log, in the commit of what they tell.
	Notes []lease.Note
}

// Change is a record that has to be stored. A nil Record deletes it. Records are shared, and never changed in place.
type Change struct {
	Kind   RecordKind
	Name   string
	Record proto.Message
}

// RecordKind says what a record is.
type RecordKind uint8

// The kinds.
const (
	GroupRecord     RecordKind = iota + 1 // *writv1.Group, by the group's name
	PromotionRecord                       // *writv1.Promotion, by id
	OperationRecord                       // *writv1.Operation, by id
	ApproversRecord                       // *writv1.ApproverSet, without a name
)

// State is what has been committed of the machine.
type State struct {
	Groups     []*writv1.Group
	Promotions []*writv1.Promotion
	Operations []*writv1.Operation
	Approvers  *writv1.ApproverSet
}
