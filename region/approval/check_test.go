package approval_test

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/writ-io/writ/region/approval"
)

// Who does not know the approvers can still tell whose signature it is, and that it is one over the document.
func TestCheck(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	doc := []byte(`{"a":1}`)
	armored, err := approval.Sign(signer, "one@v1", doc)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := approval.Check("one@v1", doc, armored); err != nil || key != ssh.FingerprintSHA256(signer.PublicKey()) {
		t.Errorf("%q, %v", key, err)
	}
	for name, test := range map[string]struct {
		namespace, doc, armored string
		kind                    error
	}{
		"namespace": {"two@v1", string(doc), armored, approval.ErrNamespace},
		"document":  {"one@v1", string(doc) + "\n", armored, approval.ErrDigest},
		"armor":     {"one@v1", string(doc), armored[:len(armored)/2], approval.ErrMalformed},
		"nothing":   {"one@v1", string(doc), "", approval.ErrMalformed},
	} {
		if key, err := approval.Check(test.namespace, []byte(test.doc), test.armored); !errors.Is(err, test.kind) || key != "" {
			t.Errorf("%s: %q, %v", name, key, err)
		}
	}
}
