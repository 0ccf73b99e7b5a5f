package fence

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Signer signs writs with one private key. It is immutable and safe for
// concurrent use. It never prints its private key.
type Signer struct {
	private ed25519.PrivateKey
	keyID   string
	jws     jose.Signer
}

// NewSigner returns a signer for an Ed25519 private key of 64 bytes, of which
// it keeps a copy. A key of another length, or whose halves do not belong
// together, is [ErrInvalidKey].
func NewSigner(private ed25519.PrivateKey) (*Signer, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, invalid(ErrInvalidKey, "private key", "", "must be an Ed25519 private key of 64 bytes")
	}
	own := ed25519.NewKeyFromSeed(private.Seed())
	if !bytes.Equal(own, private) {
		return nil, invalid(ErrInvalidKey, "private key", "", "its public half belongs to another key: use a key as it was generated")
	}
	keyID, err := KeyID(own.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	jws, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: own, KeyID: keyID}},
		(&jose.SignerOptions{}).WithType(WritType),
	)
	if err != nil {
		return nil, fmt.Errorf("fence: making a signer: %w", err)
	}
	return &Signer{private: own, keyID: keyID, jws: jws}, nil
}

// GenerateSigner returns a signer with a new random key.
func GenerateSigner() (*Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("fence: generating a key: %w", err)
	}
	return NewSigner(private)
}

// KeyID returns the id of a public key: its JWK thumbprint with SHA-256
// (RFC 7638, RFC 8037) in base64url, 43 characters. A key that is not 32 bytes
// long is [ErrInvalidKey].
func KeyID(public ed25519.PublicKey) (string, error) {
	if len(public) != ed25519.PublicKeySize {
		return "", invalid(ErrInvalidKey, "public key", "", "must be an Ed25519 public key of 32 bytes")
	}
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("fence: thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// KeyID returns the id of the signer's key, which its writs carry as kid.
func (s *Signer) KeyID() string { return s.keyID }

// Public returns a copy of the public key.
func (s *Signer) Public() ed25519.PublicKey {
	return bytes.Clone(s.private.Public().(ed25519.PublicKey))
}

// String returns the key id; it keeps the private key out of logs.
func (s Signer) String() string { return "signer " + s.keyID }

// GoString returns the same as String.
func (s Signer) GoString() string { return s.String() }

// Sign returns w as a compact JWS. The same writ gives the same text. A field
// out of its range is [ErrInvalidWrit].
func (s *Signer) Sign(w Writ) (string, error) {
	payload, err := marshalClaims(w)
	if err != nil {
		return "", err
	}
	signed, err := s.jws.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("fence: signing: %w", err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("fence: signing: %w", err)
	}
	if len(compact) > MaxWritBytes {
		return "", invalid(ErrInvalidWrit, "writ", "", "would be longer than 8 KiB: use shorter names")
	}
	return compact, nil
}
