package fence_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
)

func TestKeyFileRoundTrips(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.key")
	for _, seed := range []byte{'a', 'b'} { // the second replaces the first
		signer, _ := newSigner(t, seed)
		if err := fence.SaveSigner(path, signer); err != nil {
			t.Fatal(err)
		}
		loaded, err := fence.LoadSigner(path)
		if err != nil || loaded.KeyID() != signer.KeyID() {
			t.Fatalf("loaded %v, %v; want %v", loaded, err, signer)
		}
		if mustSign(t, loaded, testWrit()) != mustSign(t, signer, testWrit()) {
			t.Error("the loaded key signs differently")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	signer, _ := newSigner(t, 'a')
	if err := fence.SaveSigner(filepath.Join(dir, "missing", "node.key"), signer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("saving into a missing directory: %v", err)
	}
	// A directory cannot be replaced; nothing of the attempt may stay.
	if err := os.MkdirAll(filepath.Join(dir, "taken", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fence.SaveSigner(filepath.Join(dir, "taken"), signer); err == nil {
		t.Error("saved over a directory")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".taken.*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLoadSignerRefusesOpenModes(t *testing.T) {
	signer, _ := newSigner(t, 'a')
	path := filepath.Join(t.TempDir(), "node.key")
	for _, c := range []struct {
		mode os.FileMode
		ok   bool
	}{{0o600, true}, {0o400, true}, {0o700, true}, {0o640, false}, {0o604, false}, {0o620, false}, {0o602, false}, {0o644, false}, {0o601, false}} {
		if err := errors.Join(fence.SaveSigner(path, signer), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		_, err := fence.LoadSigner(path)
		if c.ok {
			if err != nil {
				t.Errorf("mode %o: %v", c.mode, err)
			}
			continue
		}
		wantInvalid(t, err, fence.ErrInvalidKey, path)
		if err != nil && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v does not say how to fix it", c.mode, err)
		}
	}
}

func TestLoadSignerRefusesContents(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.key")
	der, err := x509.MarshalPKCS8PrivateKey(testKey('a'))
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	good := block("PRIVATE KEY", der)
	for name, content := range map[string]string{
		"empty":       "",
		"no PEM":      "secret",
		"wrong type":  block("PUBLIC KEY", der),
		"damaged":     block("PRIVATE KEY", der[:20]),
		"two keys":    good + good,
		"truncated":   good[:len(good)/2],
		"another key": block("PRIVATE KEY", ecDER),
		"too large":   good + strings.Repeat("\n", 64<<10),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := fence.LoadSigner(path)
		if err == nil {
			t.Errorf("%s: loaded", name)
			continue
		}
		wantInvalid(t, err, fence.ErrInvalidKey, path)
	}
	_, err = fence.LoadSigner(dir)
	wantInvalid(t, err, fence.ErrInvalidKey, dir)
	if _, err := fence.LoadSigner(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
