//go:build linux

package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"google.golang.org/grpc/credentials"
)

// Credentials reads a client's certificate and key, and that of the authority which it trusts.
func Credentials(authority, cert, key string) (credentials.TransportCredentials, error) {
	config, err := clientTLS(pair{CA: authority, Cert: cert, Key: key})
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(config), nil
}

func clientTLS(files pair) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("cluster: the authority's file holds no certificate")
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13}, nil
}

func clientCredentials(files pair) (credentials.TransportCredentials, error) {
	return Credentials(files.CA, files.Cert, files.Key)
}
