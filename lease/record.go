//writ:core

package lease

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

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
	// CheckpointSequence is that of the newest checkpoint stored under Token.
	CheckpointSequence uint64
	// Fencing is the token of the next grant, which the guards of a free resource are raised to; 0: none.
	Fencing fence.Token
	// Proofs say how each guard was proved to refuse what is older than Token; at most MaxProofs.
	Proofs []Proof
	// TenureGroup is the failover group whose tenure this is; empty: it is a lease. A tenure has no TTL.
	TenureGroup string
}

// Proof says how a guard was proved to refuse what is older than a grant.
type Proof struct {
	Guard string
	How   ProofHow
}

// ProofHow is how a guard was proved. The numbers are stored; they are those of writv1.GuardProof.
type ProofHow int32

// The proofs.
const (
	// ProofAcked: the guard says that the floor is persisted and that every older write has finished.
	ProofAcked ProofHow = iota + 1
	// ProofCut: the guard broke older writes off and waited W.
	ProofCut
	// ProofLapsed: its guard lease, and W, have run out.
	ProofLapsed
	// ProofAttested: somebody answers for it.
	ProofAttested
	// Unproven: it is not known, and the rule lets grants be made all the same.
	Unproven
)

func (p ProofHow) String() string {
	switch p {
	case ProofAcked:
		return "acked"
	case ProofCut:
		return "cut"
	case ProofLapsed:
		return "lapsed"
	case ProofAttested:
		return "attested"
	case Unproven:
		return "unproven"
	}
	return "unknown"
}

// MaxOutcomes is how many ended requests a record remembers.
const MaxOutcomes = 8

// Outcome remembers how a request ended, so that a late duplicate of it gets an error and never a second token.
type Outcome struct {
	Principal Principal
	Request   RequestDigest
	Token     fence.Token // 0 if it was cancelled before it was granted
	End       End
}

// RequestDigest stands for the id of a request that has ended. Every commit of a resource stores its outcomes again on every
// node, and ids are most of what they would take. That two of nine requests of a principal share a digest happens once in
// some 10^17 times; the later one is then refused as RELEASED or EXPIRED, which confers nothing.
type RequestDigest uint64

// DigestRequest is the first 8 bytes of the SHA-256 of a request's id.
func DigestRequest(id string) RequestDigest {
	sum := sha256.Sum256([]byte(id))
	return RequestDigest(binary.BigEndian.Uint64(sum[:]))
}

func (r *Record) check() error {
	switch {
	case resourceProblem(string(r.Resource)) != "":
		return fmt.Errorf("lease record: resource %s", resourceProblem(string(r.Resource)))
	case !r.Token.Valid() && (r.Held || r.Token != 0):
		return fmt.Errorf("lease record of %q: invalid token %d", r.Resource, int64(r.Token))
	case r.Held && r.TenureGroup == "" && r.TTL < MinTTL:
		return fmt.Errorf("lease record of %q: held for %v, less than %v", r.Resource, r.TTL, MinTTL)
	case r.TenureGroup != "" && (r.Ending || (r.Held && r.TTL != 0)):
		return fmt.Errorf("lease record of %q: the tenure of group %q has an end", r.Resource, r.TenureGroup)
	case r.Ending && !r.Held:
		return fmt.Errorf("lease record of %q: ending, but not held", r.Resource)
	case r.Fencing != 0 && (r.Held || !r.Fencing.Valid() || r.Fencing <= r.Token):
		return fmt.Errorf("lease record of %q: fencing to %d while its token is %d and held is %t", r.Resource, int64(r.Fencing), int64(r.Token), r.Held)
	case len(r.Proofs) > MaxProofs:
		return fmt.Errorf("lease record of %q: %d proofs, at most %d", r.Resource, len(r.Proofs), MaxProofs)
	case len(r.Outcomes) > MaxOutcomes:
		return fmt.Errorf("lease record of %q: %d outcomes, at most %d", r.Resource, len(r.Outcomes), MaxOutcomes)
	}
	for _, o := range r.Outcomes {
		if o.Token != 0 && !o.Token.Valid() {
			return fmt.Errorf("lease record of %q: a request ended under the invalid token %d", r.Resource, int64(o.Token))
		}
	}
	return nil
}

// Info shows the record to readers.
func (r *Record) Info() Info {
	i := Info{
		Resource: r.Resource, State: Free, Token: r.Token, Holder: r.Holder, TTL: r.TTL, GrantedAt: r.GrantedAt,
		End: r.End, Metadata: r.Metadata, RequestID: r.RequestID, Fencing: r.Fencing, Proofs: r.Proofs,
		TenureGroup: r.TenureGroup,
	}
	switch {
	case r.Held && r.Ending:
		i.State = Ending
	case r.Held:
		i.State = Held
	case r.Fencing != 0:
		i.State = Fencing
	}
	return i
}
