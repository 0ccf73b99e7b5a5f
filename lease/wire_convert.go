package lease

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Conversions between the types of this package and those of the wire, for both sides. The To functions never fail. The
// From functions refuse what must not be believed, such as a grant without a token; on the server side the error is what
// the client gets, on the client side it is a server that cannot be trusted.

// HolderToProto converts a holder; the zero Holder becomes nil.
func HolderToProto(h Holder) *writv1.Holder {
	if h == (Holder{}) {
		return nil
	}
	return &writv1.Holder{Principal: string(h.Principal), Instance: h.Instance, Region: h.Region}
}

// HolderFromProto converts a holder; nil becomes the zero Holder.
func HolderFromProto(h *writv1.Holder) Holder {
	return Holder{Principal: Principal(h.GetPrincipal()), Instance: h.GetInstance(), Region: h.GetRegion()}
}

// StateToProto converts a state; an unknown one becomes LEASE_STATE_UNSPECIFIED.
func StateToProto(s State) writv1.LeaseState {
	switch s {
	case Free:
		return writv1.LeaseState_LEASE_STATE_FREE
	case Held:
		return writv1.LeaseState_LEASE_STATE_HELD
	case Ending:
		return writv1.LeaseState_LEASE_STATE_ENDING
	case Fencing:
		return writv1.LeaseState_LEASE_STATE_FENCING
	}
	return writv1.LeaseState_LEASE_STATE_UNSPECIFIED
}

// StateFromProto converts a state; an unknown one becomes 0.
func StateFromProto(s writv1.LeaseState) State {
	switch s {
	case writv1.LeaseState_LEASE_STATE_FREE:
		return Free
	case writv1.LeaseState_LEASE_STATE_HELD:
		return Held
	case writv1.LeaseState_LEASE_STATE_FENCING:
		return Fencing
	case writv1.LeaseState_LEASE_STATE_ENDING:
		return Ending
	case writv1.LeaseState_LEASE_STATE_UNSPECIFIED:
	}
	return 0
}

// EndToProto converts how a grant ended; NotEnded and unknown ends become END_REASON_UNSPECIFIED.
func EndToProto(e End) writv1.EndReason {
	switch e {
	case EndReleased:
		return writv1.EndReason_END_REASON_RELEASED
	case EndExpired:
		return writv1.EndReason_END_REASON_EXPIRED
	case EndCancelled:
		return writv1.EndReason_END_REASON_CANCELLED
	case EndForced:
		return writv1.EndReason_END_REASON_FORCED
	case NotEnded:
	}
	return writv1.EndReason_END_REASON_UNSPECIFIED
}

// EndFromProto converts how a grant ended; an unknown end becomes NotEnded.
func EndFromProto(e writv1.EndReason) End {
	switch e {
	case writv1.EndReason_END_REASON_RELEASED:
		return EndReleased
	case writv1.EndReason_END_REASON_EXPIRED:
		return EndExpired
	case writv1.EndReason_END_REASON_CANCELLED:
		return EndCancelled
	case writv1.EndReason_END_REASON_FORCED:
		return EndForced
	case writv1.EndReason_END_REASON_UNSPECIFIED:
	}
	return NotEnded
}

// GrantToProto converts a grant. The writ is the caller's to add; the request id does not travel.
func GrantToProto(g *Grant) *writv1.Grant {
	return &writv1.Grant{
		Resource:   string(g.Resource),
		Token:      uint64(g.Token),
		TokenText:  g.Token.String(),
		Holder:     HolderToProto(g.Holder),
		Ttl:        durationpb.New(g.TTL),
		GrantedAt:  wireTime(g.GrantedAt),
		Checkpoint: g.Checkpoint,
		Replayed:   g.Replayed,
	}
}

// GrantFromProto converts a grant. A grant without a usable resource, token or TTL is an INTERNAL error: nobody may act
// on it.
func GrantFromProto(g *writv1.Grant) (*Grant, error) {
	resource, err := ParseResource(g.GetResource())
	if err != nil {
		return nil, Errorf(ReasonInternal, "the server sent a grant of an unusable resource: %v", err)
	}
	token := wireTokenFromProto(g.GetToken())
	if !token.Valid() {
		return nil, Errorf(ReasonInternal, "the server sent a grant of %s with the unusable token %d", resource, g.GetToken())
	}
	ttl := g.GetTtl()
	if ttl.CheckValid() != nil || ttl.AsDuration() <= 0 {
		return nil, Errorf(ReasonInternal, "the server sent a grant of %s with the unusable TTL %v", resource, ttl.AsDuration())
	}
	return &Grant{
		Resource:   resource,
		Token:      token,
		Holder:     HolderFromProto(g.GetHolder()),
		TTL:        ttl.AsDuration(),
		GrantedAt:  wireTimeFromProto(g.GetGrantedAt()),
		Checkpoint: g.GetCheckpoint(),
		Replayed:   g.GetReplayed(),
	}, nil
}

// WaitingToProto converts a place in the queue.
func WaitingToProto(w *Waiting) *writv1.Waiting {
	return &writv1.Waiting{
		Position:  wireCount(w.Position),
		HeldBy:    HolderToProto(w.HeldBy),
		HeldToken: uint64(w.HeldToken),
		Keep:      durationpb.New(w.Keep),
	}
}

// WaitingFromProto converts a place in the queue. What is unusable in it becomes zero: it is for display and pacing only.
func WaitingFromProto(w *writv1.Waiting) *Waiting {
	return &Waiting{
		Position:  max(0, int(w.GetPosition())),
		HeldBy:    HolderFromProto(w.GetHeldBy()),
		HeldToken: wireTokenFromProto(w.GetHeldToken()),
		Keep:      max(0, w.GetKeep().AsDuration()),
	}
}

// OutcomeToProto converts what Acquire answers; the caller adds the writ.
func OutcomeToProto(o AcquireOutcome) *writv1.AcquireResponse {
	if o.Grant != nil {
		return &writv1.AcquireResponse{Outcome: &writv1.AcquireResponse_Grant{Grant: GrantToProto(o.Grant)}}
	}
	return &writv1.AcquireResponse{Outcome: &writv1.AcquireResponse_Waiting{Waiting: WaitingToProto(o.Waiting)}}
}

// InfoToProto converts what is known of a resource; the request id does not travel.
func InfoToProto(i *Info) *writv1.Lease {
	l := &writv1.Lease{
		Resource:  string(i.Resource),
		State:     StateToProto(i.State),
		Token:     uint64(i.Token),
		Holder:    HolderToProto(i.Holder),
		GrantedAt: wireTime(i.GrantedAt),
		End:       EndToProto(i.End),
		Metadata:  i.Metadata,
		Waiters:   wireCount(i.Waiters),
		Revision:  i.Revision,
		Fencing:   uint64(i.Fencing),
		Awaits:    i.Awaits,

		TenureGroup: i.TenureGroup,
		Checkpoint:  i.Checkpoint,
	}
	for _, p := range i.Proofs {
		l.Proofs = append(l.Proofs, &writv1.LeaseProof{Guard: p.Guard, How: p.How.String()})
	}
	if !i.Token.IsZero() {
		l.TokenText = i.Token.String()
	}
	if i.TTL > 0 {
		l.Ttl = durationpb.New(i.TTL)
	}
	if i.Remaining > 0 {
		l.Remaining = durationpb.New(i.Remaining)
	}
	return l
}

// InfoFromProto converts what is known of a resource. It is information and confers nothing, so what is unusable in it
// becomes zero instead of an error; nil becomes the zero Info.
func InfoFromProto(l *writv1.Lease) Info {
	var proofs []Proof
	for _, p := range l.GetProofs() {
		proofs = append(proofs, Proof{Guard: p.GetGuard(), How: proofNamed(p.GetHow())})
	}
	return Info{
		Resource:  Resource(l.GetResource()),
		State:     StateFromProto(l.GetState()),
		Token:     wireTokenFromProto(l.GetToken()),
		Holder:    HolderFromProto(l.GetHolder()),
		TTL:       max(0, l.GetTtl().AsDuration()),
		GrantedAt: wireTimeFromProto(l.GetGrantedAt()),
		End:       EndFromProto(l.GetEnd()),
		Metadata:  l.GetMetadata(),
		Remaining: max(0, l.GetRemaining().AsDuration()),
		Waiters:   max(0, int(l.GetWaiters())),
		Revision:  l.GetRevision(),
		Fencing:   wireTokenFromProto(l.GetFencing()),
		Proofs:    proofs,
		Awaits:    l.GetAwaits(),

		TenureGroup: l.GetTenureGroup(),
		Checkpoint:  l.GetCheckpoint(),
	}
}

// proofNamed answers 0 for an unknown name.
func proofNamed(name string) ProofHow {
	for how := ProofAcked; how <= Unproven; how++ {
		if how.String() == name {
			return how
		}
	}
	return 0
}

// RefToProto converts the name of a grant.
func RefToProto(r Ref) *writv1.LeaseRef {
	return &writv1.LeaseRef{Resource: string(r.Resource), Token: uint64(r.Token)}
}

// RefFromProto converts the name of a grant. Errors: INVALID for a resource or a token that cannot exist.
func RefFromProto(resource string, token uint64) (Ref, error) {
	name, err := ParseResource(resource)
	if err != nil {
		return Ref{}, err
	}
	t := wireTokenFromProto(token)
	if !t.Valid() {
		return Ref{}, Invalid("token", fmt.Sprintf("%d cannot have been granted", token), "use the token of the grant")
	}
	return Ref{Resource: name, Token: t}, nil
}

// RefsToProto converts the names of grants into the leases of a renewal. The messages share one allocation.
func RefsToProto(refs []Ref) []*writv1.LeaseRef {
	messages := make([]writv1.LeaseRef, len(refs))
	out := make([]*writv1.LeaseRef, len(refs))
	for i, ref := range refs {
		messages[i].Resource, messages[i].Token = string(ref.Resource), uint64(ref.Token)
		out[i] = &messages[i]
	}
	return out
}

// RefsFromProto converts the leases of a renewal. One that cannot exist does not spoil the others: it is left out of refs
// and listed in unusable with its index in the request; indices then gives the index in the request of each ref, and is
// nil when nothing was left out. More than [MaxRenewals] are an INVALID error.
func RefsFromProto(leases []*writv1.LeaseRef) (refs []Ref, indices []int, unusable []RenewFailure, err error) {
	if len(leases) > MaxRenewals {
		return nil, nil, nil, Invalid("leases", fmt.Sprintf("are %d", len(leases)), fmt.Sprintf("name at most %d in one renewal", MaxRenewals))
	}
	refs = make([]Ref, 0, len(leases))
	for i, l := range leases {
		ref, err := RefFromProto(l.GetResource(), l.GetToken())
		if err != nil {
			if unusable == nil {
				indices = make([]int, i, len(leases))
				for j := range indices {
					indices[j] = j
				}
			}
			var e *Error
			errors.As(err, &e) // RefFromProto answers no other kind
			unusable = append(unusable, RenewFailure{Index: i, Err: e})
			continue
		}
		refs = append(refs, ref)
		if unusable != nil {
			indices = append(indices, i)
		}
	}
	return refs, indices, unusable, nil
}

// RenewOutcomeToProto converts what Renew answers. Of each failure only the reason and the message travel.
func RenewOutcomeToProto(o RenewOutcome) *writv1.RenewResponse {
	r := &writv1.RenewResponse{}
	for _, f := range o.Failures {
		r.Failures = append(r.Failures, &writv1.RenewFailure{
			Index: wireCount(f.Index), Reason: string(f.Err.Reason), Message: f.Err.Message,
		})
	}
	for _, index := range o.Contended {
		r.Contended = append(r.Contended, wireCount(index))
	}
	return r
}

// RenewOutcomeFromProto converts what Renew answered for a request of sent leases. An index outside of the request is an
// INTERNAL error, because then nobody knows what was renewed.
func RenewOutcomeFromProto(r *writv1.RenewResponse, sent int) (RenewOutcome, error) {
	var o RenewOutcome
	for _, f := range r.GetFailures() {
		if f.GetIndex() < 0 || int(f.GetIndex()) >= sent {
			return RenewOutcome{}, Errorf(ReasonInternal, "the server answered for lease %d of %d", f.GetIndex(), sent)
		}
		o.Failures = append(o.Failures, RenewFailure{
			Index: int(f.GetIndex()),
			Err:   &Error{Reason: Reason(f.GetReason()), Message: f.GetMessage()},
		})
	}
	for _, index := range r.GetContended() {
		if index < 0 || int(index) >= sent {
			return RenewOutcome{}, Errorf(ReasonInternal, "the server answered for lease %d of %d", index, sent)
		}
		o.Contended = append(o.Contended, int(index))
	}
	return o, nil
}

// wireTokenFromProto reads a token; one that cannot exist becomes 0.
func wireTokenFromProto(token uint64) fence.Token {
	if t := fence.Token(token); t.Valid() {
		return t
	}
	return 0
}

func wireTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func wireTimeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil || t.CheckValid() != nil {
		return time.Time{}
	}
	return t.AsTime()
}

// wireCount holds a count to the range of the wire.
func wireCount(n int) int32 { return int32(min(max(0, n), 1<<31-1)) }
