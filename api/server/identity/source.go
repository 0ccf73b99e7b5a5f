package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// checkEvery is how often the files are looked at, at most.
const checkEvery = time.Second

// expiryWarning is how long before its end a certificate is worth a warning when it is loaded.
const expiryWarning = 24 * time.Hour

// Source is an identity that follows its files. It is safe for concurrent use and has no goroutine: it looks at the files
// when it is asked for what is in them.
type Source struct {
	files  Files
	logger hclog.Logger
	clock  clock.Clock
	now    atomic.Pointer[material] // never nil once opened

	mu      sync.Mutex    // guards what follows, and loading
	checked clock.Instant // when the files were last looked at
	failed  string        // the failure that was logged last; empty after a success

	refusals rate.Sometimes // keeps a port scan from filling the log
}

// Open reads the files. It fails where they cannot be used, with an error that names the file and the remedy.
func Open(files Files, logger hclog.Logger) (*Source, error) {
	return open(files, logger, clock.Monotonic())
}

func open(files Files, logger hclog.Logger, clk clock.Clock) (*Source, error) {
	if err := files.Validate(); err != nil {
		return nil, err
	}
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	s := &Source{files: files, logger: logger, clock: clk, refusals: rate.Sometimes{First: 20, Interval: time.Second}}
	m, err := files.read(nil, clk.Wall())
	if err != nil {
		return nil, err
	}
	s.adopt(m)
	s.checked = clk.Now()
	return s, nil
}

func (s *Source) adopt(m *material) {
	s.now.Store(m)
	left := m.leaf().NotAfter.Sub(s.clock.Wall())
	if left < expiryWarning {
		s.logger.Warn("certificate expires soon: renew it", "file", s.files.CertFile, "not_after", m.leaf().NotAfter.UTC())
	}
}

// current answers what the files hold, looking at them if the last look was a second ago or longer.
func (s *Source) current() *material {
	// Whoever finds a look under way goes on with what there is.
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		if now := s.clock.Now(); now.Sub(s.checked) >= checkEvery {
			s.checked = now
			_ = s.reload() // logged
		}
	}
	return s.now.Load()
}

// Reload looks at the files now. It returns why a change was not adopted.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = s.clock.Now()
	return s.reload()
}

func (s *Source) reload() error {
	was := s.now.Load()
	m, err := s.files.read(was, s.clock.Wall())
	if err != nil {
		if text := err.Error(); text != s.failed {
			s.failed = text
			s.logger.Error("certificate files are not usable: the old ones stay in use", "error", err)
		}
		return err
	}
	s.failed = ""
	if m != was {
		s.adopt(m)
		s.logger.Info("certificate files reloaded", "file", s.files.CertFile, "not_after", m.leaf().NotAfter.UTC())
	}
	return nil
}

// Principal answers who this identity is. Errors: UNAUTHENTICATED where the certificate names nobody.
func (s *Source) Principal() (lease.Principal, error) { return Principal(s.current().leaf()) }

// NotAfter answers when the certificate in use expires.
func (s *Source) NotAfter() time.Time { return s.now.Load().leaf().NotAfter }

// CheckNode checks that other nodes, with the same authorities, will accept this identity as a server and as a client:
// nodes are both to each other.
func (s *Source) CheckNode() error {
	m := s.current()
	if _, err := Principal(m.leaf()); err != nil {
		return fmt.Errorf("certificate %s: %w", s.files.CertFile, err)
	}
	intermediates := x509.NewCertPool()
	for _, der := range m.pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", s.files.CertFile, err)
		}
		intermediates.AddCert(cert)
	}
	for usage, name := range map[x509.ExtKeyUsage]string{
		x509.ExtKeyUsageServerAuth: "server", x509.ExtKeyUsageClientAuth: "client",
	} {
		_, err := m.leaf().Verify(x509.VerifyOptions{
			Roots: m.pool, Intermediates: intermediates, CurrentTime: s.clock.Wall(), KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return fmt.Errorf("certificate %s is no %s certificate for the authorities in %s: %w: nodes need both usages, serverAuth and clientAuth",
				s.files.CertFile, name, s.files.CAFile, err)
		}
	}
	return nil
}

// ServerConfig is for listeners: TLS 1.3, this identity, and clients treated as auth says. protocols are offered by ALPN.
func (s *Source) ServerConfig(auth tls.ClientAuthType, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := s.current()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{m.pair},
				ClientAuth:   auth,
				ClientCAs:    m.pool,
				NextProtos:   protocols,
				// A resumed session would not be verified against the authorities of today.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// ClientConfig is for one connection to host, a DNS name or an IP address: TLS 1.3, this identity, and a server that the
// authorities vouch for. Make a new one for each connection, so that changed files count.
func (s *Source) ClientConfig(host string) *tls.Config {
	m := s.current()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{m.pair},
		RootCAs:      m.pool,
		ServerName:   host,
	}
}
