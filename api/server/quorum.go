package server

import (
	"context"
	"io"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/region"
)

// Quorum is what the API needs of the node behind it. *quorum.Node's service implements it.
//
// The deciding calls (Acquire to Region) answer lease.ErrNotCoordinator on a node that does not decide; the handlers
// then forward to the one that does. They answer lease.ErrUnknownOutcome when the effect may have happened. All are
// idempotent as the lease package describes, so a forwarded call may be repeated.
type Quorum interface {
	Acquire(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error)
	CancelAcquire(ctx context.Context, cmd lease.CancelAcquire) (fence.Token, error)
	// Renew answers one outcome per command, in order.
	Renew(ctx context.Context, cmds []lease.Renew) ([]lease.RenewOutcome, error)
	Release(ctx context.Context, cmd lease.Release) error
	Checkpoint(ctx context.Context, cmd lease.Checkpoint) error
	ForceRelease(ctx context.Context, cmd lease.ForceRelease) (lease.Info, error)
	Inspect(ctx context.Context, cmd lease.Inspect) (lease.Info, error)
	GuardCall(ctx context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error)
	ListGuards(ctx context.Context, cmd lease.ListGuards) (*writv1.ListGuardsResponse, error)
	RemoveGuard(ctx context.Context, cmd lease.RemoveGuard) error
	SetGuarding(ctx context.Context, cmd lease.SetGuarding) (*writv1.GuardingRecord, error)
	GetGuarding(ctx context.Context, cmd lease.GetGuarding) (*writv1.GuardingRecord, error)
	// Region asks the machine of failover groups; the answer is the response of the call that cmd.Ask is the request of.
	Region(ctx context.Context, cmd region.Command) (proto.Message, error)

	// Submit hands commands over without waiting; deliver gets their answers. See [quorum.Service.Submit].
	Submit(commands []any, deliver func([]lease.Reply)) (first lease.CallID, err error)
	// Abandon says that nobody waits for the answer of a command any more.
	Abandon(id lease.CallID)

	// What auditors ask.
	Auditor

	// Reads are answered by every node.
	Get(ctx context.Context, query quorum.GetQuery) (lease.Info, error)
	List(ctx context.Context, query quorum.ListQuery) (quorum.ListPage, error)
	// Watch calls deliver in order until ctx ends or deliver fails, and returns that error.
	Watch(ctx context.Context, prefix, resume string, deliver func(quorum.WatchEvent) error) error

	// Coordinator names the node that decides, as far as this node knows, and whether it is this one. changed is
	// closed when the answer may have become another. An empty name: none is known.
	Coordinator() (node quorum.Node, self bool, changed <-chan struct{})
	// Nodes lists every node that has announced itself.
	Nodes() []quorum.Node
	Status() quorum.Status
	// MemberAdd and MemberRemove are told who asks, for the audit log. MemberAdd answers the new member's id and the whole
	// membership by name (name to peer URL).
	MemberAdd(ctx context.Context, by lease.Principal, name, peerURL string) (id uint64, members map[string]string, err error)
	MemberRemove(ctx context.Context, by lease.Principal, name string) error
	// MoveCoordinator hands over to the named node, or to any other one if to is empty, and answers its name.
	MoveCoordinator(ctx context.Context, to string) (string, error)
	Snapshot(ctx context.Context) (io.ReadCloser, error)
	// Sign signs a writ with this node's key.
	Sign(w fence.Writ) (string, error)
}
