package lease_test

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
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
)

// authority is a certificate authority of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, _ = a.issue("authority", true)
	return a
}

// issue makes a certificate; an authority signs itself.
func (a *authority) issue(name string, isAuthority bool) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isAuthority, BasicConstraintsValid: true, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if isAuthority {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, der
}

// files writes ca.pem, cert.pem and key.pem of a new certificate into a directory.
func (a *authority) files(dir, name string) {
	a.t.Helper()
	_, key, der := a.issue(name, false)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"cert.pem": {Type: "CERTIFICATE", Bytes: der},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *authority) serverTLS(newest uint16) credentials.TransportCredentials {
	_, key, der := a.issue("node", false)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: newest,
	})
}

// startTCP serves a node on a port of this machine.
func startTCP(t testing.TB, n *leasetest.Node) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.Serve(l)
	t.Cleanup(n.Stop)
	return l.Addr().String()
}

// Certificates are replaced while the client runs: each new connection shows the present one.
func TestCertificatesAreReloaded(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	a.files(dir, "before")
	node := leasetest.NewNode(leasetest.NewQuorum(nil), "node-1", "eu")
	node.UseTLS(a.serverTLS(tls.VersionTLS13))
	names := make(chan string, 100)
	node.Script("Get", func(ctx context.Context, _ any, next func() (any, error)) (any, error) {
		p, _ := peer.FromContext(ctx)
		names <- p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Subject.CommonName
		return next()
	})
	client, err := lease.Dial(t.Context(), lease.Config{
		Endpoints: []string{startTCP(t, node)}, CAFile: filepath.Join(dir, "ca.pem"),
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	shown := func() string {
		if _, err := client.Get(t.Context(), "r", lease.GetOptions{}); !errors.Is(err, lease.ErrNotFound) {
			t.Fatal(err)
		}
		return <-names
	}
	if got := shown(); got != "before" {
		t.Errorf("shows %q", got)
	}
	a.files(dir, "after")
	if got := shown(); got != "before" {
		t.Errorf("an open connection shows %q", got)
	}
	node.Reset()
	if got := shown(); got != "after" {
		t.Errorf("shows %q after the files were replaced", got)
	}
	// Half a replacement is not used, and what was good goes on.
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	node.Reset()
	if got := shown(); got != "after" {
		t.Errorf("shows %q while the files do not fit", got)
	}
}

func TestFilesThatCannotBeUsedAreFoundAtTheStart(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	a.files(dir, "client")
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, c := range []lease.Config{
		{CAFile: filepath.Join(dir, "none.pem")},
		{CAFile: key},
		{CAFile: ca, CertFile: cert, KeyFile: ca},
		{CAFile: ca, CertFile: filepath.Join(dir, "none.pem"), KeyFile: key},
	} {
		c.Endpoints = []string{"127.0.0.1:1"}
		if _, err := lease.Dial(t.Context(), c); !errors.Is(err, lease.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A key that others may use is refused, and the error says what to do.
func TestKeysThatAreOpenToOthersAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes do not say who may read")
	}
	a := newAuthority(t)
	dir := t.TempDir()
	a.files(dir, "client")
	key := filepath.Join(dir, "key.pem")
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o644: true, 0o602: true} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		_, err := lease.Dial(t.Context(), lease.Config{
			Endpoints: []string{"127.0.0.1:1"}, DialTimeout: 10 * time.Millisecond,
			CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: key,
		})
		want := fmt.Sprintf("INVALID: KeyFile %s has mode %04o, which lets others in; chmod 600 %s", key, mode, key)
		if err == nil || refused != (err.Error() == want) || errors.Is(err, lease.ErrInvalid) != refused {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	a.files(dir, "client")
	node := leasetest.NewNode(leasetest.NewQuorum(nil), "node-1", "eu")
	node.UseTLS(a.serverTLS(tls.VersionTLS12))
	address := startTCP(t, node)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	for _, c := range []lease.Config{
		{CAFile: filepath.Join(dir, "ca.pem")},
		{TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10}},
	} {
		c.Endpoints, c.DialTimeout = []string{address}, 500*time.Millisecond
		if _, err := lease.Dial(t.Context(), c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
}
