package fence_test

import (
	"errors"
	"testing"

	"github.com/writ-io/writ/fence"
)

func TestStatementsAreNotWrits(t *testing.T) {
	signer, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	const typ = "writ-head+jwt"
	compact, err := signer.SignStatement(typ, []byte(`{"a":"b"}`))
	if err != nil {
		t.Fatal(err)
	}
	payload, keyID, err := keys.VerifyStatement(typ, compact)
	if err != nil || string(payload) != `{"a":"b"}` || keyID != signer.KeyID() {
		t.Errorf("verified as %q by %s, %v", payload, keyID, err)
	}
	if _, err := keys.Verify(compact); !errors.Is(err, fence.ErrInvalidWrit) {
		t.Errorf("as a writ: %v, want ErrInvalidWrit", err)
	}
	if _, _, err := keys.VerifyStatement("another+jwt", compact); !errors.Is(err, fence.ErrInvalidWrit) {
		t.Errorf("as another type: %v, want ErrInvalidWrit", err)
	}
	for i := range compact {
		changed := []byte(compact)
		changed[i] ^= 1
		if _, _, err := keys.VerifyStatement(typ, string(changed)); err == nil {
			t.Errorf("changed at %d, it verifies", i)
		}
	}
	if _, _, err := (fence.KeySet{}).VerifyStatement(typ, compact); !errors.Is(err, fence.ErrUnknownKey) {
		t.Errorf("without the key: %v, want ErrUnknownKey", err)
	}
	for _, wrong := range []string{"", fence.WritType} {
		if _, err := signer.SignStatement(wrong, nil); !errors.Is(err, fence.ErrInvalidWrit) {
			t.Errorf("signed as %q: %v, want ErrInvalidWrit", wrong, err)
		}
	}
	if _, err := signer.SignStatement(typ, make([]byte, fence.MaxStatementBytes+1)); !errors.Is(err, fence.ErrInvalidWrit) {
		t.Errorf("signed a payload that is too long: %v", err)
	}
	if compact, err = signer.SignStatement(typ, make([]byte, fence.MaxStatementBytes)); err != nil || len(compact) > fence.MaxWritBytes {
		t.Errorf("the longest payload: %d bytes, %v", len(compact), err)
	}
}
