package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// credentials returns the transport security that the configuration asks for. Files are read once here, so that a wrong path
// is found at the start.
func (c Config) credentials() (credentials.TransportCredentials, error) {
	switch {
	case c.Insecure:
		return insecure.NewCredentials(), nil
	case c.TLS != nil:
		cfg := c.TLS.Clone()
		cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS13)
		return credentials.NewTLS(cfg), nil
	}
	files := &certFiles{ca: c.CAFile, cert: c.CertFile, key: c.KeyFile, logger: c.Logger}
	cfg, err := files.read()
	if err != nil {
		return nil, err
	}
	files.good = cfg
	return fileCredentials{TransportCredentials: credentials.NewTLS(cfg), files: files}, nil
}

// fileCredentials reads its files for each connection, so that certificates rotate without a restart.
type fileCredentials struct {
	credentials.TransportCredentials // of the files as they were at first; only ClientHandshake must be fresh
	files                            *certFiles
}

func (c fileCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.files.load()).ClientHandshake(ctx, authority, raw)
}

func (c fileCredentials) Clone() credentials.TransportCredentials {
	return fileCredentials{TransportCredentials: c.TransportCredentials.Clone(), files: c.files}
}

type certFiles struct {
	ca, cert, key string
	logger        hclog.Logger

	mu   sync.Mutex
	good *tls.Config // guarded by mu; what was read last without an error
}

// load reads the files. While they cannot be read, or do not fit together because they are just being replaced, it returns
// what fitted last.
func (f *certFiles) load() *tls.Config {
	cfg, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.logger.Warn("certificates cannot be read again; going on with the old ones", "error", err)
		return f.good
	}
	f.good = cfg
	return cfg
}

func (f *certFiles) read() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, misconfigured("CAFile", "cannot be read: "+err.Error(), "name a file of PEM certificates")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, misconfigured("CAFile", f.ca+" holds no certificate", "name a file of PEM certificates")
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, misconfigured("CertFile", "and KeyFile cannot be used: "+err.Error(), "name a PEM certificate and its key")
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
