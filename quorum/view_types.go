package quorum

import (
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// Consistency chooses between a fresh read and a fast one.
type Consistency uint8

// The consistencies.
const (
	// Linearizable reads see everything acknowledged before they began.
	Linearizable Consistency = iota
	// Local reads see what this node has seen, and work without a quorum.
	Local
)

// GetQuery asks for one resource.
type GetQuery struct {
	Resource    lease.Resource
	Consistency Consistency
	// WithCheckpoint answers the checkpoint too, as of the revision that is answered.
	WithCheckpoint bool
}

// ListQuery asks for one page of resources in name order.
type ListQuery struct {
	Prefix      string
	After       string // resource name to go on after; empty starts at the first
	Limit       int    // 1 to 1,000
	HeldOnly    bool
	Consistency Consistency
}

// ListPage is one page.
type ListPage struct {
	Leases   []lease.Info
	More     bool
	Revision int64
}

// WatchKind is what a WatchEvent tells.
type WatchKind uint8

// The kinds.
const (
	WatchState    WatchKind = iota + 1 // present state of a resource, at the start
	WatchSynced                        // the present state has been told whole
	WatchChanged                       // a resource changed
	WatchRemoved                       // a record was removed after its retention
	WatchResync                        // the resume token cannot be continued from; the present state follows
	WatchProgress                      // nothing happened; Resume is fresh
)

// WatchEvent is one step of a watch.
type WatchEvent struct {
	Kind   WatchKind
	Lease  lease.Info
	Resume string // token to continue after this event, at any node
	// Traceparent is the W3C trace context of the promotion that raises the guards of a tenure; empty: of none.
	Traceparent string
}

// Node is what the quorum knows of one of its nodes.
type Node struct {
	Name           string
	Region         string
	APIAddress     string
	HTTPAddress    string
	PeerURL        string
	MemberID       uint64
	Version        string
	Principal      lease.Principal
	JWKS           string
	Coordinator    bool
	Reachable      bool
	Learner        bool
	WitnessedEpoch fence.Epoch
	WitnessForeign string
}

// Status is what one node knows of the quorum.
type Status struct {
	Node          string
	Cluster       string
	Incarnation   string
	Epoch         fence.Epoch
	Coordinator   string // node name; empty: none known
	Term          Term
	NotReady      string // why; empty when ready
	Nodes         []Node
	Revision      int64
	RecoveringFor time.Duration
	DBBytes       int64
	QuotaBytes    int64 // the soft one
	OverQuota     bool  // what makes the state grow is refused
	Leases        int   // held, at the coordinator; 0 elsewhere
}
