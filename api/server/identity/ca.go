package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem"
	caYears   = 10
	// backdate forgives machines whose clocks are a little behind.
	backdate = 5 * time.Minute
	// defaultLifetime is for development: long enough to forget about.
	defaultLifetime = 365 * 24 * time.Hour
)

// CA is a certificate authority for development and tests. Its key lies in a file, without a passphrase.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Subject says what a certificate is issued for.
type Subject struct {
	// Name is the name of the files and the common name, which identifies nobody.
	Name string
	// SPIFFE is a SPIFFE ID such as spiffe://example/app/billing; empty for none.
	SPIFFE string
	// DNS and IPs are the names and addresses that a server is reached at.
	DNS []string
	IPs []net.IP
	// NotBefore and NotAfter bound the validity; zero means from now on, for a year.
	NotBefore, NotAfter time.Time
}

// NewCA opens the authority in dir, or makes one there.
func NewCA(dir string) (*CA, error) {
	ca, err := loadCA(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return ca, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := clock.System().Wall()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Writ development CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(caYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca = &CA{dir: dir, key: key}
	if ca.cert, err = ca.sign(template, &key.PublicKey, template); err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would look like a whole authority.
	if err := writeKey(filepath.Join(dir, caKeyFile), key); err != nil {
		return nil, err
	}
	return ca, writePEM(ca.File(), "CERTIFICATE", ca.cert.Raw)
}

func loadCA(dir string) (*CA, error) {
	certPEM, err := readFile(filepath.Join(dir, caFile), false)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readFile(filepath.Join(dir, caKeyFile), true)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, fmt.Errorf("%s: holds no PEM: remove the directory to make a new authority", filepath.Join(dir, caFile))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, caFile), err)
	}
	block, _ = pem.Decode(keyPEM)
	if block == nil {
		return nil, fmt.Errorf("%s: holds no PEM: remove the directory to make a new authority", filepath.Join(dir, caKeyFile))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, caKeyFile), err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: holds a %T, want an ECDSA key", filepath.Join(dir, caKeyFile), parsed)
	}
	return &CA{dir: dir, cert: cert, key: key}, nil
}

// File is the file with the authority's certificate.
func (ca *CA) File() string { return filepath.Join(ca.dir, caFile) }

// Issue makes a key and a certificate, good for servers and clients, and writes them beside the authority, replacing older
// ones of the same name.
func (ca *CA) Issue(subject Subject) (Files, error) {
	if subject.Name == "" || filepath.Base(subject.Name) != subject.Name || subject.Name+".pem" == caFile {
		return Files{}, fmt.Errorf("certificate name %q: use a plain file name other than \"ca\"", subject.Name)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Files{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: subject.Name},
		NotBefore:   subject.NotBefore,
		NotAfter:    subject.NotAfter,
		DNSNames:    subject.DNS,
		IPAddresses: subject.IPs,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	now := clock.System().Wall()
	if template.NotBefore.IsZero() {
		template.NotBefore = now.Add(-backdate)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = now.Add(defaultLifetime)
	}
	if subject.SPIFFE != "" {
		id, err := url.Parse(subject.SPIFFE)
		if err != nil || id.Scheme != "spiffe" || id.Host == "" {
			return Files{}, fmt.Errorf("SPIFFE ID %q: use the form spiffe://trust-domain/path", subject.SPIFFE)
		}
		template.URIs = []*url.URL{id}
	}
	cert, err := ca.sign(template, &key.PublicKey, ca.cert)
	if err != nil {
		return Files{}, err
	}
	files := Files{
		CAFile:   ca.File(),
		CertFile: filepath.Join(ca.dir, subject.Name+".pem"),
		KeyFile:  filepath.Join(ca.dir, subject.Name+"-key.pem"),
	}
	if err := writeKey(files.KeyFile, key); err != nil {
		return Files{}, err
	}
	return files, writePEM(files.CertFile, "CERTIFICATE", cert.Raw)
}

func (ca *CA) sign(template *x509.Certificate, public *ecdsa.PublicKey, parent *x509.Certificate) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

// writePEM replaces the file at once, so that a reader finds the old or the new one. os.CreateTemp makes it 0600.
func writePEM(path, kind string, der []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	if err := errors.Join(pem.Encode(file, &pem.Block{Type: kind, Bytes: der}), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
