package sidecar

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// config answers nil for plain HTTP.
func (t ServerTLS) config(logger hclog.Logger) (*tls.Config, error) {
	if t.Cert == "" {
		return nil, nil
	}
	files := &rotating{logger: logger, read: t.read}
	if err := files.open(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return files.load(), nil },
	}, nil
}

func (t ServerTLS) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}
	if t.ClientCA != "" {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		if cfg.ClientCAs, err = readPool(t.ClientCA); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// config answers nil if nothing is configured. The authorities are read once, the certificate for each connection.
func (t ClientTLS) config(logger hclog.Logger) (cfg *tls.Config, err error) {
	if t == (ClientTLS{}) {
		return nil, nil
	}
	cfg = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		if cfg.RootCAs, err = readPool(t.CA); err != nil {
			return nil, err
		}
	}
	if t.Cert == "" {
		return cfg, nil
	}
	files := &rotating{logger: logger, read: func() (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, err
	}}
	if err := files.open(); err != nil {
		return nil, err
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &files.load().Certificates[0], nil
	}
	return cfg, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// rotating reads files for each connection, so that certificates rotate without a restart.
type rotating struct {
	logger hclog.Logger
	read   func() (*tls.Config, error)

	mu   sync.Mutex
	good *tls.Config // guarded by mu; what was read last without an error
}

func (r *rotating) open() (err error) {
	r.good, err = r.read()
	return err
}

// load reads the files. While they cannot be read, or do not fit together because they are just being replaced, it returns
// what fitted last.
func (r *rotating) load() *tls.Config {
	cfg, err := r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.logger.Warn("certificates cannot be read again; going on with the old ones", "error", err)
		return r.good
	}
	r.good = cfg
	return cfg
}
