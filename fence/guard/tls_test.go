package guard_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
)

// authority issues certificates.
type authority struct {
	*testing.T
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{T: t}
	_, a.key, _ = ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(name string) (cert, key []byte) {
	a.Helper()
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		a.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// serve runs a node over TLS on loopback, and tells who comes.
func (a *authority) serve(q *quorum) (address string, callers <-chan string) {
	a.Helper()
	cert, key := a.issue("node")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.Fatal(err)
	}
	came := make(chan string, 64)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		})),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if p, ok := peer.FromContext(stream.Context()); ok {
				came <- p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Subject.CommonName
			}
			return next(srv, stream)
		}),
	)
	writv1.RegisterFenceServiceServer(server, q)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	a.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return listener.Addr().String(), came
}

// A guard shows its certificate, and the new one after it was rotated, without a restart.
func TestCertificatesRotate(t *testing.T) {
	a := newAuthority(t)
	q := newQuorum()
	first, firstCame := a.serve(q)
	second, secondCame := a.serve(q)
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := a.issue("before")
	g, err := guard.New(guard.Config{
		Name: "g", Covers: []string{"*"}, Store: filepath.Join(dir, "floors"), Endpoints: []string{first, second},
		CAFile:   put("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})),
		CertFile: put("cert.pem", cert), KeyFile: put("key.pem", key), Slack: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if name := within(t, firstCame); name != "before" {
		t.Errorf("came as %q", name)
	}
	drop := func() { // one that has come is not there to be dropped yet
		t.Helper()
		eventually(t, q.connected)
		q.drop()
	}
	// While key and certificate do not fit together, the old pair is good.
	next, nextKey := a.issue("after")
	put("cert.pem", next)
	drop()
	if name := within(t, secondCame); name != "before" {
		t.Errorf("came as %q", name)
	}
	put("key.pem", nextKey)
	drop()
	if name := within(t, firstCame); name != "after" {
		t.Errorf("came as %q", name)
	}
	eventually(t, func() bool {
		admission, err := g.Admit(t.Context(), fence.Write{Resource: "r", Token: tok(5)})
		if err == nil {
			admission.Done(fence.Finished)
		}
		return err == nil
	})
}

func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(2 * time.Minute):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// eventually polls, with a deadline.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatal("not within two minutes")
		case <-tick.C:
		}
	}
}
