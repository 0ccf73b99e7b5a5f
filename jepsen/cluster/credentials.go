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
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("cluster: the authority's file holds no certificate")
	}
	return credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13}), nil
}

func clientCredentials(files pair) (credentials.TransportCredentials, error) {
	return Credentials(files.CA, files.Cert, files.Key)
}
