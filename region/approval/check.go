package approval

import (
	"bytes"
	"fmt"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Check says which key made a signature over doc, for those who do not know the approvers. Whether that key counts, only
// [Set.Verify] says. Errors are of type *Error.
func Check(namespace string, doc []byte, armored string) (key string, err error) {
	sig, err := parse(armored)
	if err != nil {
		return "", err
	}
	key = ssh.FingerprintSHA256(sig.PublicKey)
	if what, fix := unusable(sig.PublicKey); what != "" {
		return "", &Error{Kind: ErrMalformed, Problem: "was made with " + what, Fix: fix, Key: key}
	}
	if sig.Namespace != namespace {
		return "", &Error{
			Kind: ErrNamespace, Key: key, Problem: fmt.Sprintf("was made for %.64q, not for %q", sig.Namespace, namespace),
			Fix: "sign with: ssh-keygen -Y sign -n " + namespace,
		}
	}
	if err := sshsig.Verify(bytes.NewReader(doc), sig, sig.PublicKey, sig.HashAlgorithm, namespace); err != nil {
		return "", &Error{
			Kind: ErrDigest, Key: key, Problem: fmt.Sprintf("by %s is not over this document (SHA-256 %s)", key, Digest(doc)),
			Fix: "sign the document unchanged, without anything behind it",
		}
	}
	return key, nil
}
