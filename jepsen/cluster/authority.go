//go:build linux

package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// authority issues certificates that outlive every test.
type authority struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// pair names the files of a certificate, its key and the authority.
type pair struct{ CA, Cert, Key string }

// Validity is how far the certificates reach into the future and the past: more than what a check of their remaining time asks
// for.
const Validity = 60 * 24 * time.Hour

func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "jepsen " + filepath.Base(dir)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	a.cert, a.key, err = a.sign("ca", template)
	return a, err
}

// issue makes a certificate for servers and clients. The name is that of its files; ip may be nil.
func (a *authority) issue(name, spiffe string, ip net.IP) (pair, error) {
	id, err := url.Parse(spiffe)
	if err != nil {
		return pair{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{id}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	}
	_, _, err = a.sign(name, template)
	return pair{filepath.Join(a.dir, "ca.pem"), filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")}, err
}

// sign completes a template, signs it (by its own key if the authority has none yet) and writes the files.
func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	a.serial++
	now := time.Now()
	template.SerialNumber = big.NewInt(a.serial)
	// Clocks that jump by less than that have the same certificates to work with.
	template.NotBefore, template.NotAfter = now.Add(-Validity), now.Add(Validity)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := a.write(name+".pem", "CERTIFICATE", der); err != nil {
		return nil, nil, err
	}
	return cert, key, a.write(name+"-key.pem", "PRIVATE KEY", pkcs8)
}

func (a *authority) write(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
