package fence

import (
	"errors"
	"net/http"
	"strconv"
)

const (
	// HeaderWrit is the HTTP header that carries a signed writ in compact form.
	HeaderWrit = "Writ"
	// HeaderToken is the HTTP header that carries a bare token, in one of the forms of [ParseToken]. It proves nothing, so
	// it counts only where callers are trusted not to invent one.
	HeaderToken = "Writ-Token"
)

var (
	// ErrNoCredential means that a write came without a writ or a token.
	ErrNoCredential = errors.New("fence: no writ presented")

	// ErrUnsupported means that a request is of a kind whose end a guard cannot see, or that it cannot read: an upgrade, a
	// tunnel, an address that could mean two things. See [*InvalidError].
	ErrUnsupported = errors.New("fence: request cannot be guarded")
)

// Credential is what a writer presents: a signed writ, or a bare token. The zero Credential is none.
type Credential struct {
	// Writ is a signed writ in compact form.
	Writ string
	// Token is a bare token.
	Token Token
}

// ParseHeader reads the credential of a request: a writ, or a bare token where trusted says that callers may present one.
// It does not verify the writ.
//
// What a program behind this one could read differently is refused: more than one value, of either header; a list; a
// name that a lenient program takes for one of the two, such as Writ_Token. Errors are [ErrNoCredential],
// [ErrInvalidWrit] and [ErrInvalidToken].
func ParseHeader(h http.Header, trusted bool) (Credential, error) {
	for name := range h {
		if name != HeaderWrit && name != HeaderToken && resemblesCredential(name) {
			return Credential{}, invalid(ErrInvalidWrit, "header", name, "is not a name to present a writ under: use "+HeaderWrit)
		}
	}
	writs, tokens := h[HeaderWrit], h[HeaderToken]
	switch {
	case len(writs)+len(tokens) == 0:
		return Credential{}, ErrNoCredential
	case len(writs) > 0 && len(tokens) > 0:
		return Credential{}, invalid(ErrInvalidWrit, HeaderWrit, "", "excludes "+HeaderToken+": present one of them")
	case len(writs) > 1:
		return Credential{}, invalid(ErrInvalidWrit, HeaderWrit, "", "must not appear twice")
	case len(tokens) > 1:
		return Credential{}, invalid(ErrInvalidToken, HeaderToken, "", "must not appear twice")
	case len(writs) == 1:
		return parseWritHeader(writs[0])
	case !trusted:
		return Credential{}, invalid(ErrInvalidToken, HeaderToken, "", "is not trusted here: present a signed writ in the header "+HeaderWrit)
	}
	token, err := ParseToken(tokens[0])
	if err != nil {
		return Credential{}, err
	}
	return Credential{Token: token}, nil
}

// parseWritHeader accepts what has the outer form of a compact writ. The rest is for [KeySet.Verify].
func parseWritHeader(value string) (Credential, error) {
	switch {
	case value == "":
		return Credential{}, invalid(ErrInvalidWrit, HeaderWrit, "", "must not be empty")
	case len(value) > MaxWritBytes:
		return Credential{}, invalid(ErrInvalidWrit, HeaderWrit, "", "must not be longer than "+strconv.Itoa(MaxWritBytes)+" bytes")
	}
	for i := range len(value) {
		if c := value[i]; !isBase64URL(c) && c != '.' {
			return Credential{}, invalid(ErrInvalidWrit, HeaderWrit, "", "must be one compact writ, as it was issued: no list, quotes or spaces")
		}
	}
	return Credential{Writ: value}, nil
}

func isBase64URL(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// resemblesCredential reports whether a program that folds case, and passes over or exchanges everything but letters and
// digits, would take name for one of the two headers.
func resemblesCredential(name string) bool {
	const writ, token = "writ", "writtoken"
	n := 0
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			continue
		}
		if n == len(token) || token[n] != c {
			return false
		}
		n++
	}
	return n == len(writ) || n == len(token)
}

// IsZero reports whether c is none.
func (c Credential) IsZero() bool { return c == Credential{} }

// Set puts c in the place of what h holds; the zero Credential removes it.
func (c Credential) Set(h http.Header) {
	h.Del(HeaderWrit)
	h.Del(HeaderToken)
	switch {
	case c.Writ != "":
		h.Set(HeaderWrit, c.Writ)
	case !c.Token.IsZero():
		h.Set(HeaderToken, c.Token.Decimal())
	}
}

// Write is the write of resource that c is presented for.
func (c Credential) Write(resource string) Write {
	return Write{Resource: resource, Writ: c.Writ, Token: c.Token}
}
