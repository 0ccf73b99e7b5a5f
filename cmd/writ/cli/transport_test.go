package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
)

// selfSigned makes a certificate that is its own authority, and writes it and its key to PEM files.
func selfSigned(t *testing.T) (pair tls.Certificate, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: privateDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, cert, key
}

// Both sides show who they are, and a command says what is wrong with what it was given.
func TestMutualTLS(t *testing.T) {
	pair, cert, key := selfSigned(t)
	_, otherCert, otherKey := selfSigned(t)
	_, _, open := selfSigned(t)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no authority: ", err)
	}
	node := leasetest.NewNode(leasetest.NewQuorum(nil), "node-1", "eu")
	node.UseTLS(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}))
	answers(node, "Get", &writv1.GetResponse{Lease: freeLease()})
	t.Setenv("WRIT_ENDPOINTS", listen(t, node))
	for name, c := range map[string]struct {
		flags []string // the last of two counts
		code  int
		want  string // in what is said on standard error
	}{
		"trusted":              {[]string{"--ca", cert, "--cert", cert, "--key", key, "--timeout", "1m"}, 0, ""},
		"an unknown node":      {[]string{"--ca", otherCert, "--cert", cert, "--key", key, "--timeout", "4s"}, 5, "certificate signed by unknown authority"},
		"an unknown client":    {[]string{"--ca", cert, "--cert", otherCert, "--key", otherKey}, 5, "no node could answer within"},
		"nobody":               {[]string{"--ca", cert}, 5, "no node could answer within"},
		"plain text":           {[]string{"--insecure"}, 5, "no node could answer within"},
		"no authority":         {[]string{"--ca", key}, 1, "INVALID: --ca " + key + " holds no certificate; name a PEM file"},
		"a key of another one": {[]string{"--ca", cert, "--cert", cert, "--key", otherKey}, 1, "INVALID: --cert and --key do not load: tls: private key does not match public key"},
		"an open key":          {[]string{"--ca", cert, "--cert", cert, "--key", open}, 1, "INVALID: --key " + open + " has mode 0644, which lets others in; chmod 600 " + open},
	} {
		t.Run(name, func(t *testing.T) {
			r := writ(t, append([]string{"lease", "get", "orders", "--timeout", "1s"}, c.flags...)...)
			if r.code != c.code || !strings.Contains(r.stderr, c.want) || (c.code == 0) != strings.HasPrefix(r.stdout, "resource  orders\n") {
				t.Errorf("%+v, want code %d and %q", r, c.code, c.want)
			}
			if c.code == lease.ExitOK && r.stderr != "" {
				t.Errorf("said %q", r.stderr)
			}
		})
	}
}
