package leasetest

import (
	"context"
	"net"
	"path"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// Principal is the identity of every client, since nobody is authenticated here.
const Principal lease.Principal = "spiffe://test/client"

// Script decides about one call before the node carries it out. next does so and may be left uncalled or have its answer
// thrown away. An error goes to the client as [lease.ToStatus] says.
type Script func(ctx context.Context, request any, next func() (any, error)) (any, error)

// Node is a server that answers from a [State]. It is safe for concurrent use.
type Node struct {
	name, region string
	state        State
	creds        credentials.TransportCredentials
	gate         *gate

	mu      sync.Mutex
	server  *grpc.Server      // guarded by mu; nil while stopped
	scripts map[string]Script // guarded by mu; by method
	calls   map[string]int    // guarded by mu; by method
	delay   time.Duration     // guarded by mu
	ready   bool              // guarded by mu
	decides string            // guarded by mu; name of the node that it says decides
	serving sync.WaitGroup
}

// NewNode makes a node; it answers once it serves a listener or belongs to a [Network].
func NewNode(s State, name, region string) *Node {
	return &Node{
		name: name, region: region, state: s, creds: insecure.NewCredentials(), gate: newGate(), ready: true,
		scripts: make(map[string]Script), calls: make(map[string]int),
	}
}

// UseTLS sets the transport security of servers that are started from now on.
func (n *Node) UseTLS(creds credentials.TransportCredentials) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.creds = creds
}

// Serve answers on a listener until Stop, which closes it. It does not block.
func (n *Node) Serve(l net.Listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := grpc.NewServer(
		grpc.Creds(n.creds), grpc.UnaryInterceptor(n.unary), grpc.StreamInterceptor(n.stream),
		grpc.MaxRecvMsgSize(16<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	writv1.RegisterLeaseServiceServer(s, leases{node: n})
	writv1.RegisterFenceServiceServer(s, fences{node: n})
	writv1.RegisterClusterServiceServer(s, cluster{node: n})
	n.server = s
	n.serving.Go(func() { _ = s.Serve(gatedListener{l, n.gate}) }) // its error is that it was stopped
}

// Stop closes the listener and every connection, and waits for the calls under way.
func (n *Node) Stop() {
	n.mu.Lock()
	s := n.server
	n.server = nil
	n.mu.Unlock()
	if s != nil {
		s.Stop()
	}
	n.serving.Wait()
}

// Freeze makes the node a black hole: connections stay and new ones are accepted, but nothing passes any more.
func (n *Node) Freeze() { n.gate.set(false) }

// Thaw ends Freeze; what was held back passes.
func (n *Node) Thaw() { n.gate.set(true) }

// Reset breaks every connection.
func (n *Node) Reset() { n.gate.closeAll() }

// SetDelay makes each call, and so each round trip, take that much longer.
func (n *Node) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// SetReady sets what the node says about itself.
func (n *Node) SetReady(ready bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready = ready
}

// SetCoordinator sets which node this one says decides; at first none.
func (n *Node) SetCoordinator(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.decides = name
}

// coordinator is the node that this one says decides, empty if there is none or if that has been told before.
func (n *Node) coordinator(told string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.decides == told {
		return ""
	}
	return n.decides
}

// Script sets what happens to calls of a method, such as "Acquire"; nil carries them out. Watch is asked before it starts
// and cannot be carried out by its script.
func (n *Node) Script(method string, s Script) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.scripts[method] = s
}

// Calls returns how many calls of a method have come in.
func (n *Node) Calls(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[method]
}

// begin counts a call and returns its script, after the node's delay.
func (n *Node) begin(ctx context.Context, full string) (Script, error) {
	method := path.Base(full)
	n.mu.Lock()
	n.calls[method]++
	script, delay := n.scripts[method], n.delay
	n.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return script, nil
}

func (n *Node) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	script, err := n.begin(ctx, info.FullMethod)
	if err != nil {
		return nil, lease.ToStatus(err).Err()
	}
	next := func() (any, error) { return handler(ctx, request) }
	var response any
	if script != nil {
		response, err = script(ctx, request, next)
	} else {
		response, err = next()
	}
	if err != nil {
		return nil, lease.ToStatus(err).Err()
	}
	return response, nil
}

func (n *Node) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod == writv1.LeaseService_Pipeline_FullMethodName {
		return handler(srv, stream) // its calls are delayed, counted and scripted one by one
	}
	script, err := n.begin(stream.Context(), info.FullMethod)
	if err == nil && script != nil {
		_, err = script(stream.Context(), nil, func() (any, error) { return nil, nil })
	}
	if err == nil {
		err = handler(srv, stream)
	}
	return lease.ToStatus(err).Err()
}

type cluster struct {
	writv1.UnimplementedClusterServiceServer
	node *Node
}

func (c cluster) Status(context.Context, *writv1.StatusRequest) (*writv1.StatusResponse, error) {
	n := c.node
	n.mu.Lock()
	defer n.mu.Unlock()
	return &writv1.StatusResponse{
		Node: n.name, Ready: n.ready, Coordinator: n.decides, Epoch: 1,
		Nodes: []*writv1.NodeStatus{{Name: "another"}, {Name: n.name, Region: n.region, Reachable: true}},
	}, nil
}

type fences struct {
	writv1.UnimplementedFenceServiceServer
	node *Node
}

// IssueWrit has the grant signed for its holder.
func (f fences) IssueWrit(ctx context.Context, r *writv1.IssueWritRequest) (*writv1.IssueWritResponse, error) {
	ref, err := lease.RefFromProto(r.GetResource(), r.GetToken())
	if err != nil {
		return nil, err
	}
	value, err := f.node.state.Do(ctx, lease.Inspect{Caller: f.node.caller(r.GetInstance()), Ref: ref})
	if err != nil {
		return nil, err
	}
	info, _ := value.(lease.Info)
	writ, err := f.node.state.Sign(fence.Writ{
		Resource: string(info.Resource), Holder: string(info.Holder.Principal), Region: info.Holder.Region,
		Token: info.Token, IssuedAt: info.GrantedAt, RequestID: info.RequestID,
	})
	if err != nil {
		return nil, err
	}
	return &writv1.IssueWritResponse{Writ: writ}, nil
}
