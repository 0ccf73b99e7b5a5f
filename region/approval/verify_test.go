package approval

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// hardware signs as a FIDO key of OpenSSH does.
type hardware struct {
	public ssh.PublicKey
	flags  byte
	sign   func(data []byte) []byte
}

func (h *hardware) PublicKey() ssh.PublicKey { return h.public }

func (h *hardware) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest := []byte{h.flags, 0, 0, 0, 7} // the counter
	signed := append(append(application[:], rest...), message[:]...)
	return &ssh.Signature{Format: h.public.Type(), Blob: h.sign(signed), Rest: rest}, nil
}

func hardwareKeys(t testing.TB) map[string]*hardware {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := curve.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	parse := func(parts any) ssh.PublicKey {
		key, err := ssh.ParsePublicKey(ssh.Marshal(parts))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	return map[string]*hardware{
		"sk-ed25519": {
			public: parse(struct {
				Type        string
				Key         []byte
				Application string
			}{ssh.KeyAlgoSKED25519, public, "ssh:"}),
			sign: func(data []byte) []byte { return ed25519.Sign(private, data) },
		},
		"sk-ecdsa": {
			public: parse(struct {
				Type, Curve string
				Point       []byte
				Application string
			}{ssh.KeyAlgoSKECDSA256, "nistp256", point, "ssh:"}),
			sign: func(data []byte) []byte {
				digest := sha256.Sum256(data)
				r, s, err := ecdsa.Sign(rand.Reader, curve, digest[:])
				if err != nil {
					t.Fatal(err)
				}
				return ssh.Marshal(struct{ R, S *big.Int }{r, s})
			},
		},
	}
}

func TestHardwareKeys(t *testing.T) {
	doc := planBytes(t)
	_, other := newKey(t)
	for name, key := range hardwareKeys(t) {
		s := checked(t, setOf(approver("ada", line(key.public)), approver("bob", other)))
		key.flags = 0x01
		armored, err := Sign(key, Namespace, doc)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := s.Verify(Namespace, doc, armored, now); err != nil || got.Approver != "ada" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if _, err := s.Verify(Namespace, doc[1:], armored, now); !errors.Is(err, ErrDigest) {
			t.Errorf("%s over another document: %v", name, err)
		}
		t.Run(name+" with ssh-keygen", func(t *testing.T) {
			needOpenSSH(t)
			if err := keygenVerify(t, s.AllowedSigners(Namespace, now), "ada", Namespace, armored, doc); err != nil {
				t.Error(err)
			}
		})
		for _, flags := range []byte{0x00, 0x04} { // 4: a PIN was typed, which is no touch
			key.flags = flags
			if _, err := Sign(key, Namespace, doc); err == nil || !strings.Contains(err.Error(), "nobody touched") {
				t.Errorf("%s: signed: %v", name, err)
			}
			sig, err := sshsig.Sign(strings.NewReader(string(doc)), key, sshsig.HashSHA512, Namespace)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Verify(Namespace, doc, string(sshsig.Armor(sig)), now)
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "nobody touched") {
				t.Errorf("%s untouched: %v", name, err)
			}
		}
	}
}

// rewrap changes the bytes in the armor.
func rewrap(armored string, change func([]byte) []byte) string {
	block, _ := pem.Decode([]byte(armored))
	block.Bytes = change(block.Bytes)
	return string(pem.EncodeToMemory(block))
}

func TestVerifyMalformed(t *testing.T) {
	doc := planBytes(t)
	ada, a := newKey(t)
	_, b := newKey(t)
	s := checked(t, setOf(approver("ada", a), approver("bob", b)))
	good, err := Sign(ada, Namespace, doc)
	if err != nil {
		t.Fatal(err)
	}
	authority, _ := newKey(t)
	certificate := &ssh.Certificate{Key: ada.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(certificate, ada)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(certified, Namespace, doc); err == nil || !strings.Contains(err.Error(), "is a certificate") {
		t.Errorf("signed with a certificate: %v", err)
	}
	byCertificate, err := sshsig.Sign(strings.NewReader(string(doc)), certified, sshsig.HashSHA512, Namespace)
	if err != nil {
		t.Fatal(err)
	}
	padded := &sshsig.Signature{Version: 1, PublicKey: ada.PublicKey(), Namespace: Namespace, HashAlgorithm: sshsig.HashSHA512}
	if padded.Signature, err = ada.Sign(rand.Reader, doc); err != nil {
		t.Fatal(err)
	}
	padded.Signature.Rest = []byte{1}

	for name, test := range map[string]struct{ armored, want string }{
		"nothing":         {"", "does not begin with -----BEGIN SSH SIGNATURE-----"},
		"words":           {"yes, do it", "does not begin with"},
		"a key":           {a, "does not begin with"},
		"too long":        {good + strings.Repeat(" ", MaxSignature), "bytes"},
		"before it":       {"hello\n" + good, "does not begin with"},
		"behind it":       {good + "hello", "has something beside it"},
		"two":             {good + good, "has something beside it"},
		"header":          {strings.Replace(good, "SIGNATURE-----\n", "SIGNATURE-----\nA: b\n\n", 1), "has something beside it"},
		"cut":             {good[:len(good)-30], "is cut off"},
		"base64":          {strings.Replace(good, "U1NI", "U1N!", 1), "is cut off, or its base64 is broken"},
		"magic":           {rewrap(good, func(b []byte) []byte { b[0]++; return b }), "cannot be read"},
		"version":         {rewrap(good, func(b []byte) []byte { b[9]++; return b }), "cannot be read"},
		"longer":          {rewrap(good, func(b []byte) []byte { return append(b, 0) }), "cannot be read"},
		"shorter":         {rewrap(good, func(b []byte) []byte { return b[:len(b)-1] }), "cannot be read"},
		"empty":           {rewrap(good, func([]byte) []byte { return nil }), "cannot be read"},
		"reserved":        {rewrap(good, withReserved), "is encoded in an unusual way"},
		"hash":            {rewrap(good, func(b []byte) []byte { return []byte(strings.Replace(string(b), "sha512", "sha384", 1)) }), "cannot be read"},
		"certificate":     {string(sshsig.Armor(byCertificate)), "was made with a certificate"},
		"something after": {string(sshsig.Armor(padded)), "has a wrong length"},
	} {
		got, err := s.Verify(Namespace, doc, test.armored, now)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), test.want) || got != (Signer{}) {
			t.Errorf("%s: %v, %v; want %q", name, got, err, test.want)
		}
	}
	if _, err := s.Verify(Namespace, doc, "\n"+strings.ReplaceAll(good, "\n", "\r\n"), now); err != nil {
		t.Errorf("with other ends of lines: %v", err)
	}
	flipped := rewrap(good, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	if _, err := s.Verify(Namespace, doc, flipped, now); !errors.Is(err, ErrDigest) {
		t.Errorf("with a bit flipped: %v", err)
	}
}

// withReserved puts something into the field that is reserved.
func withReserved(blob []byte) []byte {
	at := strings.Index(string(blob), Namespace) + len(Namespace)
	changed := append([]byte{}, blob[:at]...)
	changed = append(changed, 0, 0, 0, 1, 'x')
	return append(changed, blob[at+4:]...)
}

func FuzzVerify(f *testing.F) {
	doc := planBytes(f)
	ada, a := newKey(f)
	_, b := newKey(f)
	s, err := NewSet(setOf(approver("ada", a), approver("bob", b)))
	if err != nil {
		f.Fatal(err)
	}
	good, err := Sign(ada, Namespace, doc)
	if err != nil {
		f.Fatal(err)
	}
	want, _ := pem.Decode([]byte(good))
	f.Add(want.Bytes, true)
	f.Add([]byte(good), false)
	for _, key := range hardwareKeys(f) {
		key.flags = 1
		armored, err := Sign(key, Namespace, doc)
		if err != nil {
			f.Fatal(err)
		}
		block, _ := pem.Decode([]byte(armored))
		f.Add(block.Bytes, true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, wrap bool) {
		armored := string(raw)
		if wrap {
			armored = string(pem.EncodeToMemory(&pem.Block{Type: sshsig.PEMType, Bytes: raw}))
		}
		_, err := s.Verify(Namespace, doc, armored, now)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Kind == nil || e.Problem == "" || e.Fix == "") {
			t.Fatalf("%#v", err)
		}
		if block, _ := pem.Decode([]byte(armored)); err == nil && string(block.Bytes) != string(want.Bytes) {
			t.Fatalf("a signature that nobody made counts: %q", armored)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	doc := planBytes(b)
	ada, a := newKey(b)
	_, other := newKey(b)
	s, err := NewSet(setOf(approver("ada", a), approver("bob", other)))
	if err != nil {
		b.Fatal(err)
	}
	armored, err := Sign(ada, Namespace, doc)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Verify(Namespace, doc, armored, now); err != nil {
			b.Fatal(err)
		}
	}
}
