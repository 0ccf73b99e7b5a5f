package leasetest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// Network connects clients to nodes in memory. It is safe for concurrent use.
type Network struct {
	mu    sync.Mutex
	nodes map[string]*bufconn.Listener // guarded by mu; by name
}

// NewNetwork makes a network without nodes.
func NewNetwork() *Network { return &Network{nodes: make(map[string]*bufconn.Listener)} }

const networkBuffer = 256 << 10

// Start makes a node reachable under its name. A node that was stopped may be started again.
func (w *Network) Start(n *Node) {
	l := bufconn.Listen(networkBuffer)
	w.mu.Lock()
	w.nodes[n.name] = l
	w.mu.Unlock()
	n.Serve(l)
}

// Option makes a client dial through this network. Its endpoints are "passthrough:///" and the names of nodes, or any
// host:port whose node has that name.
func (w *Network) Option() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) {
		w.mu.Lock()
		l := w.nodes[name]
		w.mu.Unlock()
		if l == nil {
			return nil, fmt.Errorf("leasetest: no node %q", name)
		}
		return l.DialContext(ctx)
	})
}

// gate lets bytes pass or holds them back.
type gate struct {
	mu    sync.Mutex
	open  chan struct{}           // guarded by mu; closed while bytes may pass
	conns map[*gatedConn]struct{} // guarded by mu
}

func newGate() *gate {
	g := &gate{open: make(chan struct{}), conns: make(map[*gatedConn]struct{})}
	close(g.open)
	return g
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if !open {
			g.open = make(chan struct{})
		}
	default:
		if open {
			close(g.open)
		}
	}
}

func (g *gate) closeAll() {
	g.mu.Lock()
	conns := slices.Collect(maps.Keys(g.conns))
	g.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // which takes itself off the list
	}
}

// wait returns when bytes may pass, or false when the connection is closed.
func (g *gate) wait(closed <-chan struct{}) bool {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return true
	case <-closed:
		return false
	}
}

type gatedListener struct {
	net.Listener
	gate *gate
}

func (l gatedListener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &gatedConn{Conn: inner, gate: l.gate, closed: make(chan struct{})}
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	l.gate.conns[c] = struct{}{}
	return c, nil
}

// gatedConn is the server's side of a connection.
type gatedConn struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}
}

func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && !c.gate.wait(c.closed) {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *gatedConn) Write(p []byte) (int, error) {
	if !c.gate.wait(c.closed) {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.gate.mu.Lock()
		defer c.gate.mu.Unlock()
		delete(c.gate.conns, c)
	})
	return c.Conn.Close()
}
