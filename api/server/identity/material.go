package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/writ-io/writ/lease"
)

// Files names the PEM files of an identity.
type Files struct {
	// CAFile holds the certificates of the authorities whose word counts.
	CAFile string
	// CertFile holds the certificate, followed by intermediate ones if there are any.
	CertFile string
	// KeyFile holds the private key; nobody but its owner may have access.
	KeyFile string
}

// maxFileBytes is far above any bundle of certificates.
const maxFileBytes = 4 << 20

// material is one usable state of the files. It never changes.
type material struct {
	ca, cert, key []byte // as read
	pool          *x509.CertPool
	pair          tls.Certificate // Leaf is set
}

func (m *material) leaf() *x509.Certificate { return m.pair.Leaf }

// read reads all three files and checks that they are usable together at now. When they are what was is made of, it
// returns was.
func (f Files) read(was *material, now time.Time) (*material, error) {
	m := &material{}
	var err error
	if m.ca, err = readFile(f.CAFile, false); err != nil {
		return nil, err
	}
	if m.cert, err = readFile(f.CertFile, false); err != nil {
		return nil, err
	}
	if m.key, err = readFile(f.KeyFile, true); err != nil {
		return nil, err
	}
	if was != nil && bytes.Equal(m.ca, was.ca) && bytes.Equal(m.cert, was.cert) && bytes.Equal(m.key, was.key) {
		return was, nil
	}
	if m.pool, err = parsePool(f.CAFile, m.ca); err != nil {
		return nil, err
	}
	if m.pair, err = tls.X509KeyPair(m.cert, m.key); err != nil {
		// The text of crypto/tls never quotes the key.
		return nil, fmt.Errorf("certificate %s and key %s: %w: give the certificate and the key that belong together, in PEM", f.CertFile, f.KeyFile, err)
	}
	leaf := m.leaf()
	switch {
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("certificate %s: expired at %s: renew it", f.CertFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("certificate %s: not valid before %s: check the clock of this machine", f.CertFile, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return m, nil
}

func parsePool(path string, data []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	found := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("CA file %s: holds a PEM block %q: it must hold certificates only", path, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CA file %s: certificate %d: %w", path, found+1, err)
		}
		pool.AddCert(cert)
		found++
	}
	if found == 0 {
		return nil, fmt.Errorf("CA file %s: holds no certificate: put the authority's certificate there in PEM", path)
	}
	return pool, nil
}

func readFile(path string, secret bool) (data []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	// The open file is asked, so that the answer is about the bytes that are read.
	if mode := info.Mode().Perm(); secret && runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("private key %s: its mode %04o lets others in: chmod 600 %s", path, mode, path)
	}
	data, err = io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: is larger than %d bytes", path, maxFileBytes)
	}
	return data, nil
}

// Validate checks that every file is named.
func (f Files) Validate() error {
	for _, field := range []struct{ name, value string }{
		{"tls.ca_file", f.CAFile}, {"tls.cert_file", f.CertFile}, {"tls.key_file", f.KeyFile},
	} {
		if field.value == "" {
			return lease.Invalid(field.name, "is empty", "name a PEM file")
		}
	}
	return nil
}
