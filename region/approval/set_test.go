package approval

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

var now = time.Date(2026, 11, 21, 3, 12, 0, 0, time.UTC)

// newKey makes a key, and its line in an authorized_keys file.
func newKey(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, private)
}

func signerOf(t testing.TB, private any) (ssh.Signer, string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, line(signer.PublicKey())
}

func line(public ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
}

func approver(name string, lines ...string) *writv1.Approver {
	a := &writv1.Approver{Name: name}
	for _, l := range lines {
		a.Keys = append(a.Keys, &writv1.ApproverKey{PublicKey: l})
	}
	return a
}

func setOf(approvers ...*writv1.Approver) *writv1.ApproverSet {
	return &writv1.ApproverSet{Version: 1, Approvers: approvers, Rule: &writv1.ApprovalRule{People: 2}}
}

func checked(t testing.TB, set *writv1.ApproverSet) *Set {
	t.Helper()
	s, err := NewSet(set)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewSet(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	_, c := newKey(t)
	set := setOf(approver("ada@example.com", a+" ada's key", "  "+c+"  "), approver("Günter", b))
	set.Approvers[0].Principals = []string{"spiffe://prod/sre/ada"}
	s := checked(t, set)
	if s.Approver("spiffe://prod/sre/ada") != "ada@example.com" || s.Approver("") != "" || s.Approver("Günter") != "" {
		t.Errorf("principals are not known")
	}
	if s.Version() != 1 || s.Rule().GetPeople() != 2 {
		t.Errorf("version %d, rule %v", s.Version(), s.Rule())
	}
	set.Rule.People = 1
	if s.Rule().GetPeople() != 2 {
		t.Error("the set changes with what it was made from")
	}
}

func TestNewSetRefuses(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	_, c := newKey(t)
	certificate := &ssh.Certificate{Key: must(newKey(t)).PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	signer, _ := newKey(t)
	if err := certificate.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, weak := signerOf(t, short)
	dsa := line(parseDSA(t))

	for name, test := range map[string]struct {
		change func(*writv1.ApproverSet)
		want   string
	}{
		"no name":        {func(s *writv1.ApproverSet) { s.Approvers[0].Name = "" }, "approvers[0].name is empty"},
		"long name":      {func(s *writv1.ApproverSet) { s.Approvers[0].Name = strings.Repeat("x", 129) }, "approvers[0].name has 129 bytes"},
		"name of bytes":  {func(s *writv1.ApproverSet) { s.Approvers[0].Name = "\xff" }, "approvers[0].name is not UTF-8"},
		"name with ESC":  {func(s *writv1.ApproverSet) { s.Approvers[0].Name = "a\x1b[2Jb" }, `has the character '\x1b'`},
		"name with bidi": {func(s *writv1.ApproverSet) { s.Approvers[0].Name = "a\u202eb" }, `has the character '\u202e'`},
		"name, spaced":   {func(s *writv1.ApproverSet) { s.Approvers[0].Name = "Ada L" }, `has the character ' '`},
		"pattern":        {func(s *writv1.ApproverSet) { s.Approvers[0].Name = "*" }, `has the character '*'`},
		"one name twice": {func(s *writv1.ApproverSet) { s.Approvers[1].Name = "ada" }, `approvers[1].name "ada" stands there twice`},
		"no keys":        {func(s *writv1.ApproverSet) { s.Approvers[1].Keys = nil }, "approvers[bob].keys has 0 keys"},
		"17 keys": {func(s *writv1.ApproverSet) {
			for len(s.Approvers[1].Keys) < 17 {
				_, l := newKey(t)
				s.Approvers[1].Keys = append(s.Approvers[1].Keys, &writv1.ApproverKey{PublicKey: l})
			}
		}, "approvers[bob].keys has 17 keys"},
		"key of two": {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = a + " other comment" }, "is a key of ada as well as of bob"},
		"key twice": {func(s *writv1.ApproverSet) {
			s.Approvers[1].Keys = append(s.Approvers[1].Keys, s.Approvers[1].Keys[0])
		}, "approvers[bob].keys[2].public_key SHA256:"},
		"broken key": {func(s *writv1.ApproverSet) {
			s.Approvers[1].Keys = append(s.Approvers[1].Keys, &writv1.ApproverKey{PublicKey: c[:40] + "!" + c[41:]})
		}, "approvers[bob].keys[2].public_key has broken base64"},
		"cut key":     {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = c[:len(c)-8] }, "approvers[bob].keys[1].public_key is no key that can be read"},
		"no key":      {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = " " }, "keys[1].public_key is empty"},
		"one word":    {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = "ssh-ed25519" }, "does not begin with a type"},
		"base64 only": {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = strings.Fields(c)[1] + " x" }, "does not begin with a type"},
		"two lines":   {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = c + "\n" + b }, "is not one line"},
		"options":     {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = `command="x-y" ` + c }, "begins with options"},
		"other type":  {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = "ssh-rsa " + strings.Fields(c)[1] }, `says "ssh-rsa" and is of type ssh-ed25519`},
		"private key": {func(s *writv1.ApproverSet) {
			s.Approvers[1].Keys[0].PublicKey = "-----BEGIN OPENSSH PRIVATE KEY-----"
		}, "is a private key"},
		"certificate":   {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = line(certificate) }, "is a certificate; give the key that it certifies"},
		"RSA 2048":      {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = weak }, "is an RSA key of 2048 bits; 3072 to 16384 are taken"},
		"DSA":           {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].PublicKey = dsa }, "is a key of type ssh-dss, which may not approve"},
		"odd expiry":    {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].ExpiresAt = &timestamppb.Timestamp{Nanos: -1} }, "keys[1].expires_at is no time"},
		"odd role":      {func(s *writv1.ApproverSet) { s.Approvers[1].Roles = []string{"DBA"} }, `approvers[bob].roles "DBA" is no name of a role`},
		"role twice":    {func(s *writv1.ApproverSet) { s.Approvers[1].Roles = []string{"dba", "dba"} }, `approvers[bob].roles has "dba" twice`},
		"33 roles":      {func(s *writv1.ApproverSet) { s.Approvers[1].Roles = make([]string, 33) }, `has 33 roles`},
		"no principal":  {func(s *writv1.ApproverSet) { s.Approvers[1].Principals = []string{""} }, `is no identity`},
		"17 principals": {func(s *writv1.ApproverSet) { s.Approvers[1].Principals = make([]string, 17) }, `principals has 17`},
		"principal of two": {func(s *writv1.ApproverSet) {
			s.Approvers[0].Principals, s.Approvers[1].Principals = []string{"p"}, []string{"p"}
		}, `approvers[bob].principals "p" is ada's already`},
		"257 people": {func(s *writv1.ApproverSet) { s.Approvers = make([]*writv1.Approver, 257) }, "approvers has 257 people"},
		"no rule":    {func(s *writv1.ApproverSet) { s.Rule = nil }, "rule is missing"},
		"no people":  {func(s *writv1.ApproverSet) { s.Rule = &writv1.ApprovalRule{} }, "rule.people is 0"},
		"one person": {func(s *writv1.ApproverSet) { s.Rule.People = 1 }, "rule.people is 1; ask for at least 2"},
		"nobody":     {func(s *writv1.ApproverSet) { s.Rule = &writv1.ApprovalRule{None: true} }, "rule.none is not possible here"},
		"too many":   {func(s *writv1.ApproverSet) { s.Rule.People = 3 }, "rule.people is 3, and the set has 2 people who can sign"},
		"revoked":    {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].Revoked = true }, "rule.people is 2, and the set has 1 person who can sign"},
		"role": {func(s *writv1.ApproverSet) {
			s.Rule.Roles = []*writv1.RoleCount{{Role: "dba", People: 2}}
			s.Approvers[0].Roles = []string{"dba"}
		}, "rule.roles[0] asks for 2 people with role dba, and the set has 1 who can sign"},
	} {
		set := setOf(approver("ada", a), approver("bob", b))
		test.change(set)
		_, err := NewSet(set)
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), test.want) || field.Fix == "" {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
	}
}

func must(signer ssh.Signer, _ string) ssh.Signer { return signer }

// parseDSA makes up a key of a kind that OpenSSH has given up.
func parseDSA(t *testing.T) ssh.PublicKey {
	t.Helper()
	number := append([]byte{0, 0x80}, make([]byte, 127)...)
	blob := ssh.Marshal(struct {
		Name       string
		P, Q, G, Y []byte
	}{"ssh-dss", number, append([]byte{0, 0x80}, make([]byte, 19)...), []byte{2}, []byte{3}})
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatalf("%v: %s", err, base64.StdEncoding.EncodeToString(blob))
	}
	return public
}

func TestVerify(t *testing.T) {
	ada, a := newKey(t)
	ada2, a2 := newKey(t)
	bob, b := newKey(t)
	revoked, r := newKey(t)
	expiring, e := newKey(t)
	stranger, _ := newKey(t)
	set := setOf(approver("ada", a, a2), approver("bob", b, r, e))
	set.Approvers[1].Keys[1].Revoked = true
	set.Approvers[1].Keys[2].ExpiresAt = timestamppb.New(now)
	s := checked(t, set)
	doc := []byte(`{"a":1}`)

	for _, test := range []struct {
		name, namespace, doc string
		signer               ssh.Signer
		at                   time.Time
		approver             string
		kind                 error
		problem              string
	}{
		{"first key", Namespace, string(doc), ada, now, "ada", nil, ""},
		{"second key", Namespace, string(doc), ada2, now, "ada", nil, ""},
		{"other person", Namespace, string(doc), bob, now, "bob", nil, ""},
		{"not yet expired", Namespace, string(doc), expiring, now.Add(-1), "bob", nil, ""},
		{"expired", Namespace, string(doc), expiring, now, "bob", ErrExpired, "expired at 2026-11-21T03:12:00Z"},
		{"revoked", Namespace, string(doc), revoked, now, "bob", ErrRevoked, "bob's key " + ssh.FingerprintSHA256(revoked.PublicKey()) + ", which is revoked"},
		{"stranger", Namespace, string(doc), stranger, now, "", ErrUnknownKey, ssh.FingerprintSHA256(stranger.PublicKey()) + ", which no approver has"},
		{"namespace", "file", string(doc), ada, now, "", ErrNamespace, `was made for "file", not for "writ-approval@v1"`},
		{"document", Namespace, `{"a":2}`, ada, now, "ada", ErrDigest, "by ada is not over this document"},
	} {
		armored, err := Sign(test.signer, test.namespace, []byte(test.doc))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Verify(Namespace, doc, armored, test.at)
		key := ssh.FingerprintSHA256(test.signer.PublicKey())
		if test.kind == nil {
			if err != nil || got != (Signer{test.approver, key}) {
				t.Errorf("%s: %v, %v", test.name, got, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, test.kind) || e.Key != key || e.Approver != test.approver ||
			!strings.Contains(e.Problem, test.problem) || e.Fix == "" || got != (Signer{}) {
			t.Errorf("%s: %v, %v; want %v, %q", test.name, got, err, test.kind, test.problem)
		}
		if e != nil && test.name == "expired" && !e.Expired.Equal(now) {
			t.Errorf("expired since %v", e.Expired)
		}
	}
}

func TestMissing(t *testing.T) {
	names := []string{"ada", "bob", "carol", "dave"}
	var approvers []*writv1.Approver
	for _, name := range names {
		_, l := newKey(t)
		approvers = append(approvers, approver(name, l))
	}
	approvers[0].Roles = []string{"dba", "net"}
	approvers[1].Roles = []string{"dba"}
	approvers[0].Principals = []string{"spiffe://ada"}
	s := checked(t, setOf(approvers...))
	dba := func(people, dba uint32) *writv1.ApprovalRule {
		return &writv1.ApprovalRule{People: people, Roles: []*writv1.RoleCount{{Role: "dba", People: dba}, {Role: "net", People: 1}}}
	}
	for i, test := range []struct {
		rule      *writv1.ApprovalRule
		requester string
		signers   string
		want      string
	}{
		{nil, "", "", "2 more people"},
		{nil, "", "ada", "1 more person"},
		{nil, "", "ada ada ada", "1 more person"},
		{nil, "", "ada bob", ""},
		{nil, "", "ada eve", "1 more person"},
		{nil, "spiffe://ada", "ada", "1 more person other than the requester"},
		{nil, "ada", "ada", "1 more person other than the requester"},
		{nil, "spiffe://ada", "ada ada", "1 more person other than the requester"},
		{nil, "spiffe://ada", "ada bob", ""},
		{nil, "spiffe://ada", "carol bob", ""},
		{&writv1.ApprovalRule{None: true}, "", "", ""},
		{&writv1.ApprovalRule{}, "", "ada", "1 more person"}, // no rule is less than two people
		{dba(2, 1), "", "", "2 more people, one of them with role dba, one of them with role net"},
		{dba(2, 1), "", "carol", "1 more person with role dba and with role net"},
		{dba(2, 1), "", "bob", "1 more person with role net"},
		{dba(2, 1), "", "bob carol", "1 more person with role net"},
		{dba(2, 1), "", "ada carol", ""},
		{dba(2, 2), "", "carol dave", "2 more people, 2 of them with role dba, one of them with role net"},
		{dba(3, 2), "", "ada carol dave", "1 more person with role dba"},
		{dba(3, 2), "", "ada bob carol", ""},
	} {
		var signers []Signer
		for j, name := range strings.Fields(test.signers) {
			signers = append(signers, Signer{Approver: name, Key: fmt.Sprint(j)})
		}
		if got := s.Missing(test.rule, test.requester, signers); got != test.want {
			t.Errorf("%d: %s: %q, want %q", i, test.signers, got, test.want)
		}
	}
}
