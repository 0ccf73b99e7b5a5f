//writ:core

package lease

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a request may carry, in bytes unless said otherwise.
const (
	MaxResourceBytes   = 512
	MaxMetadataBytes   = 4 << 10
	MaxCheckpointBytes = 64 << 10
	MaxRequestIDBytes  = 64
	MaxInstanceBytes   = 128
	MaxRegionBytes     = 64
	// MaxPriority bounds priorities on both sides of 0.
	MaxPriority = 1000
	// MaxRenewals is how many leases one renewal may name.
	MaxRenewals = 10_000
)

// Resource is the name of what is protected: 1 to 512 bytes of printable UTF-8 in "/"-separated, non-empty segments.
type Resource string

// ParseResource checks a name. Errors: *Error with reason INVALID, which names the field "resource" and the fix.
func ParseResource(name string) (Resource, error) {
	if problem := resourceProblem(name); problem != "" {
		return "", Invalid("resource", problem, "use 1 to 512 bytes of printable UTF-8 in non-empty segments, such as billing/nightly")
	}
	return Resource(name), nil
}

func resourceProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > MaxResourceBytes:
		return fmt.Sprintf("is %d bytes long", len(name))
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case name[0] == '/' || name[len(name)-1] == '/' || strings.Contains(name, "//"):
		return fmt.Sprintf("%q has an empty segment", name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("%q holds the unprintable character %U", name, r)
		}
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "." || segment == ".." {
			return fmt.Sprintf("%q holds the segment %q, which URLs swallow", name, segment)
		}
	}
	return ""
}

// Principal is an authenticated identity: the SPIFFE ID or DNS name of a certificate.
type Principal string

// Holder is who holds a lease: a principal and which of its processes. Two replicas that share a certificate are two
// holders.
type Holder struct {
	Principal Principal
	Instance  string
	Region    string
}

func (h Holder) String() string {
	s := string(h.Principal)
	if h.Instance != "" {
		s += "#" + h.Instance
	}
	if h.Region != "" {
		s += "@" + h.Region
	}
	return s
}
