//go:build linux

package workload

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/wait"
	"github.com/writ-io/writ/lease"
)

const (
	askLimit = 2 * time.Second
	askPause = 100 * time.Millisecond
)

// office is where operators ask for things: any node, from the client's party, under an identity.
type office struct {
	record *record.Writer
	name   string // under which the calls are recorded
	conns  []*grpc.ClientConn
	nodes  []writv1.RegionServiceClient
}

func (w World) open(name, identity string) (*office, error) {
	o := &office{record: w.Record, name: name}
	for i := range cluster.Size {
		conn, err := w.Lab.Nodes.DialAs(i, identity, w.Lab.Net.Dial(Client))
		if err != nil {
			o.close()
			return nil, err
		}
		o.conns = append(o.conns, conn)
		o.nodes = append(o.nodes, writv1.NewRegionServiceClient(conn))
	}
	return o, nil
}

func (o *office) close() {
	for _, conn := range o.conns {
		_ = conn.Close()
	}
}

// any draws a node.
func (o *office) any(rng *rand.Rand) writv1.RegionServiceClient {
	return o.nodes[rng.IntN(len(o.nodes))]
}

// asked is a call of an operator as it is recorded, and what came of it.
type asked struct {
	// ID is of the promotion or operation.
	ID string `json:"id,omitempty"`
	// Person has signed, or takes the signature back. Of says what else was signed than the operation's document; empty:
	// nothing else.
	Person string `json:"person,omitempty"`
	Of     string `json:"of,omitempty"`
	// Number is what a change of a group asks for.
	Number uint64 `json:"number,omitempty"`
	// Version is that of the group which a change was made for.
	Version uint64 `json:"version,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// refused tells whether a node has refused for good, so that nothing has happened.
func refused(err error) (reason string, ok bool) {
	why := lease.ReasonOf(lease.FromStatus(status.Convert(err)))
	return string(why), slices.Contains(refusals, why)
}

// refusals are for good.
var refusals = []lease.Reason{
	lease.ReasonDenied, lease.ReasonInvalid, lease.ReasonNotFound, lease.ReasonStaleToken, lease.ReasonConflict, lease.ReasonPending,
	lease.ReasonExpired, lease.ReasonHeld,
}

// attemptAt asks one node once, and records it. Then, if it is not nil, adds to what is recorded of an answer.
func attemptAt[Q, A any](ctx context.Context, o *office, node writv1.RegionServiceClient, client, op string, what asked,
	method func(writv1.RegionServiceClient, context.Context, Q, ...grpc.CallOption) (A, error), request Q, then func(A, *asked),
) (answer A, outcome record.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	done := o.record.Call(o.name, client, op, what)
	answer, err := method(node, ctx, request)
	outcome = record.OK
	switch {
	case err != nil:
		what.Detail, outcome = err.Error(), record.Unknown
		var ok bool
		if what.Reason, ok = refused(err); ok {
			outcome = record.Fail
		}
	case then != nil:
		then(answer, &what)
	}
	done(outcome, what)
	return answer, outcome
}

// ask asks node after node until one answers for good, or ctx ends: the outcome is unknown then.
func ask[Q, A any](ctx context.Context, o *office, rng *rand.Rand, client, op string, what asked,
	method func(writv1.RegionServiceClient, context.Context, Q, ...grpc.CallOption) (A, error), request Q, then func(A, *asked),
) (answer A, outcome record.Outcome) {
	outcome = record.Unknown
	for outcome == record.Unknown && ctx.Err() == nil {
		if answer, outcome = attemptAt(ctx, o, o.any(rng), client, op, what, method, request, then); outcome == record.Unknown {
			wait.For(ctx, askPause)
		}
	}
	return answer, outcome
}

// look asks what is not worth recording. Its error is that of the last node that was asked.
func look[Q, A any](ctx context.Context, o *office, rng *rand.Rand,
	method func(writv1.RegionServiceClient, context.Context, Q, ...grpc.CallOption) (A, error), request Q,
) (answer A, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return method(o.any(rng), ctx, request)
}
