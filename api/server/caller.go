package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Metadata keys.
const (
	// keyForwarded names the principal that a node asks for. It is the hop marker as well: a request that carries it is
	// decided where it arrives, or refused.
	keyForwarded = "writ-forwarded-principal"
	// keyGateway names the principal of an HTTP caller, on the way from the HTTP server to the gRPC server in the same
	// process. It means nothing on any other connection.
	keyGateway = "writ-gateway-principal"
	// keyInsecure lets callers without TLS say who they are.
	keyInsecure = "writ-principal"
	// keyTraceparent is the W3C trace context of a call. Anybody may give one: it only says which spans belong together.
	keyTraceparent = "traceparent"
)

// insecurePrincipal is who callers without TLS are if they do not say.
const insecurePrincipal lease.Principal = "insecure"

// caller is who a request is decided for.
type caller struct {
	principal lease.Principal
	// direct is who is at the other end of the connection; another one than principal if forwarded.
	direct    lease.Principal
	forwarded bool
	gateway   bool
}

type callerKey struct{}

// callerOf answers the caller that authenticate has found.
func callerOf(ctx context.Context) *caller {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		panic("server: a handler ran without authentication")
	}
	return c
}

// authenticator finds out who asks.
type authenticator struct {
	insecure bool
	nodes    *nodeSet
}

// authenticate is an auth.AuthFunc.
func (a *authenticator) authenticate(ctx context.Context) (context.Context, error) {
	c, err := a.connected(ctx)
	if err != nil {
		return nil, err
	}
	if forwarded := metadata.ValueFromIncomingContext(ctx, keyForwarded); len(forwarded) > 0 {
		if e := a.mayForward(c); e != nil {
			e.Field = keyForwarded
			return nil, e
		}
		if len(forwarded) > 1 {
			return nil, lease.Invalid(keyForwarded, "is given more than once", "name one principal")
		}
		if c.principal, err = identity.ParsePrincipal(forwarded[0]); err != nil {
			return nil, err
		}
		c.forwarded = true
	}
	return context.WithValue(ctx, callerKey{}, c), nil
}

// connected answers who is at the other end of the connection.
func (a *authenticator) connected(ctx context.Context) (*caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, lease.Errorf(lease.ReasonUnauthenticated, "the connection is not known")
	}
	c := &caller{}
	switch info := p.AuthInfo.(type) {
	case identity.AuthInfo:
		if info.Err != nil {
			return nil, info.Err
		}
		c.principal = info.Principal
	case inProcess:
		names := metadata.ValueFromIncomingContext(ctx, keyGateway)
		if len(names) != 1 {
			return nil, lease.Errorf(lease.ReasonUnauthenticated, "the HTTP server named %d callers", len(names))
		}
		c.principal, c.gateway = lease.Principal(names[0]), true
	default:
		if !a.insecure {
			return nil, lease.Errorf(lease.ReasonUnauthenticated, "the connection carries no client certificate")
		}
		var err error
		if c.principal, err = insecureCaller(metadata.ValueFromIncomingContext(ctx, keyInsecure)); err != nil {
			return nil, err
		}
	}
	c.direct = c.principal
	return c, nil
}

func insecureCaller(names []string) (lease.Principal, error) {
	if len(names) == 0 {
		return insecurePrincipal, nil
	}
	return identity.ParsePrincipal(names[0])
}

// mayForward says why c may not ask for others, nor send renewals of others; nil if it may. A node that has just been started
// does not know the others: that passes, so it is not called a refusal.
func (a *authenticator) mayForward(c *caller) *lease.Error {
	switch {
	case !c.gateway && (a.insecure || a.nodes.has(c.direct)):
		return nil
	case !c.gateway && a.nodes.unread():
		return lease.Errorf(lease.ReasonNoQuorum, "is for nodes, and this node has not read yet which nodes the quorum has")
	}
	return lease.Errorf(lease.ReasonDenied, "is for nodes, and %s is not a node of this quorum as far as this node knows", c.direct)
}

// inProcess marks the connection from this process's own HTTP server. No connection from outside can carry it: only
// serverCredentials hands it out, and only to connections of the in-memory listener.
type inProcess struct{ credentials.CommonAuthInfo }

func (inProcess) AuthType() string { return "in-process" }

// inMemory marks connections of the in-memory listener.
type inMemory struct{ net.Conn }

// inMemoryListener marks what it accepts.
type inMemoryListener struct{ net.Listener }

func (l inMemoryListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return inMemory{conn}, nil
}

// serverCredentials lets the in-memory connection in, and leaves every other one to outside.
type serverCredentials struct {
	credentials.TransportCredentials
}

func (c serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn, ok := raw.(inMemory); ok {
		return conn, inProcess{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
	}
	return c.TransportCredentials.ServerHandshake(raw)
}

func (c serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{c.TransportCredentials.Clone()}
}

// nodeSet knows the principals of the quorum's nodes.
type nodeSet struct {
	quorum Quorum
	clock  clock.Clock
	mu     sync.Mutex // one refresh at a time
	known  atomic.Pointer[knownNodes]
}

type knownNodes struct {
	principals map[lease.Principal]bool
	at         clock.Instant
}

const (
	// nodesFresh is how long a removed node may still speak for others.
	nodesFresh = time.Second
	// nodesRetry bounds how often strangers can make this node ask the quorum.
	nodesRetry = 20 * time.Millisecond
)

func (s *nodeSet) has(p lease.Principal) bool {
	known := s.known.Load()
	age := nodesFresh
	if known != nil {
		age = s.clock.Now().Sub(known.at)
	}
	if age >= nodesFresh || (!known.principals[p] && age >= nodesRetry) {
		known = s.refresh(known)
	}
	return known.principals[p]
}

// unread says that this node knows no node of the quorum, not even itself.
func (s *nodeSet) unread() bool {
	known := s.known.Load()
	return known == nil || len(known.principals) == 0
}

func (s *nodeSet) refresh(stale *knownNodes) *knownNodes {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known.Load(); known != stale {
		return known
	}
	known := &knownNodes{principals: make(map[lease.Principal]bool), at: s.clock.Now()}
	for _, n := range s.quorum.Nodes() {
		if n.Principal != "" {
			known.principals[n.Principal] = true
		}
	}
	s.known.Store(known)
	return known
}
