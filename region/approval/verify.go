package approval

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// MaxSignature is the largest armored signature that is taken, in bytes.
const MaxSignature = 16 << 10

// Signer is who has signed.
type Signer struct {
	// Approver is the person.
	Approver string
	// Key is the fingerprint of the key that was used: SHA256:..., as ssh-keygen -l prints it.
	Key string
}

// Verify says whose signature over doc it is, if it counts at that instant: it has to be for the namespace, with SHA-256 or
// SHA-512, by a key of the set that is neither revoked nor expired. Errors are of type *Error.
func (s *Set) Verify(namespace string, doc []byte, armored string, at time.Time) (Signer, error) {
	sig, err := parse(armored)
	if err != nil {
		return Signer{}, err
	}
	fingerprint := ssh.FingerprintSHA256(sig.PublicKey)
	if what, fix := unusable(sig.PublicKey); what != "" {
		return Signer{}, &Error{Kind: ErrMalformed, Problem: "was made with " + what, Fix: fix, Key: fingerprint}
	}
	if sig.Namespace != namespace {
		return Signer{}, &Error{
			Kind: ErrNamespace, Key: fingerprint, Problem: fmt.Sprintf("was made for %.64q, not for %q", sig.Namespace, namespace),
			Fix: "sign with: ssh-keygen -Y sign -n " + namespace,
		}
	}
	k := s.byKey[fingerprint]
	if k == nil || !bytes.Equal(k.public.Marshal(), sig.PublicKey.Marshal()) {
		return Signer{}, &Error{
			Kind: ErrUnknownKey, Key: fingerprint, Problem: "was made with the key " + fingerprint + ", which no approver has",
			Fix: "sign with a key of the approvers, or have it added to them",
		}
	}
	whose := fmt.Sprintf("was made with %s's key %s, which ", k.owner.name, fingerprint)
	if k.revoked {
		return Signer{}, &Error{Kind: ErrRevoked, Key: fingerprint, Approver: k.owner.name, Problem: whose + "is revoked", Fix: "sign with another key"}
	}
	if !k.expires.IsZero() && !at.Before(k.expires) {
		return Signer{}, &Error{
			Kind: ErrExpired, Key: fingerprint, Approver: k.owner.name, Expired: k.expires,
			Problem: whose + "expired at " + k.expires.UTC().Format(time.RFC3339Nano), Fix: "sign with another key, or have the approvers changed",
		}
	}
	if err := sshsig.Verify(bytes.NewReader(doc), sig, k.public, sig.HashAlgorithm, namespace); err != nil {
		return Signer{}, &Error{
			Kind: ErrDigest, Key: fingerprint, Approver: k.owner.name,
			Problem: fmt.Sprintf("by %s is not over this document (SHA-256 %s)", k.owner.name, Digest(doc)),
			Fix:     "fetch the document again, read it and sign it unchanged",
		}
	}
	return Signer{Approver: k.owner.name, Key: fingerprint}, nil
}

// parse reads an armored signature, and takes it only in the way in which OpenSSH writes it.
func parse(armored string) (*sshsig.Signature, error) {
	if len(armored) > MaxSignature {
		return nil, malformed(fmt.Sprintf("has %d bytes", len(armored)))
	}
	text := strings.TrimSpace(armored)
	if !strings.HasPrefix(text, "-----BEGIN "+sshsig.PEMType+"-----") {
		return nil, malformed("does not begin with -----BEGIN SSH SIGNATURE-----")
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != sshsig.PEMType {
		return nil, malformed("is cut off, or its base64 is broken")
	}
	if len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, malformed("has something beside it in the armor")
	}
	sig, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return nil, malformed(fmt.Sprintf("cannot be read (%v)", err))
	}
	if !bytes.Equal(sig.Marshal(), block.Bytes) {
		return nil, malformed("is encoded in an unusual way")
	}
	return sig, checkRest(sig)
}

// userPresent is the flag that a hardware key sets when somebody has touched it.
const userPresent = 0x01

// checkRest looks at what follows the signature proper: nothing, or what a hardware key says of itself.
func checkRest(sig *sshsig.Signature) error {
	hardware := strings.HasPrefix(sig.PublicKey.Type(), "sk-")
	switch rest := sig.Signature.Rest; {
	case !hardware && len(rest) != 0 || hardware && len(rest) != 5:
		return malformed("has a wrong length")
	case hardware && rest[0]&userPresent == 0:
		return &Error{
			Kind: ErrMalformed, Key: ssh.FingerprintSHA256(sig.PublicKey), Problem: "was made by a hardware key that nobody touched",
			Fix: "sign with a key that wants to be touched: ssh-keygen -t ed25519-sk without -O no-touch-required",
		}
	}
	return nil
}
