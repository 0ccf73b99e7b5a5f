package lease

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// credentials returns the transport security that the configuration asks for. Files are read once here, so that a wrong
// path is found at the start.
func (c Config) credentials() (credentials.TransportCredentials, error) {
	switch {
	case c.Insecure:
		return insecure.NewCredentials(), nil
	case c.TLS != nil:
		cfg := c.TLS.Clone()
		cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS13)
		return credentials.NewTLS(cfg), nil
	}
	files := &clientFiles{ca: c.CAFile, cert: c.CertFile, key: c.KeyFile, logger: c.Logger}
	cfg, err := files.read()
	if err != nil {
		return nil, err
	}
	files.good = cfg
	return clientCredentials{TransportCredentials: credentials.NewTLS(cfg), files: files}, nil
}

// clientCredentials reads its files for each connection, so that certificates rotate without a restart.
type clientCredentials struct {
	credentials.TransportCredentials // of the files as they were at first; only ClientHandshake must be fresh
	files                            *clientFiles
}

func (c clientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.files.load()).ClientHandshake(ctx, authority, raw)
}

func (c clientCredentials) Clone() credentials.TransportCredentials {
	return clientCredentials{TransportCredentials: c.TransportCredentials.Clone(), files: c.files}
}

type clientFiles struct {
	ca, cert, key string
	logger        *slog.Logger

	mu   sync.Mutex
	good *tls.Config // guarded by mu; what was read last without an error
}

// load reads the files. While they cannot be read, or do not fit together because they are just being replaced, it returns
// what fitted last.
func (f *clientFiles) load() *tls.Config {
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

func (f *clientFiles) read() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, Invalid("CAFile", "cannot be read: "+err.Error(), "name a file of PEM certificates")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, Invalid("CAFile", fmt.Sprintf("%s holds no certificate", f.ca), "name a file of PEM certificates")
		}
	}
	if f.cert != "" {
		key, err := readKey(f.key)
		if err != nil {
			return nil, err
		}
		cert, err := os.ReadFile(f.cert)
		if err != nil {
			return nil, Invalid("CertFile", "cannot be read: "+err.Error(), "name a PEM certificate")
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, Invalid("CertFile", "and KeyFile cannot be used: "+err.Error(), "name a PEM certificate and its key")
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// readKey refuses a private key that others may read. The open file is asked, so that the answer is about what is read.
func readKey(path string) (key []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, Invalid("KeyFile", "cannot be read: "+err.Error(), "name the certificate's key, in PEM")
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return nil, Invalid("KeyFile", "cannot be read: "+err.Error(), "name the certificate's key, in PEM")
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, Invalid("KeyFile", fmt.Sprintf("%s has mode %04o, which lets others in", path, mode), "chmod 600 "+path)
	}
	if key, err = io.ReadAll(file); err != nil {
		return nil, Invalid("KeyFile", "cannot be read: "+err.Error(), "name the certificate's key, in PEM")
	}
	return key, nil
}
