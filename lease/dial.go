package lease

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// dialEndpoint is one node as the client sees it.
type dialEndpoint struct {
	address string
	conn    *grpc.ClientConn
	lease   writv1.LeaseServiceClient
	calls   *dialPipeline
	fence   writv1.FenceServiceClient
	cluster writv1.ClusterServiceClient

	rtt      atomic.Int64 // smoothed round trip in ns, 0 if not measured
	down     atomic.Bool  // written under the set's mu
	failures atomic.Int32 // since it last answered a call; written under the set's mu

	// Guarded by the set's mu.
	name    string // as it calls itself; empty while that is not known
	region  string
	renewed clock.Instant // when the last renewal went there
	ready   bool          // says that it can serve
	decides bool          // says that it is the coordinator
	probeAt clock.Instant // when to look again at a node that is down or not ready
}

// roundTrip returns the measured round trip, 0 if unknown.
func (e *dialEndpoint) roundTrip() time.Duration { return time.Duration(e.rtt.Load()) }

// dialSet orders the nodes by how much the client likes to ask them.
type dialSet struct {
	clock  clock.Clock
	region string
	logger *slog.Logger
	all    []*dialEndpoint

	mu      sync.Mutex
	order   atomic.Pointer[[]*dialEndpoint] // written under mu; never empty
	probed  clock.Instant                   // guarded by mu; when all nodes were last looked at
	refresh clock.Instant                   // guarded by mu; when to look at all of them again
	kick    chan struct{}                   // wakes the prober
}

const (
	// A node that failed is asked last, and probed again after this time, doubling up to the most.
	dialFirstPenalty = 500 * time.Millisecond
	dialMostPenalty  = 10 * time.Second
	// A node that says that it cannot serve is probed again after this time.
	dialNotReady = 2 * time.Second
	// A node of the own region is preferred unless it is farther than this factor and this span beyond the nearest.
	dialRegionPercent = 150
	dialRegionSpan    = 2 * time.Millisecond
	// Flow control windows, which are what a node offers too. Where they are not given, gRPC finds them out, by a ping and its
	// answer for nearly every message that arrives.
	dialStreamWindow = 1 << 20
	dialConnWindow   = 8 << 20
	// The client stays where it is unless another node is nearer than by this factor and span.
	dialStayPercent = 125
	dialStaySpan    = time.Millisecond
	// By how much farther than about as near the coordinator may seem before the client leaves it for another node.
	dialDecidesSpan = 25 * time.Millisecond
)

// newDialSet prepares a connection to each endpoint; nothing is sent yet.
func newDialSet(cfg Config, creds credentials.TransportCredentials) (*dialSet, error) {
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0), // a lease does not wait for a handshake
		grpc.WithUserAgent("writ-go"),
		grpc.WithInitialWindowSize(dialStreamWindow),
		grpc.WithInitialConnWindowSize(dialConnWindow),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
	}, cfg.DialOptions...)
	s := &dialSet{clock: cfg.Clock, region: cfg.Region, logger: cfg.Logger, kick: make(chan struct{}, 1)}
	for _, address := range cfg.Endpoints {
		target := address
		if !strings.Contains(target, "://") {
			target = "passthrough:///" + target // the dialer looks names up for each connection
		}
		conn, err := grpc.NewClient(target, options...)
		if err != nil {
			s.close()
			return nil, Invalid("Endpoints", "cannot be used: "+err.Error(), "use host:port")
		}
		leases := writv1.NewLeaseServiceClient(conn)
		s.all = append(s.all, &dialEndpoint{
			address: address, conn: conn, ready: true,
			lease:   leases,
			calls:   newDialPipeline(leases, cfg.Clock, s.decided),
			fence:   writv1.NewFenceServiceClient(conn),
			cluster: writv1.NewClusterServiceClient(conn),
		})
	}
	order := slices.Clone(s.all)
	s.order.Store(&order)
	return s, nil
}

func (s *dialSet) close() {
	for _, e := range s.all {
		e.calls.close()
		_ = e.conn.Close() // its only error is that it was closed before
	}
}

// dialTour asks every node once, the best first, before it asks one again.
type dialTour struct {
	set   *dialSet
	order []*dialEndpoint
	asked int // since the last success
	said  []dialSaid
}

// dialSaid is the newest failure of a node in a tour.
type dialSaid struct {
	node *dialEndpoint
	err  error
}

func (s *dialSet) tour() *dialTour { return &dialTour{set: s} }

// next returns whom to ask now.
func (t *dialTour) next() *dialEndpoint {
	if t.round() {
		t.order = *t.set.order.Load()
	}
	e := t.order[t.asked%len(t.order)]
	t.asked++
	return e
}

// round tells whether every node has been asked as often as the others.
func (t *dialTour) round() bool { return t.asked%len(t.set.all) == 0 }

// reset begins anew with the best node.
func (t *dialTour) reset() { t.asked, t.said = 0, nil }

// note remembers how the node that was asked last has failed.
func (t *dialTour) note(err error) {
	if err == nil || t.asked == 0 { // it had worked for a while
		return
	}
	e := t.order[(t.asked-1)%len(t.order)]
	t.said = append(slices.DeleteFunc(t.said, func(s dialSaid) bool { return s.node == e }), dialSaid{e, err})
}

// others tells what nodes said that is not what is told anyway; empty if there is nothing else to tell.
func (t *dialTour) others(told error) string {
	var text strings.Builder
	for _, s := range t.said {
		if told == nil || s.err.Error() != told.Error() {
			fmt.Fprintf(&text, "; %s: %v", s.node.address, s.err)
		}
	}
	return text.String()
}

// renewVia returns where to send a renewal: the best node at first, and where none has gone for longest when that was not
// answered. The messages of one instant go together.
func (s *dialSet) renewVia(attempt int, sent clock.Instant) *dialEndpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := *s.order.Load()
	via := order[0]
	if attempt > 1 {
		for _, e := range order {
			if e.renewed == sent {
				return e
			}
			if ra, rb := s.rank(e), s.rank(via); ra < rb || ra == rb && e.renewed < via.renewed {
				via = e
			}
		}
	}
	via.renewed = sent
	return via
}

// failed notes that a node did not answer or could not serve. It is asked last until a probe finds it well.
func (s *dialSet) failed(e *dialEndpoint, err error) {
	if len(s.all) == 1 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	if e.down.Load() && now.Before(e.probeAt) {
		return // one failure is seen by many calls
	}
	if !e.down.Load() {
		s.logger.Info("a node does not serve; asking others first", "endpoint", e.address, "error", err)
	}
	e.down.Store(true)
	e.probeAt = now.Add(min(dialFirstPenalty<<min(e.failures.Load(), 8), dialMostPenalty))
	e.failures.Add(1)
	s.sort()
	s.wake()
}

// wake has the prober look whose turn it is.
func (s *dialSet) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// answered notes that a node serves. It is called for each answer, so the common case is two loads.
func (s *dialSet) answered(e *dialEndpoint) {
	if !e.down.Load() && e.failures.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.failures.Store(0)
	s.recover(e)
	s.sort()
}

// watched tells whether the prober has to look at a node before the next refresh. The caller holds mu.
func (e *dialEndpoint) watched() bool { return e.down.Load() || !e.ready }

// recover ends a penalty. A node that only answers probes keeps its failures, so that the next penalty is longer. The
// caller holds mu and sorts.
func (s *dialSet) recover(e *dialEndpoint) {
	if e.down.Load() {
		s.logger.Info("a node serves again", "endpoint", e.address)
	}
	e.down.Store(false)
}

// dialFound is what a node says about itself. All that is empty of one that does not tell.
type dialFound struct {
	name    string
	region  string
	ready   bool
	decides bool // it is the coordinator
}

// measured takes in what a probe found.
func (s *dialSet) measured(e *dialEndpoint, rtt time.Duration, found dialFound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := e.roundTrip(); old > 0 {
		rtt = (3*old + rtt) / 4
	}
	e.rtt.Store(int64(max(1, rtt)))
	e.name, e.region, e.ready, e.decides = found.name, found.region, found.ready, found.decides
	s.recover(e)
	e.probeAt = s.clock.Now().Add(dialNotReady)
	s.sort()
}

// decided takes in who decides, as a node says. One that was not ready when it was looked at is looked at again at once, and if
// none is known to call itself so, all are, unless that has just been done.
func (s *dialSet) decided(name string) {
	if len(s.all) == 1 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, known := s.clock.Now(), false
	for _, e := range s.all {
		e.decides = e.name == name
		known = known || e.decides
		if e.decides && !e.ready && !e.down.Load() {
			e.probeAt = now
			s.wake()
		}
	}
	s.sort()
	if next := max(now, s.probed.Add(dialRetry)); !known && next < s.refresh {
		s.refresh = next
		s.wake()
	}
}

// sort orders the nodes anew. The caller holds mu.
func (s *dialSet) sort() {
	order := slices.Clone(s.all)
	current := (*s.order.Load())[0]
	slices.SortStableFunc(order, func(a, b *dialEndpoint) int {
		if c := cmp.Compare(s.rank(a), s.rank(b)); c != 0 {
			return c
		}
		if a.down.Load() {
			return cmp.Compare(a.probeAt, b.probeAt)
		}
		return cmp.Compare(a.distance(), b.distance())
	})
	// Among the best ones, those of the own region come first if they are about as near; then the present one stays if
	// it is one of these.
	best := slices.IndexFunc(order, func(e *dialEndpoint) bool { return s.rank(e) > s.rank(order[0]) })
	if best < 0 {
		best = len(order)
	}
	if s.rank(order[0]) < dialRankDown {
		nearest := order[0].distance()
		s.prefer(order[:best], func(e *dialEndpoint) bool {
			return s.region != "" && e.region == s.region && e.distance() <= nearest/100*dialRegionPercent+dialRegionSpan
		})
		first := order[0]
		s.prefer(order[:best], func(e *dialEndpoint) bool {
			return e == current && e.distance() <= first.distance()/100*dialStayPercent+dialStaySpan &&
				(e.region == s.region || first.region != s.region)
		})
		// A node that is about as near and decides itself saves the hop to the one that does. Once it is asked, it is left only
		// for one that is far nearer: what makes it seem farther is mostly load, its own or this client's, and the way by another
		// node adds to that.
		s.prefer(order[:best], func(e *dialEndpoint) bool {
			near := nearest/100*dialRegionPercent + dialRegionSpan
			if e == current {
				near += dialDecidesSpan
			}
			return e.decides && e.distance() <= near
		})
	}
	s.order.Store(&order)
}

// prefer moves the first node that matches to the front.
func (s *dialSet) prefer(order []*dialEndpoint, match func(*dialEndpoint) bool) {
	if i := slices.IndexFunc(order, match); i > 0 {
		e := order[i]
		copy(order[1:i+1], order[:i])
		order[0] = e
	}
}

const dialRankDown = 2

// rank puts nodes that serve before those that say they cannot, and these before those that do not answer.
func (s *dialSet) rank(e *dialEndpoint) int {
	switch {
	case e.down.Load():
		return dialRankDown
	case !e.ready:
		return 1
	}
	return 0
}

// distance is the round trip; one that was never measured is farther than any.
func (e *dialEndpoint) distance() time.Duration {
	if rtt := e.roundTrip(); rtt > 0 {
		return rtt
	}
	return time.Hour
}
