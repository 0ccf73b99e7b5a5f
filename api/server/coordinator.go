package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	"github.com/writ-io/writ/api/server/identity"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/quorum"
)

// view is who decides, as far as this node knows. It never changes; a new one takes its place.
type view struct {
	node quorum.Node // Name is empty when none is known
	self bool
	link *link // to node; nil if there is no other node to call
	err  error // why link is nil although there is a node
	// changed is closed when another view has taken this one's place.
	changed chan struct{}
}

// link is the way to another node while it is the coordinator.
type link struct {
	addr    string
	lease   writv1.LeaseServiceClient
	fence   writv1.FenceServiceClient
	cluster writv1.ClusterServiceClient
	region  writv1.RegionServiceClient
	audit   writv1.AuditServiceClient
	peer    writv1.PeerServiceClient
	// over ends when a different node has become coordinator: what is under way to this one is then abandoned.
	over   context.Context
	cancel context.CancelFunc
}

// tracker follows the coordinator and keeps the connections to other nodes.
type tracker struct {
	quorum Quorum
	dial   []grpc.DialOption
	view   atomic.Pointer[view]

	// Belongs to the goroutine of run, and to close after it has ended.
	links map[string]*link // by node name

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // guarded by mu; by API address
	closed bool                        // guarded by mu
}

// Flow control windows of connections between nodes. The default of 64 KiB takes several round trips for one message of
// renewals, and nodes are far apart.
const (
	streamWindowBytes = 1 << 20
	connWindowBytes   = 8 << 20
)

func newTracker(q Quorum, id *identity.Source, maxMessage int, calls stats.Handler) *tracker {
	creds := insecure.NewCredentials()
	if id != nil {
		creds = id.ClientCredentials()
	}
	t := &tracker{quorum: q, links: make(map[string]*link), conns: make(map[string]*grpc.ClientConn)}
	t.dial = []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// A coordinator that was cut off is found again quickly, and a dead connection is noticed.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
	}
	if calls != nil {
		t.dial = append(t.dial, grpc.WithStatsHandler(calls))
	}
	t.view.Store(&view{changed: make(chan struct{})})
	return t
}

// current answers the present view.
func (t *tracker) current() *view { return t.view.Load() }

// run follows the coordinator until ctx ends.
func (t *tracker) run(ctx context.Context) {
	again := time.NewTicker(lastPause) // for changes that nobody tells of
	defer again.Stop()
	for {
		node, self, changed := t.quorum.Coordinator()
		t.adopt(node, self)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again.C:
		}
	}
}

func (t *tracker) adopt(node quorum.Node, self bool) {
	was := t.view.Load()
	if was.node.Name == node.Name && was.node.APIAddress == node.APIAddress && was.self == self {
		return
	}
	v := &view{node: node, self: self, changed: make(chan struct{})}
	switch {
	case node.Name == "" || self:
	case node.APIAddress == "":
		v.err = errors.New("it has not told its address yet")
	default:
		v.link, v.err = t.linkTo(node)
	}
	t.view.Store(v)
	close(was.changed)
	// Whoever is called while nobody is known to decide may still answer; once another one decides, waiting is over.
	if node.Name != "" {
		for name, l := range t.links {
			if l != v.link {
				l.cancel()
				delete(t.links, name)
			}
		}
		t.dropStrangers(node)
	}
}

func (t *tracker) linkTo(node quorum.Node) (*link, error) {
	if l := t.links[node.Name]; l != nil && l.addr == node.APIAddress {
		return l, nil
	}
	conn, err := t.connection(node.APIAddress)
	if err != nil {
		return nil, err
	}
	conn.ResetConnectBackoff()
	conn.Connect()
	l := &link{
		addr:    node.APIAddress,
		lease:   writv1.NewLeaseServiceClient(conn),
		fence:   writv1.NewFenceServiceClient(conn),
		cluster: writv1.NewClusterServiceClient(conn),
		region:  writv1.NewRegionServiceClient(conn),
		audit:   writv1.NewAuditServiceClient(conn),
		peer:    writv1.NewPeerServiceClient(conn),
	}
	l.over, l.cancel = context.WithCancel(context.Background())
	if old := t.links[node.Name]; old != nil {
		old.cancel() // the node has moved to another address
	}
	t.links[node.Name] = l
	return l, nil
}

// connection answers the connection to the node at an address, which all calls of it share. It is closed when no node has that
// address any more.
func (t *tracker) connection(addr string) (*grpc.ClientConn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if conn := t.conns[addr]; conn != nil {
		return conn, nil
	}
	if t.closed {
		return nil, errDraining
	}
	conn, err := grpc.NewClient(addr, t.dial...)
	if err != nil {
		return nil, err
	}
	t.conns[addr] = conn
	return conn, nil
}

// dropStrangers closes connections to addresses that no node has any more.
func (t *tracker) dropStrangers(coordinator quorum.Node) {
	known := map[string]bool{coordinator.APIAddress: true}
	for _, n := range t.quorum.Nodes() {
		known[n.APIAddress] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, conn := range t.conns {
		if !known[addr] {
			_ = conn.Close()
			delete(t.conns, addr)
		}
	}
}

// close ends everything that is under way to other nodes. run must have ended.
func (t *tracker) close() {
	for _, l := range t.links {
		l.cancel()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, conn := range t.conns {
		_ = conn.Close()
	}
}
