package guard

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
)

func verifierOf(t *testing.T, limit int, signers ...*fence.Signer) *verifier {
	t.Helper()
	var keys []ed25519.PublicKey
	for _, s := range signers {
		keys = append(keys, s.Public())
	}
	set, err := fence.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(limit)
	v.trust(set, "q")
	return v
}

func writ(t *testing.T, s *fence.Signer, n int) string {
	t.Helper()
	compact, err := s.Sign(fence.Writ{
		Issuer: "q", Resource: fmt.Sprint("r", n), Holder: "h", Token: fence.Token(1<<48 + n + 1), IssuedAt: time.Unix(1e9, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// Memory is bounded, what is used stays, and what is not is forgotten.
func TestVerifierForgetsTheUnused(t *testing.T) {
	s, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	const limit = 64 << 10
	v := verifierOf(t, limit, s)
	popular, unused := writ(t, s, 0), writ(t, s, 1)
	for _, w := range []string{popular, unused} {
		if _, _, err := v.verify(w); err != nil {
			t.Fatal(err)
		}
	}
	size := 2*len(popular) + entryBytes
	for i := range 4 * limit / size {
		if p, known, err := v.verify(writ(t, s, i+2)); err != nil || !known || p.resource != fmt.Sprint("r", i+2) {
			t.Fatalf("%+v %v %v", p, known, err)
		}
		if _, _, err := v.verify(popular); err != nil {
			t.Fatal(err)
		}
		if _, writs := v.count(); writs*size > limit+size {
			t.Fatalf("%d writs of %d bytes", writs, size)
		}
	}
	if _, there := v.young[popular]; !there {
		t.Error("the popular one was forgotten")
	}
	_, young := v.young[unused]
	if _, old := v.old[unused]; young || old {
		t.Error("the unused one was kept")
	}
}

// A writ whose verification began under keys that are withdrawn meanwhile is not remembered.
func TestVerifierDoesNotRememberAcrossAChange(t *testing.T) {
	s, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	v := verifierOf(t, 1<<20, s)
	w := writ(t, s, 1)
	v.mu.RLock()
	changes := v.changes
	v.mu.RUnlock()
	v.trust(fence.KeySet{}, "q")
	v.keep(w, proven{resource: "r1", token: 1}, changes)
	if _, known, err := v.verify(w); known || err != nil {
		t.Errorf("known %v, %v", known, err)
	}
	other, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	set, err := fence.NewKeySet(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	v.trust(set, "q")
	if _, _, err := v.verify(w); !errors.Is(err, fence.ErrUnknownKey) {
		t.Errorf("error %v", err)
	}
}

func TestVerifierWithoutMemory(t *testing.T) {
	s, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	v := verifierOf(t, -1, s)
	for range 2 {
		if _, known, err := v.verify(writ(t, s, 1)); err != nil || !known {
			t.Fatal(err)
		}
	}
	if _, writs := v.count(); writs != 0 {
		t.Errorf("%d kept", writs)
	}
}

func TestLinkWaits(t *testing.T) {
	for failures := 1; failures < 200; failures++ {
		wait := linkWait(failures, 3)
		if wait < 20*time.Millisecond || wait > linkMostWait*6/5 {
			t.Fatalf("%v after %d failures", wait, failures)
		}
		if failures > 60 && wait < time.Second {
			t.Fatalf("%v after %d failures: no backoff", wait, failures)
		}
		if failures < 3 && wait > 50*time.Millisecond {
			t.Fatalf("%v before the third node is tried", wait)
		}
	}
}
