package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
}

var validity = struct{ from, until time.Time }{
	time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: validity.from, NotAfter: validity.until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template, nil)
	a.file = a.pem("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) sign(template *x509.Certificate, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pem(name, kind string, raw []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue answers the files of a member's certificate for name, valid on loopback.
func (a *authority) issue(name string, uris ...string) *PeerTLS {
	a.t.Helper()
	return a.issueFor([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, name, uris...)
}

// issueClient answers the files of a client's certificate.
func (a *authority) issueClient(name string, uris ...string) *PeerTLS {
	a.t.Helper()
	return a.issueFor([]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, name, uris...)
}

func (a *authority) issueFor(usage []x509.ExtKeyUsage, name string, uris ...string) *PeerTLS {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: validity.from, NotAfter: validity.until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: usage,
	}
	for _, raw := range uris {
		u, err := url.Parse(raw)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	cert, key := a.sign(template, a.cert)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &PeerTLS{
		CAFile:   a.file,
		CertFile: a.pem(name+".pem", "CERTIFICATE", cert.Raw),
		KeyFile:  a.pem(name+"-key.pem", "PRIVATE KEY", der),
	}
}

// secureConfigs answers the configurations of n members over TLS.
func secureConfigs(t *testing.T, ca *authority, n int) []Config {
	t.Helper()
	out := configs(t, n)
	initial := map[string]string{}
	for i := range out {
		out[i].ListenPeerURL = strings.Replace(out[i].ListenPeerURL, "http:", "https:", 1)
		initial[out[i].Name] = out[i].ListenPeerURL
		out[i].Insecure = false
		out[i].PeerTLS = ca.issue(out[i].Name, "spiffe://writ/node/"+out[i].Name)
		out[i].PeerTLS.AllowedNames = []string{"n0", "spiffe://writ/node/n1", "n2"}
	}
	for i := range out {
		out[i].InitialCluster = initial
	}
	return out
}

func TestPeersOverTLS(t *testing.T) {
	ca := newAuthority(t, "the authority")
	c := &cluster{t: t, configs: secureConfigs(t, ca, 3)}
	c.start()
	commit(t, c.leader(), claim(t, c.leader()), write("a", "1"))
	for _, m := range c.members {
		if got := load(t, m); got["a"] != "1" {
			t.Errorf("%s has %v", m.cfg.Name, got)
		}
	}
	other := newAuthority(t, "the authority") // the same name, another key
	plain := (*PeerTLS)(nil)
	for name, test := range map[string]struct {
		shown *PeerTLS
		ok    bool
	}{
		"a member":                       {ca.issue("n2"), true},
		"a member by its URI":            {ca.issue("whoever", "spiffe://writ/node/n1"), true},
		"a client of the same authority": {ca.issueClient("client", "spiffe://writ/client/billing"), false},
		"a node of another cluster":      {ca.issue("other", "spiffe://writ/node/other"), false},
		"another authority":              {other.issue("n0"), false},
		"no certificate":                 {plain, false},
	} {
		status, err := getVersion(t, c.members[0].cfg.ListenPeerURL, ca, test.shown)
		if ok := err == nil && status == http.StatusOK; ok != test.ok {
			t.Errorf("%s: got %d, %v, want ok %v", name, status, err, test.ok)
		}
	}
}

// getVersion asks a peer port for its version, showing a certificate.
func getVersion(t *testing.T, peer string, ca *authority, shown *PeerTLS) (int, error) {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(ca.cert)
	if shown != nil {
		pair, err := tls.LoadX509KeyPair(shown.CertFile, shown.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		// Show it even to a server that says it will not accept it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, peer+"/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// A member whose certificate the others do not accept joins nothing, and they do not suffer.
func TestAStrangerIsNoPeer(t *testing.T) {
	for name, certificate := range map[string]func(ca *authority) *PeerTLS{
		"another authority": func(*authority) *PeerTLS { return newAuthority(t, "another").issue("n2") },
		"a client's":        func(ca *authority) *PeerTLS { return ca.issueClient("billing") },
	} {
		t.Run(name, func(t *testing.T) {
			ca := newAuthority(t, "the authority")
			c := &cluster{t: t, configs: secureConfigs(t, ca, 3)}
			stranger := c.configs[2]
			stranger.PeerTLS = certificate(ca)
			c.configs = c.configs[:2]
			c.start()
			m := open(t, stranger)
			commit(t, c.leader(), claim(t, c.leader()), write("a", "1"))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // two elections
			defer cancel()
			if head, err := m.Head(ctx); !errors.Is(err, quorum.ErrUnknown) {
				t.Errorf("the stranger read head %d, %v", head, err)
			}
			for _, peer := range c.members {
				if peer.Reachable(m.ID()) {
					t.Errorf("%s let the stranger in", peer.cfg.Name)
				}
			}
		})
	}
}

func TestTLSFilesAreNamed(t *testing.T) {
	ca := newAuthority(t, "the authority")
	good := secureConfigs(t, ca, 1)[0]
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*PeerTLS)
		field  string
		file   string
	}{
		"no authority":      {func(p *PeerTLS) { p.CAFile = "/no/ca.pem" }, "peer.tls.ca", "/no/ca.pem"},
		"no certificate":    {func(p *PeerTLS) { p.CertFile = "/no/cert.pem" }, "peer.tls.cert", "/no/cert.pem"},
		"no key":            {func(p *PeerTLS) { p.KeyFile = "/no/key.pem" }, "peer.tls.key", "/no/key.pem"},
		"garbage authority": {func(p *PeerTLS) { p.CAFile = garbage }, "peer.tls.ca", garbage},
		"garbage key":       {func(p *PeerTLS) { p.KeyFile = garbage }, "peer.tls", garbage},
		"another's key":     {func(p *PeerTLS) { p.KeyFile = ca.issue("other").KeyFile }, "peer.tls", "other-key.pem"},
	} {
		cfg := good
		files := *good.PeerTLS
		test.change(&files)
		cfg.PeerTLS = &files
		m, err := Open(testContext(t), cfg)
		config := (*ConfigError)(nil)
		if !errors.As(err, &config) || config.Field != test.field || !strings.Contains(err.Error(), test.file) {
			t.Errorf("%s: got %v, want field %s and file %s", name, err, test.field, test.file)
		}
		if m != nil {
			_ = m.Close()
		}
	}
}
