package approval

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// kinds are the keys that ssh-keygen makes without hardware.
var kinds = map[string][]string{
	"ed25519":   {"-t", "ed25519"},
	"ecdsa-256": {"-t", "ecdsa", "-b", "256"},
	"ecdsa-384": {"-t", "ecdsa", "-b", "384"},
	"ecdsa-521": {"-t", "ecdsa", "-b", "521"},
	"rsa-3072":  {"-t", "rsa", "-b", "3072"},
}

// needOpenSSH skips a test where OpenSSH is not installed, unless the environment says WRIT_CI=1: then it fails.
func needOpenSSH(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range append(programs, "ssh-keygen") {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("WRIT_CI") == "1" {
				t.Fatalf("%v; apt-get install openssh-client", err)
			}
			t.Skipf("%v; apt-get install openssh-client", err)
		}
	}
}

// keygen runs ssh-keygen, and answers what it printed.
func keygen(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "TZ=America/New_York", "SSH_ASKPASS_REQUIRE=never") // who writes local time is found out
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustKeygen(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	out, err := keygen(t, stdin, args...)
	if err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
	return out
}

// makeKey makes a key file, and answers its path and its public half.
func makeKey(t *testing.T, passphrase string, kind ...string) (path, public string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key")
	mustKeygen(t, nil, append([]string{"-q", "-a", "1", "-N", passphrase, "-C", "a comment", "-f", path}, kind...)...)
	return path, string(readFile(t, path+".pub"))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keygenSign signs as an approver without writ does.
func keygenSign(t *testing.T, key, namespace string, doc []byte, more ...string) string {
	t.Helper()
	plan := writeFile(t, "plan.json", doc)
	mustKeygen(t, nil, append(append([]string{"-Y", "sign", "-f", key, "-n", namespace}, more...), plan)...)
	return string(readFile(t, plan+".sig"))
}

// keygenVerify checks as an auditor without writ does.
func keygenVerify(t *testing.T, allowed []byte, who, namespace, armored string, doc []byte, more ...string) error {
	t.Helper()
	out, err := keygen(t, doc, append([]string{
		"-Y", "verify", "-f", writeFile(t, "allowed_signers", allowed),
		"-I", who, "-n", namespace, "-s", writeFile(t, "plan.json.sig", []byte(armored)),
	}, more...)...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func planBytes(t testing.TB) []byte {
	t.Helper()
	doc, err := document().Encode()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// Both directions, with every kind of key: what ssh-keygen signs counts here, and what is signed here counts there.
func TestOpenSSHAgrees(t *testing.T) {
	needOpenSSH(t)
	doc := planBytes(t)
	_, other := newKey(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			key, public := makeKey(t, "", kind...)
			s := checked(t, setOf(approver("ada@example.com", public), approver("bob", other)))
			theirs := map[string]string{"": keygenSign(t, key, Namespace, doc), "sha256": keygenSign(t, key, Namespace, doc, "-O", "hashalg=sha256")}
			for hash, armored := range theirs {
				got, err := s.Verify(Namespace, doc, armored, now)
				if err != nil || got.Approver != "ada@example.com" {
					t.Fatalf("ssh-keygen's signature %s: %v, %v", hash, got, err)
				}
				if printed := mustKeygen(t, nil, "-l", "-f", key+".pub"); !strings.Contains(printed, " "+got.Key+" ") {
					t.Errorf("fingerprint %s, ssh-keygen prints %s", got.Key, printed)
				}
			}
			if _, err := s.Verify(Namespace, doc, keygenSign(t, key, "file", doc), now); !errors.Is(err, ErrNamespace) {
				t.Errorf("of another namespace: %v", err)
			}
			if _, err := s.Verify(Namespace, append(doc, '\n'), theirs[""], now); !errors.Is(err, ErrDigest) {
				t.Errorf("over another document: %v", err)
			}

			signer, err := LoadSigner(key, nil)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := Sign(signer, Namespace, doc)
			if err != nil {
				t.Fatal(err)
			}
			allowed := s.AllowedSigners(Namespace, now)
			if err := keygenVerify(t, allowed, "ada@example.com", Namespace, ours, doc); err != nil {
				t.Error(err)
			}
			if err := keygenVerify(t, allowed, "bob", Namespace, ours, doc); err == nil {
				t.Error("ssh-keygen takes it as another's")
			}
			if err := keygenVerify(t, allowed, "ada@example.com", Namespace, ours, doc[1:]); err == nil {
				t.Error("ssh-keygen takes it for another document")
			}
			ours, err = Sign(signer, "file", doc)
			if err != nil {
				t.Fatal(err)
			}
			if err := keygenVerify(t, allowed, "ada@example.com", "file", ours, doc); err == nil {
				t.Error("ssh-keygen takes another namespace")
			}
		})
	}
}

// ssh-keygen with the exported file says yes exactly when Verify does, to the second.
func TestAllowedSignersExpire(t *testing.T) {
	needOpenSSH(t)
	doc := planBytes(t)
	ada, a := newKey(t)
	_, b := newKey(t)
	_, c := newKey(t)
	armored, err := Sign(ada, Namespace, doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, expires := range []time.Time{now, now.Add(time.Second / 2)} {
		set := setOf(approver("ada", a), approver("bob", b, c), approver("günter", must2(newKey(t))))
		set.Approvers[0].Keys[0].ExpiresAt = timestamppb.New(expires)
		set.Approvers[1].Keys[0].Revoked = true
		s := checked(t, set)
		allowed := s.AllowedSigners(Namespace, now.Add(-time.Hour))
		if lines := bytes.Count(allowed, []byte("\n")); lines != 3 || bytes.Contains(allowed, []byte(strings.Fields(b)[1])) {
			t.Errorf("allowed signers:\n%s", allowed)
		}
		for _, at := range []time.Time{now.Add(-time.Second), now, now.Add(time.Second)} {
			_, here := s.Verify(Namespace, doc, armored, at)
			there := keygenVerify(t, allowed, "ada", Namespace, armored, doc, "-Overify-time="+at.Format("20060102150405Z"))
			if (here == nil) != (there == nil) {
				t.Errorf("expires at %v: at %v we say %v, ssh-keygen says %v", expires, at, here, there)
			}
		}
		if left := s.AllowedSigners(Namespace, expires); bytes.Contains(left, []byte("ada")) {
			t.Errorf("an expired key is still allowed:\n%s", left)
		}
	}
}

func must2[A, B any](_ A, b B) B { return b }

func TestOpenSSHWeakKeys(t *testing.T) {
	needOpenSSH(t)
	doc := planBytes(t)
	_, a := newKey(t)
	_, b := newKey(t)
	s := checked(t, setOf(approver("ada", a), approver("bob", b)))
	for want, kind := range map[string][]string{"RSA key of 2048 bits": {"-t", "rsa", "-b", "2048"}, "ssh-dss": {"-t", "dsa"}} {
		path := filepath.Join(t.TempDir(), "key")
		if out, err := keygen(t, nil, append([]string{"-q", "-N", "", "-f", path}, kind...)...); err != nil {
			t.Logf("this ssh-keygen makes no %s: %s", want, out)
			continue
		}
		if _, err := s.Verify(Namespace, doc, keygenSign(t, path, Namespace, doc), now); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("verified: %v", err)
		}
		if _, err := LoadSigner(path, nil); err == nil {
			t.Error("it is loaded")
		}
		if _, err := NewSet(setOf(&writv1.Approver{Name: "x", Keys: []*writv1.ApproverKey{{PublicKey: string(readFile(t, path+".pub"))}}})); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("in a set: %v", err)
		}
	}
}

func TestLoadSigner(t *testing.T) {
	needOpenSSH(t)
	locked, public := makeKey(t, "correct horse", "-t", "ed25519")
	asked := 0
	say := func(phrases ...string) func() ([]byte, error) {
		asked = 0
		return func() ([]byte, error) {
			asked++
			if asked > len(phrases) {
				return nil, errors.New("no more")
			}
			return []byte(phrases[asked-1]), nil
		}
	}
	signer, err := LoadSigner(locked, say("wrong", "correct horse"))
	if err != nil || asked != 2 || line(signer.PublicKey()) != strings.Join(strings.Fields(public)[:2], " ") {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	open, _ := makeKey(t, "", "-t", "ed25519")
	shared, _ := makeKey(t, "", "-t", "ed25519")
	if err := os.Chmod(shared, 0o640); err != nil {
		t.Fatal(err)
	}
	pub := writeFile(t, "public", []byte(public))
	for want, test := range map[string]struct {
		path string
		ask  func() ([]byte, error)
	}{
		"is encrypted with another passphrase":    {locked, func() ([]byte, error) { return []byte("x"), nil }},
		"is encrypted and there is nobody to ask": {locked, nil},
		"nobody there":                         {locked, func() ([]byte, error) { return nil, errors.New("nobody there") }},
		"may be opened by others (-rw-r-----)": {shared, nil},
		"is a public key":                      {pub, nil},
		"holds no private key":                 {writeFile(t, "x", []byte("secret words")), nil},
		"is too large for a key":               {writeFile(t, "x", make([]byte, maxKeyFile+1)), nil},
		"is not a regular file":                {filepath.Dir(open), nil},
		"no such file":                         {open + "x", nil},
	} {
		_, err := LoadSigner(test.path, test.ask)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v; want %q", err, want)
		}
	}
	if _, err := LoadSigner(locked, say("a", "b", "c", "correct horse")); err == nil || asked != maxTries {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
