//writ:core

package lease

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Record is the durable state of one resource. Deadlines are not part of it: they are the coordinator's memory, and a new
// coordinator gives every lease its full TTL again.
type Record struct {
	Resource  Resource
	Token     fence.Token // of the present grant, or of the last one
	Held      bool
	Ending    bool // held, but not to be renewed
	Holder    Holder
	RequestID string
	Priority  int32
	TTL       time.Duration
	GrantedAt time.Time
	Metadata  []byte
	End       End       // of the last grant, when not held
	Outcomes  []Outcome // how the last requests ended, oldest first
	// HasCheckpoint says that a checkpoint stands beside the record.
	HasCheckpoint bool
}

// MaxOutcomes is how many ended requests a record remembers.
const MaxOutcomes = 8

// Outcome remembers how a request ended, so that a late duplicate of it gets an error and never a second token.
type Outcome struct {
	Principal Principal
	RequestID string
	Token     fence.Token // 0 if it was cancelled before it was granted
	End       End
}

// AppendBinary appends the stored form of the record.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	m := writv1.LeaseRecord{
		Resource: string(r.Resource), Token: uint64(r.Token), Held: r.Held, Ending: r.Ending,
		Principal: string(r.Holder.Principal), Instance: r.Holder.Instance, Region: r.Holder.Region,
		RequestId: r.RequestID, Priority: r.Priority, TtlMs: r.TTL.Milliseconds(),
		Metadata: r.Metadata, End: int32(r.End), HasCheckpoint: r.HasCheckpoint,
	}
	if !r.GrantedAt.IsZero() {
		m.GrantedAtUnixMs = r.GrantedAt.UnixMilli()
	}
	if len(r.Outcomes) > 0 {
		m.Outcomes = make([]*writv1.RequestOutcome, len(r.Outcomes))
		for i, o := range r.Outcomes {
			m.Outcomes[i] = &writv1.RequestOutcome{
				Principal: string(o.Principal), RequestId: o.RequestID, Token: uint64(o.Token), End: int32(o.End),
			}
		}
	}
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, &m)
}

// Size is the length of the stored form in bytes.
func (r *Record) Size() int {
	n := stringSize(string(r.Resource)) + varintSize(uint64(r.Token)) + boolSize(r.Held) + boolSize(r.Ending) +
		stringSize(string(r.Holder.Principal)) + stringSize(r.Holder.Instance) + stringSize(r.Holder.Region) +
		stringSize(r.RequestID) + varintSize(uint64(r.TTL.Milliseconds())) + stringSize(r.Metadata) +
		varintSize(uint64(r.End)) + boolSize(r.HasCheckpoint) + varintSize(uint64(r.Priority))
	if !r.GrantedAt.IsZero() {
		n += varintSize(uint64(r.GrantedAt.UnixMilli()))
	}
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		n += 1 + protowire.SizeBytes(stringSize(string(o.Principal))+stringSize(o.RequestID)+varintSize(uint64(o.Token))+varintSize(uint64(o.End)))
	}
	return n
}

// The size of a field in protobuf, with its tag of one byte: fields 1 to 15. What is zero is left out.

func stringSize[T string | []byte](v T) int {
	if len(v) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(v))
}

func varintSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func boolSize(v bool) int {
	if v {
		return 2
	}
	return 0
}

// UnmarshalBinary reads the stored form. A record that breaks an invariant is an error, never a guess.
func (r *Record) UnmarshalBinary(data []byte) error {
	var m writv1.LeaseRecord
	if err := proto.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("lease record: %w", err)
	}
	if m.TtlMs < 0 || m.TtlMs > MaxTTL.Milliseconds() {
		return fmt.Errorf("lease record of %q: TTL %d ms is outside of 0 to %d", m.Resource, m.TtlMs, MaxTTL.Milliseconds())
	}
	*r = Record{
		Resource: Resource(m.Resource), Token: fence.Token(m.Token), Held: m.Held, Ending: m.Ending,
		Holder:    Holder{Principal: Principal(m.Principal), Instance: m.Instance, Region: m.Region},
		RequestID: m.RequestId, Priority: m.Priority, TTL: time.Duration(m.TtlMs) * time.Millisecond,
		Metadata: m.Metadata, End: End(m.End), HasCheckpoint: m.HasCheckpoint,
	}
	if m.GrantedAtUnixMs != 0 {
		r.GrantedAt = time.UnixMilli(m.GrantedAtUnixMs).UTC()
	}
	if len(m.Outcomes) > 0 {
		r.Outcomes = make([]Outcome, len(m.Outcomes))
		for i, o := range m.Outcomes {
			r.Outcomes[i] = Outcome{
				Principal: Principal(o.Principal), RequestID: o.RequestId, Token: fence.Token(o.Token), End: End(o.End),
			}
		}
	}
	return r.check()
}

func (r *Record) check() error {
	switch {
	case resourceProblem(string(r.Resource)) != "":
		return fmt.Errorf("lease record: resource %s", resourceProblem(string(r.Resource)))
	case !r.Token.Valid() && (r.Held || r.Token != 0):
		return fmt.Errorf("lease record of %q: invalid token %d", r.Resource, int64(r.Token))
	case r.Held && r.TTL < MinTTL:
		return fmt.Errorf("lease record of %q: held for %v, less than %v", r.Resource, r.TTL, MinTTL)
	case r.Ending && !r.Held:
		return fmt.Errorf("lease record of %q: ending, but not held", r.Resource)
	case len(r.Outcomes) > MaxOutcomes:
		return fmt.Errorf("lease record of %q: %d outcomes, at most %d", r.Resource, len(r.Outcomes), MaxOutcomes)
	}
	for _, o := range r.Outcomes {
		if o.Token != 0 && !o.Token.Valid() {
			return fmt.Errorf("lease record of %q: request %q ended under the invalid token %d", r.Resource, o.RequestID, int64(o.Token))
		}
	}
	return nil
}

// Info shows the record to readers.
func (r *Record) Info() Info {
	i := Info{
		Resource: r.Resource, State: Free, Token: r.Token, Holder: r.Holder, TTL: r.TTL, GrantedAt: r.GrantedAt,
		End: r.End, Metadata: r.Metadata, RequestID: r.RequestID,
	}
	switch {
	case r.Held && r.Ending:
		i.State = Ending
	case r.Held:
		i.State = Held
	}
	return i
}
