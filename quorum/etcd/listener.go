package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
)

const (
	headerTimeout = 5 * time.Second
	// bodyTimeout bounds one request's body; a snapshot is the largest.
	bodyTimeout = 5 * time.Minute
)

// peerServer accepts the peers of a member. It is the member's only listener.
type peerServer struct {
	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler] // nil until open
	log      hclog.Logger
	serving  sync.WaitGroup // the accept loop and every request

	mu      sync.Mutex
	closed  bool             // guarded by mu
	streams map[types.ID]int // open message streams by the peer that opened them; guarded by mu
}

// listenPeers binds the peer port, and refuses whoever calls until open: members that begin at the same time ask each
// other who is a member, and would otherwise wait for each other.
func listenPeers(cfg Config) (*peerServer, error) {
	u, err := url.Parse(cfg.ListenPeerURL)
	if err != nil {
		return nil, invalid("peer.listen", "%w", err)
	}
	control := net.ListenConfig{Control: userTimeout(rafthttp.ConnWriteTimeout)}
	inner, err := control.Listen(context.Background(), "tcp", u.Host)
	if err != nil {
		cause := err
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			cause = op.Err
		}
		if sys := (*os.SyscallError)(nil); errors.As(cause, &sys) {
			cause = sys.Err
		}
		return nil, &ConfigError{Field: "peer.listen", Err: err, Reason: fmt.Sprintf(
			"%v (%s): choose a free address of this machine, or stop what uses it", cause, u.Host)}
	}
	p := &peerServer{log: cfg.Logger, streams: map[types.ID]int{}}
	p.listener = &deadlineListener{inner}
	if cfg.PeerTLS != nil {
		config, err := serverTLS(cfg)
		if err != nil {
			_ = inner.Close()
			return nil, err
		}
		p.listener = tls.NewListener(p.listener, config)
	}
	p.server = &http.Server{
		Handler:           http.HandlerFunc(p.serveHTTP),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		ErrorLog:          cfg.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		// Peers speak HTTP/1.1; without this a client that offers HTTP/2 would get it.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	p.serving.Go(func() {
		if err := p.server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("peer listener ended", "error", err)
		}
	})
	return p, nil
}

func (p *peerServer) addr() net.Addr { return p.listener.Addr() }

// open begins to pass requests to handler.
func (p *peerServer) open(handler http.Handler) { p.handler.Store(&handler) }

// close ends the listener and every connection. It waits for the requests unless abandon is set.
func (p *peerServer) close(abandon bool) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.server.Close()
	_ = p.listener.Close()
	if !abandon {
		p.serving.Wait()
	}
}

func (p *peerServer) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.begin() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	defer p.serving.Done()
	handler := p.handler.Load()
	if handler == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	// etcd panics over addresses it cannot parse.
	if urls := r.Header.Get("X-PeerURLs"); urls != "" {
		if _, err := types.NewURLs(strings.Split(urls, ",")); err != nil {
			http.Error(w, "invalid X-PeerURLs", http.StatusBadRequest)
			return
		}
	}
	if strings.HasPrefix(r.URL.Path, rafthttp.RaftStreamPrefix+"/") {
		if from, err := types.IDFromString(r.Header.Get("X-Server-From")); err == nil {
			p.count(from, 1)
			defer p.count(from, -1)
		}
	}
	(*handler).ServeHTTP(w, r)
}

// begin counts a request in, unless close has begun to wait for the others.
func (p *peerServer) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.serving.Add(1)
	return true
}

func (p *peerServer) count(peer types.ID, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams[peer] += n; p.streams[peer] == 0 {
		delete(p.streams, peer)
	}
}

// connected says whether peer has a message stream open to this member. etcd writes to a stream at least every two
// seconds, and a write that is not acknowledged for five ends it.
func (p *peerServer) connected(peer uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.streams[types.ID(peer)] > 0
}

// deadlineListener gives every read and write of a connection a deadline, as etcd's own listener does.
type deadlineListener struct{ net.Listener }

func (l *deadlineListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &deadlineConn{conn}, nil
}

type deadlineConn struct{ net.Conn }

func (c *deadlineConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(rafthttp.ConnReadTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *deadlineConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(rafthttp.ConnWriteTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// tlsInfo is how this member dials its peers.
func tlsInfo(cfg Config) transport.TLSInfo {
	if cfg.PeerTLS == nil {
		return transport.TLSInfo{}
	}
	return transport.TLSInfo{
		CertFile:       cfg.PeerTLS.CertFile,
		KeyFile:        cfg.PeerTLS.KeyFile,
		TrustedCAFile:  cfg.PeerTLS.CAFile,
		ClientCertAuth: true,
		MinVersion:     tls.VersionTLS13,
	}
}

// serverTLS is how this member accepts its peers.
func serverTLS(cfg Config) (*tls.Config, error) {
	for _, file := range []struct{ field, path string }{
		{"peer.tls.ca", cfg.PeerTLS.CAFile}, {"peer.tls.cert", cfg.PeerTLS.CertFile}, {"peer.tls.key", cfg.PeerTLS.KeyFile},
	} {
		if _, err := os.ReadFile(file.path); err != nil {
			return nil, invalid(file.field, "%w", err)
		}
	}
	// etcd takes a file without a certificate for an authority that signed nobody.
	authorities, err := os.ReadFile(cfg.PeerTLS.CAFile)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(authorities) {
		return nil, invalid("peer.tls.ca", "%s holds no certificate in PEM", cfg.PeerTLS.CAFile)
	}
	config, err := tlsInfo(cfg).ServerConfig()
	if err != nil {
		return nil, invalid("peer.tls", "%s, %s, %s: %w", cfg.PeerTLS.CAFile, cfg.PeerTLS.CertFile, cfg.PeerTLS.KeyFile, err)
	}
	config.NextProtos = []string{"http/1.1"}
	allowed := slices.Clone(cfg.PeerTLS.AllowedNames)
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("peer shows no certificate")
		}
		return checkPeerName(state.PeerCertificates[0], allowed)
	}
	return config, nil
}

// checkPeerName answers nil if cert has one of the allowed names, or if any will do.
func checkPeerName(cert *x509.Certificate, allowed []string) error {
	if len(allowed) == 0 {
		return nil
	}
	names := append([]string{cert.Subject.CommonName}, cert.DNSNames...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, name := range names {
		if name != "" && slices.Contains(allowed, name) {
			return nil
		}
	}
	return fmt.Errorf("peer certificate %q has none of the allowed names", cert.Subject)
}
