package identity

import (
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/writ-io/writ/lease"
)

// maxPrincipalBytes is the longest SPIFFE ID that its specification allows.
const maxPrincipalBytes = 2048

// Principal answers the identity in a certificate: the first URI name with the scheme spiffe, or else the first DNS name.
// It does not verify the certificate. Errors: UNAUTHENTICATED, which says what the certificate lacks.
func Principal(cert *x509.Certificate) (lease.Principal, error) {
	name := ""
	for _, uri := range cert.URIs {
		if strings.EqualFold(uri.Scheme, "spiffe") {
			name = uri.String()
			break
		}
	}
	if name == "" && len(cert.DNSNames) > 0 {
		name = cert.DNSNames[0]
	}
	if name == "" {
		e := lease.Errorf(lease.ReasonUnauthenticated,
			"the client certificate %s has neither a SPIFFE ID nor a DNS name among its subject alternative names", describe(cert))
		e.Fix = "issue one with a URI name such as spiffe://example/app/billing, or with a DNS name; the common name does not count"
		return "", e
	}
	if problem := principalProblem(name); problem != "" {
		e := lease.Errorf(lease.ReasonUnauthenticated, "the name %.80q in the client certificate %s %s", name, describe(cert), problem)
		e.Fix = "issue one with a name of up to 2048 printable ASCII characters"
		return "", e
	}
	return lease.Principal(name), nil
}

// ParsePrincipal checks a principal that was not taken from a certificate here: one that a node passes on.
func ParsePrincipal(name string) (lease.Principal, error) {
	if name == "" {
		return "", lease.Errorf(lease.ReasonUnauthenticated, "the principal is empty")
	}
	if problem := principalProblem(name); problem != "" {
		return "", lease.Errorf(lease.ReasonUnauthenticated, "the principal %.80q %s", name, problem)
	}
	return lease.Principal(name), nil
}

// principalProblem keeps principals such that they pass through gRPC metadata and log lines unchanged.
func principalProblem(name string) string {
	if len(name) > maxPrincipalBytes {
		return fmt.Sprintf("is %d bytes long", len(name))
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return "holds a character that is not printable ASCII"
		}
	}
	return ""
}

// describe names a certificate for people: it may have no usable name at all.
func describe(cert *x509.Certificate) string {
	subject := cert.Subject.String()
	if subject == "" {
		subject = "without a subject"
	}
	return fmt.Sprintf("%q (serial %v, issued by %q)", subject, cert.SerialNumber, cert.Issuer.String())
}
