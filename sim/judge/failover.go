package judge

import (
	"encoding/json"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What failover groups do is held to two promises: no two regions get a write admitted (S6), and nothing is executed twice, or
// without those who have to sign it (S8).

// failover is what is known of promotions and operations.
type failover struct {
	fenced   map[string]bool                            // promotions that have been executed
	executed map[string]int                             // operations, and the lineage in which they were
	signed   map[string]map[string]func(time.Time) bool // by digest, who has signed, and when that counts
	notes    map[executed]bool                          // executions that audit records tell of
	ended    []lease.Ref                                // tenures that the newest commit has ended, and nothing accounts for yet
	// regions tells which one a token was granted to.
	regions map[lease.Ref]string
}

// executed is an execution of an operation.
type executed struct {
	lineage   int
	operation string
}

func newFailover() failover {
	return failover{
		fenced: make(map[string]bool), executed: make(map[string]int), signed: make(map[string]map[string]func(time.Time) bool),
		notes: make(map[executed]bool), regions: make(map[lease.Ref]string),
	}
}

// Signs takes in that somebody signs a document of that digest, whose keys count at some times and not at others.
func (j *Judge) Signs(who, digest string, counts func(at time.Time) bool) {
	if j.failover.signed[digest] == nil {
		j.failover.signed[digest] = make(map[string]func(time.Time) bool)
	}
	j.failover.signed[digest][who] = counts
}

// Withdraws takes in that a signature was taken back, as far as the quorum has said.
func (j *Judge) Withdraws(who, digest string) { delete(j.failover.signed[digest], who) }

// Signers counts the people whose signatures under a document count at that time, as those of an operation.
func (j *Judge) Signers(digest string, approvals []*writv1.Approval, at time.Time) int {
	people := make(map[string]bool)
	for _, a := range approvals {
		if counts := j.failover.signed[digest][a.Approver]; !a.Withdrawn && counts != nil && counts(at) {
			people[a.Approver] = true
		}
	}
	return len(people)
}

// Operation takes in an operation as it was committed.
func (j *Judge) Operation(op *writv1.Operation) {
	if op.State != writv1.OperationState_OPERATION_STATE_EXECUTED {
		if lineage, ok := j.failover.executed[op.Id]; ok && lineage == j.lineage {
			j.violation("S8", "%s was executed, and is %v", op.Id, op.State)
		}
		return // a quorum that was put back to before it was executed calls it void
	}
	if lineage, ok := j.failover.executed[op.Id]; ok {
		if lineage != j.lineage {
			j.violation("S8", "%s was executed, and again after the quorum was put back", op.Id)
		}
		return // it was written again, for another reason
	}
	j.failover.executed[op.Id] = j.lineage
	at := op.EndedAt.AsTime() // by the clock of the coordinator that executed it
	if n := j.Signers(op.Digest, op.Approvals, at); !op.Rule.GetNone() && n < 2 {
		j.violation("S8", "%s was executed with %d people who have signed it and may", op.Id, n)
	}
	if !at.Before(op.ExpiresAt.AsTime()) {
		j.violation("S8", "%s was executed at %v, and had expired at %v", op.Id, at, op.ExpiresAt.AsTime())
	}
}

// Promotion takes in that a promotion has entered a state.
func (j *Judge) Promotion(p *writv1.Promotion) {
	if p.State != writv1.PromotionState_PROMOTION_STATE_FENCING {
		return
	}
	if j.failover.fenced[p.Id] {
		j.violation("S8", "%s was executed twice", p.Id)
	}
	j.failover.fenced[p.Id] = true
	if r := j.resource(lease.Resource(p.Group)); r.known && r.token != fence.Token(p.ExpectedToken) {
		j.violation("S6", "%s ends the tenure under %v, and was planned for %v", p.Id, r.token, fence.Token(p.ExpectedToken))
	}
}

// noted takes in an audit record: an operation is executed once.
func (j *Judge) noted(rec audit.Record) {
	if rec.Action != "operation.execute" {
		return
	}
	e := executed{j.lineage, rec.Target}
	if j.failover.notes[e] {
		j.violation("S8", "the audit log says twice that %s was executed", rec.Target)
	}
	j.failover.notes[e] = true
}

// Unvouched takes in that a guard which may go on for ever was taken off the list, though the tenure of a group relies on it, and
// that people have not answered for it as they do for a promotion.
func (j *Judge) Unvouched(guard, group string) {
	j.violation("S8", "%s, which the tenure of %s relies on, was taken off the list, and nobody has signed for it", guard, group)
}

// Moved accounts for the ends of tenures in the commit that was taken in last: may says of which resources a promotion fenced
// or rolled back in it, and epoch is that of the quorum.
func (j *Judge) Moved(may func(lease.Resource) bool, epoch uint32) {
	for _, ref := range j.failover.ended {
		if !may(ref.Resource) && epoch <= uint32(ref.Token.Epoch()) {
			j.violation("S8", "the tenure of %s under %v ended, and no promotion was executed", ref.Resource, ref.Token)
		}
	}
	j.failover.ended = nil
}

// Agrees holds what a promotion does to what people have signed.
func (j *Judge) Agrees(p *writv1.Promotion, op *writv1.Operation) {
	var signed struct {
		Body struct {
			From, To, Mode string
			ExpectedToken  string `json:"expected_token"`
		}
	}
	if err := json.Unmarshal(op.Document, &signed); err != nil {
		j.violation("S8", "the document of %s cannot be read: %v", op.Id, err)
		return
	}
	mode := strings.ToLower(strings.TrimPrefix(p.Mode.String(), "PROMOTION_MODE_"))
	if b := signed.Body; b.From != p.From || b.To != p.To || b.Mode != mode || b.ExpectedToken != fence.Token(p.ExpectedToken).Decimal() {
		j.violation("S8", "%s moves from %q to %q (%s, %v), and people have signed %+v", p.Id, p.From, p.To, mode, fence.Token(p.ExpectedToken), b)
	}
}

// Promotes takes in that a region is asked to begin as the primary.
func (j *Judge) Promotes(region string, name lease.Resource, token fence.Token) {
	r := j.resource(name)
	if token == r.highest && j.failover.regions[lease.Ref{Resource: name, Token: token}] != region {
		j.violation("S6", "%s is asked to be primary of %s under %v, which was granted to %q", region, name, token, j.failover.regions[lease.Ref{Resource: name, Token: token}])
	}
	if token > r.highest {
		j.violation("S6", "%s is asked to be primary of %s under %v, which nobody was granted", region, name, token)
	}
}

// moved says whether a token was granted to another region than the newest one.
func (j *Judge) moved(r *resource, token fence.Token) bool {
	older, newer := j.failover.regions[lease.Ref{Resource: r.name, Token: token}], j.failover.regions[lease.Ref{Resource: r.name, Token: r.highest}]
	return older != "" && newer != "" && older != newer
}
