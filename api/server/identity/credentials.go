package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/writ-io/writ/lease"
)

// AuthInfo is what a gRPC server knows of a connection that was made with [Source.ServerCredentials]. The principal is
// worked out once a connection, not once a call.
type AuthInfo struct {
	credentials.TLSInfo
	// Principal is the caller, unless Err says why there is none.
	Principal lease.Principal
	Err       error
}

// ServerCredentials is for gRPC servers: clients need a certificate of one of the authorities. Handshakes that fail are
// logged. Connections carry an [AuthInfo].
func (s *Source) ServerCredentials() credentials.TransportCredentials {
	return serverCredentials{
		TransportCredentials: credentials.NewTLS(s.ServerConfig(tls.RequireAndVerifyClientCert, "h2")), source: s,
	}
}

type serverCredentials struct {
	credentials.TransportCredentials
	source *Source
}

func (c serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		c.source.LogRefusal(raw.RemoteAddr(), err)
		return nil, nil, err
	}
	own := AuthInfo{TLSInfo: info.(credentials.TLSInfo)}
	own.Principal, own.Err = Principal(own.State.PeerCertificates[0])
	return conn, own, nil
}

func (c serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{TransportCredentials: c.TransportCredentials.Clone(), source: c.source}
}

// LogRefusal logs why a handshake failed. Floods are thinned out.
func (s *Source) LogRefusal(remote net.Addr, err error) {
	if errors.Is(err, io.EOF) {
		s.logger.Debug("connection ended before its TLS handshake", "remote", remote)
		return
	}
	s.refusals.Do(func() {
		s.logger.Warn("refused a connection", "remote", remote, "reason", s.explain(err), "error", err)
	})
}

// explain says in a sentence what TLS can only hint at.
func (s *Source) explain(err error) string {
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) {
		return "the TLS handshake failed"
	}
	who := describe(unverified.UnverifiedCertificates[0])
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "the client certificate " + who + " is not signed by an authority in " + s.files.CAFile
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the client certificate " + who + " has expired or is not valid yet"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the client certificate " + who + " lacks the extended key usage clientAuth"
	}
	return "the client certificate " + who + " is not valid"
}

// ClientCredentials is for gRPC clients, of any number of servers. Changed files count from the next connection on.
func (s *Source) ClientCredentials() credentials.TransportCredentials {
	return clientCredentials{TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}), source: s}
}

type clientCredentials struct {
	credentials.TransportCredentials
	source *Source
}

func (c clientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	conn, info, err := credentials.NewTLS(c.source.ClientConfig(host)).ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	if conn, err = hearVerdict(conn); err != nil {
		return nil, nil, err
	}
	return conn, info, nil
}

// verdictTimeout bounds the wait for a server's first byte. Not every HTTP/2 server speaks before its client does.
const verdictTimeout = time.Second

// hearVerdict waits for the server's first byte. With TLS 1.3 a client is done before the server has judged its
// certificate; if it writes at once, a refusal becomes a broken pipe, and the alert that says why is lost.
func hearVerdict(conn net.Conn) (net.Conn, error) {
	if err := conn.SetReadDeadline(time.Now().Add(verdictTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	heard := &heardConn{Conn: conn}
	n, err := conn.Read(heard.first[:])
	heard.unread = n > 0
	var late net.Error
	if err != nil && (!errors.As(err, &late) || !late.Timeout()) {
		return nil, errors.Join(fmt.Errorf("the server refused the connection: %w", err), conn.Close())
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return heard, nil
}

// heardConn gives the first byte back. It has one reader at a time, as connections of gRPC do.
type heardConn struct {
	net.Conn
	first  [1]byte
	unread bool
}

func (c *heardConn) Read(b []byte) (int, error) {
	if c.unread && len(b) > 0 {
		c.unread = false
		b[0] = c.first[0]
		return 1, nil
	}
	return c.Conn.Read(b)
}

func (c clientCredentials) Clone() credentials.TransportCredentials {
	return clientCredentials{TransportCredentials: c.TransportCredentials.Clone(), source: c.source}
}

// DialTLS connects to addr, host:port. It fits http.Transport.DialTLSContext.
func (s *Source) DialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: s.ClientConfig(host)}
	return dialer.DialContext(ctx, network, addr)
}
