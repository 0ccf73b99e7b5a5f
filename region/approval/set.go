package approval

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const (
	maxApprovers  = 256
	maxKeys       = 16
	maxNameBytes  = 128
	maxKeyText    = 16 << 10
	maxRoles      = 32
	maxPrincipals = 16
	maxPrincipal  = 2048
	minRSABits    = 3072
	maxRSABits    = 16384
)

// Set is a set of approvers that has been checked. It does not change, and may be used by several goroutines.
type Set struct {
	version uint64
	rule    *writv1.ApprovalRule
	people  []*person
	byName  map[string]*person
	// By the SHA-256 fingerprint.
	byKey map[string]*key
}

type person struct {
	name       string
	keys       []*key
	roles      []string
	principals []string
	// Not all keys are revoked.
	usable bool
}

type key struct {
	public      ssh.PublicKey
	fingerprint string
	owner       *person
	revoked     bool
	// Zero: it does not expire.
	expires time.Time
}

// NewSet checks a set of approvers, and that they could satisfy its rule. Errors are of type *FieldError, and name the
// approver and the number of the key, from 1.
func NewSet(from *writv1.ApproverSet) (*Set, error) {
	s := &Set{version: from.GetVersion(), rule: proto.CloneOf(from.GetRule()), byName: make(map[string]*person), byKey: make(map[string]*key)}
	if n := len(from.GetApprovers()); n > maxApprovers {
		return nil, &FieldError{"approvers", fmt.Sprintf("has %d people", n), fmt.Sprintf("take at most %d", maxApprovers)}
	}
	principals := make(map[string]string)
	for i, a := range from.GetApprovers() {
		if err := s.add(fmt.Sprintf("approvers[%d]", i), a, principals); err != nil {
			return nil, err
		}
	}
	if s.rule == nil {
		return nil, &FieldError{"rule", "is missing", "say how many people have to agree to change the approvers: at least 2"}
	}
	if err := CheckRule("rule", s.rule, false); err != nil {
		return nil, err
	}
	if err := s.Satisfiable("rule", s.rule); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) add(field string, a *writv1.Approver, principals map[string]string) error {
	name := a.GetName()
	if problem := checkName(name); problem != "" {
		return &FieldError{field + ".name", problem, "take 1 to 128 bytes of printable UTF-8 without white space and without , * ? ! \" # \\"}
	}
	if s.byName[name] != nil {
		return &FieldError{field + ".name", fmt.Sprintf("%q stands there twice", name), "list all keys of a person under one name"}
	}
	at := fmt.Sprintf("approvers[%s]", name)
	p := &person{name: name, roles: slices.Clone(a.GetRoles()), principals: slices.Clone(a.GetPrincipals())}
	if n := len(a.GetKeys()); n == 0 || n > maxKeys {
		return &FieldError{at + ".keys", fmt.Sprintf("has %d keys", n), fmt.Sprintf("give the person 1 to %d", maxKeys)}
	}
	for i, k := range a.GetKeys() {
		if err := s.addKey(fmt.Sprintf("%s.keys[%d]", at, i+1), p, k); err != nil {
			return err
		}
	}
	if len(p.roles) > maxRoles {
		return &FieldError{at + ".roles", fmt.Sprintf("has %d roles", len(p.roles)), fmt.Sprintf("take at most %d", maxRoles)}
	}
	for i, role := range p.roles {
		if problem := checkRole(role); problem != "" {
			return &FieldError{at + ".roles", problem, roleFix}
		}
		if slices.Contains(p.roles[:i], role) {
			return &FieldError{at + ".roles", fmt.Sprintf("has %q twice", role), "name it once"}
		}
	}
	if len(p.principals) > maxPrincipals {
		return &FieldError{at + ".principals", fmt.Sprintf("has %d", len(p.principals)), fmt.Sprintf("take at most %d", maxPrincipals)}
	}
	for _, principal := range p.principals {
		if len(principal) == 0 || len(principal) > maxPrincipal || !utf8.ValidString(principal) {
			return &FieldError{at + ".principals", fmt.Sprintf("%.80q is no identity", principal), "write it as the certificate has it: a SPIFFE ID, or a DNS name"}
		}
		if owner, taken := principals[principal]; taken {
			return &FieldError{at + ".principals", fmt.Sprintf("%q is %s's already", principal, owner), "an identity belongs to one person, once"}
		}
		principals[principal] = name
	}
	s.people, s.byName[name] = append(s.people, p), p
	return nil
}

// checkName keeps names to what stands unquoted in an allowed_signers file, and looks on a terminal as it is.
func checkName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxNameBytes:
		return fmt.Sprintf("has %d bytes", len(name))
	case !utf8.ValidString(name):
		return "is not UTF-8"
	}
	for _, r := range name {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || strings.ContainsRune(`,*?!"#\`, r) {
			return fmt.Sprintf("%q has the character %q", name, r)
		}
	}
	return ""
}

func (s *Set) addKey(field string, p *person, from *writv1.ApproverKey) error {
	public, err := parseKey(from.GetPublicKey())
	if err != nil {
		return &FieldError{field + ".public_key", err.Error(), "write it as in an authorized_keys file, as the .pub file has it: type, base64, comment"}
	}
	if what, fix := unusable(public); what != "" {
		return &FieldError{field + ".public_key", "is " + what, fix}
	}
	k := &key{public: public, fingerprint: ssh.FingerprintSHA256(public), owner: p, revoked: from.GetRevoked()}
	if at := from.GetExpiresAt(); at != nil {
		if err := at.CheckValid(); err != nil {
			return &FieldError{field + ".expires_at", "is no time", "write it as 2027-01-31T00:00:00Z, or leave it out"}
		}
		k.expires = at.AsTime()
	}
	if other := s.byKey[k.fingerprint]; other != nil {
		problem := fmt.Sprintf("%s stands there twice", k.fingerprint)
		if other.owner != p {
			problem = fmt.Sprintf("%s is a key of %s as well as of %s", k.fingerprint, other.owner.name, p.name)
		}
		return &FieldError{field + ".public_key", problem, "a key belongs to one person, once"}
	}
	s.byKey[k.fingerprint] = k
	p.keys = append(p.keys, k)
	p.usable = p.usable || !k.revoked
	return nil
}

// parseKey reads one line of an authorized_keys file, which must have no options: they would not be obeyed.
func parseKey(line string) (ssh.PublicKey, error) {
	line = strings.TrimSpace(line)
	switch {
	case line == "":
		return nil, fmt.Errorf("is empty")
	case strings.Contains(line, "PRIVATE KEY"):
		return nil, fmt.Errorf("is a private key, which is nobody else's to know")
	case len(line) > maxKeyText || strings.ContainsAny(line, "\r\n"):
		return nil, fmt.Errorf("is not one line")
	}
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.Contains(fields[0], "-") {
		return nil, fmt.Errorf("does not begin with a type of key and base64")
	}
	if strings.ContainsAny(fields[0], `=,"`) {
		return nil, fmt.Errorf("begins with options")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, fmt.Errorf("has broken base64")
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("is no key that can be read (%w)", err)
	}
	if public.Type() != fields[0] {
		return nil, fmt.Errorf("says %.64q and is of type %s", fields[0], public.Type())
	}
	if !bytes.Equal(public.Marshal(), blob) {
		return nil, fmt.Errorf("is encoded in an unusual way")
	}
	return public, nil
}

// unusable says what a key is that may not approve, and what to do instead; empty: it may approve.
func unusable(public ssh.PublicKey) (what, fix string) {
	const instead = "take a key made by: ssh-keygen -t ed25519"
	switch public.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return "", ""
	case ssh.KeyAlgoRSA:
		crypto, ok := public.(ssh.CryptoPublicKey)
		if !ok {
			return "an RSA key that cannot be looked into", instead
		}
		modulus, ok := crypto.CryptoPublicKey().(*rsa.PublicKey)
		if !ok {
			return "an RSA key that cannot be looked into", instead
		}
		if bits := modulus.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Sprintf("an RSA key of %d bits; %d to %d are taken", bits, minRSABits, maxRSABits), instead
		}
		return "", ""
	}
	if _, ok := public.(*ssh.Certificate); ok {
		return "a certificate", "give the key that it certifies: who may approve is said here, and by no authority"
	}
	return "a key of type " + public.Type() + ", which may not approve", instead
}

// Version counts the changes of the set.
func (s *Set) Version() uint64 { return s.version }

// Rule is the set's own rule, which holds where no other does. It must not be changed.
func (s *Set) Rule() *writv1.ApprovalRule { return s.rule }

// Approver is the name of the person that has that principal; empty: no approver has.
func (s *Set) Approver(principal string) string {
	for _, p := range s.people {
		if slices.Contains(p.principals, principal) {
			return p.name
		}
	}
	return ""
}
