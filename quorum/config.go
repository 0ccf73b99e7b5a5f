package quorum

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Config says what one node of a quorum is.
type Config struct {
	// Name, Region and Cluster: 1 to 64 bytes. The name is the etcd member's too.
	Name, Region, Cluster string
	// What the node tells the others about itself: host:port, host:port, URL, and the identity in its certificate.
	APIAddress, HTTPAddress, PeerURL string
	Principal                        lease.Principal
	Version                          string
	// Election is the store's election timeout. A commit whose outcome is not known after two of them ends the term.
	Election time.Duration
	Policy   lease.Policy
	// Retention is how long records of free resources are kept; 0: the table's default.
	Retention time.Duration
	// Approvers is the set that a quorum without one begins with: who may approve promotions. Later it changes only as its
	// own rule says. Nil: nobody may approve anything, until there is a set.
	Approvers *writv1.ApproverSet
	// GuardLease is for how long a guard may go on admitting after its last contact, lease.MinGuardLease to MaxGuardLease; 0:
	// lease.DefaultGuardLease.
	GuardLease time.Duration
	// TokenBlock is how many tokens are reserved at a time, 8,192 to 16,777,216; 0: the engine's default. A takeover skips
	// what is left of a block.
	TokenBlock uint64
	// SignHeads is how often the node signs the newest record of the audit log, if there are new ones, MinSignHeads to
	// MaxSignHeads; 0: DefaultSignHeads.
	SignHeads time.Duration
	// PreferredRegions lists where the coordinator should be, best first; empty: anywhere.
	PreferredRegions []string
	// QuotaBytes is the store's quota: new resources and larger checkpoints are refused at 80 % of it, everything at RefusedAt.
	// 0: none.
	QuotaBytes int64
	// KeepRevisions is how much history a watch can resume over, while the store is at most half full. Default 200,000.
	KeepRevisions int64

	// Regions is told each record of a failover group or a promotion, in order, as this node's view takes it in. It must not
	// block, and not call the service. Nil: nobody is told.
	Regions func(proto.Message)

	// Witness is what this node remembered at start, never nil; SaveWitness makes a newer one durable.
	Witness     *writv1.WitnessRecord
	SaveWitness func(*writv1.WitnessRecord) error
	// Keys signs writs.
	Keys   Signer
	Clock  clock.Clock
	Logger hclog.Logger
}

// Bounds of TokenBlock: enough for the largest round, and so few that takeovers do not use the sequences up.
const (
	minTokenBlock = 8192
	maxTokenBlock = 1 << 24
)

// Bounds of SignHeads: what is younger than that is covered by no signed head.
const (
	MinSignHeads     = time.Second
	DefaultSignHeads = time.Minute
	MaxSignHeads     = time.Hour
)

// Signer signs writs and heads of the audit log, and shows the public keys that verify them.
type Signer interface {
	Sign(fence.Writ) (string, error)
	SignStatement(typ string, payload []byte) (string, error)
	Keys() fence.KeySet
}

// Validate fills defaults in and checks bounds; the error names the field and the fix.
func (c *Config) Validate() error {
	for _, f := range []struct{ name, value string }{{"name", c.Name}, {"region", c.Region}, {"cluster", c.Cluster}} {
		if f.value == "" || len(f.value) > 64 {
			return lease.Invalid(f.name, fmt.Sprintf("is %d bytes long", len(f.value)), "use 1 to 64 bytes")
		}
	}
	if c.Election == 0 {
		c.Election = time.Second
	}
	if c.KeepRevisions == 0 {
		c.KeepRevisions = 200_000
	}
	if c.TokenBlock != 0 && (c.TokenBlock < minTokenBlock || c.TokenBlock > maxTokenBlock) {
		return lease.Invalid("token_block", fmt.Sprintf("is %d", c.TokenBlock), fmt.Sprintf("use %d to %d", minTokenBlock, maxTokenBlock))
	}
	if c.GuardLease != 0 && (c.GuardLease < lease.MinGuardLease || c.GuardLease > lease.MaxGuardLease) {
		return lease.Invalid("guard_lease", fmt.Sprintf("is %v", c.GuardLease), fmt.Sprintf("use %v to %v", lease.MinGuardLease, lease.MaxGuardLease))
	}
	if c.SignHeads == 0 {
		c.SignHeads = DefaultSignHeads
	}
	if c.SignHeads < MinSignHeads || c.SignHeads > MaxSignHeads {
		return lease.Invalid("sign_heads", fmt.Sprintf("is %v", c.SignHeads), fmt.Sprintf("use %v to %v", MinSignHeads, MaxSignHeads))
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Witness == nil || c.SaveWitness == nil {
		return lease.Invalid("witness", "is not set", "load it from its file, or start an empty one")
	}
	return c.Policy.Validate()
}
