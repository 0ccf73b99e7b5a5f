package identity_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/lease"
)

func newCA(t *testing.T) *identity.CA {
	t.Helper()
	ca, err := identity.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *identity.CA, subject identity.Subject) identity.Files {
	t.Helper()
	files, err := ca.Issue(subject)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func open(t *testing.T, files identity.Files, logger hclog.Logger) *identity.Source {
	t.Helper()
	source, err := identity.Open(files, logger)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

var serverSubject = identity.Subject{Name: "server", SPIFFE: "spiffe://test/node/a", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}

func TestPrincipalOfCertificate(t *testing.T) {
	id := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, c := range []struct {
		name    string
		cert    x509.Certificate
		want    lease.Principal
		problem string
	}{
		{"SPIFFE ID", x509.Certificate{URIs: []*url.URL{id("spiffe://example/app/billing")}}, "spiffe://example/app/billing", ""},
		{"SPIFFE before DNS", x509.Certificate{DNSNames: []string{"a.example"}, URIs: []*url.URL{id("spiffe://example/x")}}, "spiffe://example/x", ""},
		{"first SPIFFE", x509.Certificate{URIs: []*url.URL{id("https://example/x"), id("spiffe://example/1"), id("spiffe://example/2")}}, "spiffe://example/1", ""},
		{"first DNS", x509.Certificate{DNSNames: []string{"cron.example", "b.example"}}, "cron.example", ""},
		{"foreign URI does not count", x509.Certificate{URIs: []*url.URL{id("https://example/x")}, DNSNames: []string{"a.example"}}, "a.example", ""},
		{"nothing", x509.Certificate{}, "", "neither a SPIFFE ID nor a DNS name"},
		{"unprintable", x509.Certificate{DNSNames: []string{"a\nb"}}, "", "not printable ASCII"},
		{"too long", x509.Certificate{DNSNames: []string{strings.Repeat("a", 3000)}}, "", "3000 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := identity.Principal(&c.cert)
			if got != c.want {
				t.Errorf("principal %q, want %q", got, c.want)
			}
			if c.problem == "" && err != nil || c.problem != "" && (lease.ReasonOf(err) != lease.ReasonUnauthenticated || !strings.Contains(err.Error(), c.problem)) {
				t.Errorf("error %v, want UNAUTHENTICATED with %q", err, c.problem)
			}
		})
	}
}

func TestOpenRefusesUnusableFiles(t *testing.T) {
	ca := newCA(t)
	good := issue(t, ca, serverSubject)
	other := issue(t, ca, identity.Subject{Name: "other", DNS: []string{"other.example"}})
	expired := issue(t, ca, identity.Subject{
		Name: "expired", DNS: []string{"a.example"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	early := issue(t, ca, identity.Subject{
		Name: "early", DNS: []string{"a.example"}, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
	})
	open := issue(t, ca, identity.Subject{Name: "open", DNS: []string{"a.example"}})
	if err := os.Chmod(open.KeyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		files identity.Files
		want  []string
	}{
		{"no CA named", identity.Files{CertFile: good.CertFile, KeyFile: good.KeyFile}, []string{"tls.ca_file"}},
		{"missing file", identity.Files{CAFile: good.CAFile, CertFile: "/nowhere/cert.pem", KeyFile: good.KeyFile}, []string{"/nowhere/cert.pem"}},
		{"empty CA", identity.Files{CAFile: empty, CertFile: good.CertFile, KeyFile: good.KeyFile}, []string{empty, "no certificate"}},
		{"key as CA", identity.Files{CAFile: good.KeyFile, CertFile: good.CertFile, KeyFile: good.KeyFile}, []string{"PRIVATE KEY", "certificates only"}},
		{"foreign key", identity.Files{CAFile: good.CAFile, CertFile: good.CertFile, KeyFile: other.KeyFile}, []string{good.CertFile, other.KeyFile, "belong together"}},
		{"expired", expired, []string{expired.CertFile, "expired at", "renew"}},
		{"not valid yet", early, []string{early.CertFile, "not valid before", "clock"}},
		{"readable key", open, []string{open.KeyFile, "0640", "chmod 600"}},
		{"directory", identity.Files{CAFile: t.TempDir(), CertFile: good.CertFile, KeyFile: good.KeyFile}, []string{"not a regular file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := identity.Open(c.files, nil)
			if err == nil {
				t.Fatal("opened")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

// handshake connects once and answers what either side saw.
func handshake(t *testing.T, server *tls.Config, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		conn := tls.Server(a, server)
		if serverErr = conn.HandshakeContext(context.Background()); serverErr == nil {
			_, serverErr = conn.Write([]byte("x"))
		}
		// The alert that explains a refusal stands in front of the end of the connection.
		_ = a.Close()
	})
	conn := tls.Client(b, client)
	if clientErr = conn.HandshakeContext(context.Background()); clientErr == nil {
		// With TLS 1.3 a client learns only when it reads that its certificate was refused.
		_, clientErr = conn.Read(make([]byte, 1))
	}
	_ = b.Close()
	wg.Wait()
	return serverErr, clientErr
}

func TestHandshake(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	server := open(t, issue(t, ca, serverSubject), nil)
	if err := server.CheckNode(); err != nil {
		t.Fatal(err)
	}
	config := server.ServerConfig(tls.RequireAndVerifyClientCert, "h2")
	client := open(t, issue(t, ca, identity.Subject{Name: "client", SPIFFE: "spiffe://test/app"}), nil)
	if s, c := handshake(t, config, client.ClientConfig("127.0.0.1")); s != nil || c != nil {
		t.Fatalf("good client: server %v, client %v", s, c)
	}

	// A session is never resumed: it would not be verified again.
	again := client.ClientConfig("127.0.0.1")
	again.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		again.VerifyConnection = func(state tls.ConnectionState) error {
			if state.DidResume {
				t.Error("a session was resumed")
			}
			return nil
		}
		if s, c := handshake(t, config, again); s != nil || c != nil {
			t.Fatalf("again: server %v, client %v", s, c)
		}
	}

	stranger := issue(t, foreign, identity.Subject{Name: "client", SPIFFE: "spiffe://test/app"})
	stranger.CAFile = ca.File()
	if s, c := handshake(t, config, open(t, stranger, nil).ClientConfig("127.0.0.1")); s == nil || c == nil ||
		!strings.Contains(c.Error(), "unknown certificate authority") {
		t.Errorf("other CA: server %v, client %v", s, c)
	}

	expired := issue(t, ca, identity.Subject{Name: "late", SPIFFE: "spiffe://test/app", NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	pair, err := tls.LoadX509KeyPair(expired.CertFile, expired.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	late := client.ClientConfig("127.0.0.1")
	late.Certificates = []tls.Certificate{pair}
	if s, c := handshake(t, config, late); s == nil || c == nil || !strings.Contains(c.Error(), "expired certificate") {
		t.Errorf("expired: server %v, client %v", s, c)
	}

	bare := client.ClientConfig("127.0.0.1")
	bare.Certificates = nil
	if s, c := handshake(t, config, bare); s == nil || c == nil {
		t.Errorf("no certificate: server %v, client %v", s, c)
	}

	old := client.ClientConfig("127.0.0.1")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if s, c := handshake(t, config, old); s == nil || c == nil {
		t.Errorf("TLS 1.2: server %v, client %v", s, c)
	}

	if s, c := handshake(t, config, client.ClientConfig("127.0.0.2")); s == nil || c == nil {
		t.Errorf("other host: server %v, client %v", s, c)
	}
}

func TestReload(t *testing.T) {
	ca := newCA(t)
	files := issue(t, ca, serverSubject)
	var log bytes.Buffer
	source := open(t, files, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info}))
	before := source.NotAfter()

	// A good new pair is adopted.
	later := serverSubject
	later.NotAfter = time.Now().Add(48 * time.Hour)
	issue(t, ca, later)
	if err := source.Reload(); err != nil {
		t.Fatal(err)
	}
	after := source.NotAfter()
	if after.Equal(before) || !strings.Contains(log.String(), "reloaded") {
		t.Fatalf("not adopted: %v, log %s", after, log.String())
	}

	// A broken one is not, and is logged once.
	for _, broken := range []struct{ name, want string }{{"garbage", "belong together"}, {"", "belong together"}} {
		if err := os.WriteFile(files.CertFile, []byte(broken.name), 0o600); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		for range 3 {
			if err := source.Reload(); err == nil || !strings.Contains(err.Error(), broken.want) {
				t.Fatalf("error %v, want %q", err, broken.want)
			}
		}
		if got := strings.Count(log.String(), "[ERROR]"); got > 1 {
			t.Errorf("logged %d times: %s", got, log.String())
		}
		if !source.NotAfter().Equal(after) {
			t.Error("a broken file replaced a good one")
		}
	}
	if err := os.Remove(files.KeyFile); err != nil {
		t.Fatal(err)
	}
	if err := source.Reload(); err == nil {
		t.Error("a missing key went unnoticed")
	}
	issue(t, ca, later)
	if err := source.Reload(); err != nil {
		t.Errorf("after repair: %v", err)
	}
}

// An authority that was taken out admits nobody new, one that was added does, and nobody restarts.
func TestReloadOfAuthorities(t *testing.T) {
	first, second := newCA(t), newCA(t)
	files := issue(t, first, serverSubject)
	server := open(t, files, nil)
	config := server.ServerConfig(tls.RequireAndVerifyClientCert)
	theirs := issue(t, second, identity.Subject{Name: "client", SPIFFE: "spiffe://test/app"})
	theirs.CAFile = first.File()
	client := open(t, theirs, nil)
	// They must trust the server's authority, which this test replaces, so the client keeps what it read.
	clientConfig := client.ClientConfig("127.0.0.1")
	if s, _ := handshake(t, config, clientConfig); s == nil {
		t.Fatal("a foreign authority was accepted")
	}
	pem, err := os.ReadFile(second.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.CAFile, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	if s, c := handshake(t, config, clientConfig); s != nil || c != nil {
		t.Errorf("the new authority is refused: server %v, client %v", s, c)
	}
	if err := server.CheckNode(); err == nil || !strings.Contains(err.Error(), files.CAFile) {
		t.Errorf("a node whose own authorities do not vouch for it: %v", err)
	}
}

func TestCAIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := identity.NewCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := issue(t, first, serverSubject)
	second, err := identity.NewCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	client := open(t, issue(t, second, identity.Subject{Name: "client", DNS: []string{"c.example"}}), nil)
	if s, c := handshake(t, open(t, files, nil).ServerConfig(tls.RequireAndVerifyClientCert), client.ClientConfig("127.0.0.1")); s != nil || c != nil {
		t.Errorf("server %v, client %v", s, c)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v), want 0600", entry.Name(), info.Mode().Perm(), err)
		}
	}
	for _, name := range []string{"", "ca", "../x", "a/b"} {
		if _, err := first.Issue(identity.Subject{Name: name}); err == nil {
			t.Errorf("issued a certificate named %q", name)
		}
	}
}
