package fence

import (
	"crypto/ed25519"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// MaxStatementBytes is the longest payload of a statement, so that its compact
// form fits into [MaxWritBytes].
const MaxStatementBytes = 4 << 10

// SignStatement returns a payload as a compact JWS with alg EdDSA and that typ
// header, which must not be [WritType]: nothing but a writ is signed as one. A
// payload that is too long, or such a type, is [ErrInvalidWrit].
func (s *Signer) SignStatement(typ string, payload []byte) (string, error) {
	if typ == WritType || typ == "" {
		return "", invalid(ErrInvalidWrit, "typ", typ, "use a type of its own")
	}
	if len(payload) > MaxStatementBytes {
		return "", invalid(ErrInvalidWrit, "payload", "", "must not be longer than 4 KiB")
	}
	jws, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: s.private, KeyID: s.keyID}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)),
	)
	if err != nil {
		return "", fmt.Errorf("fence: making a signer: %w", err)
	}
	signed, err := jws.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("fence: signing: %w", err)
	}
	return signed.CompactSerialize()
}

// SignStatement signs with the current key. See [Signer.SignStatement].
func (r *KeyRing) SignStatement(typ string, payload []byte) (string, error) {
	return r.Current().SignStatement(typ, payload)
}

// VerifyStatement checks a compact JWS of that type as [KeySet.Verify] does,
// and returns its payload and the id of the key that signed it. Errors are
// [ErrUnknownKey] and [ErrInvalidWrit].
func (s KeySet) VerifyStatement(typ, compact string) (payload []byte, keyID string, err error) {
	opened, err := openEnvelope(compact, typ)
	if err != nil {
		return nil, "", err
	}
	key, ok := s.keys[opened.keyID]
	if !ok {
		return nil, "", invalid(ErrUnknownKey, "kid", opened.keyID, "get the key set that the statement was signed under")
	}
	if !ed25519.Verify(key, []byte(opened.signed), opened.signature) {
		return nil, "", invalid(ErrInvalidWrit, "signature", "", "does not match: present the statement as it was signed")
	}
	return opened.payload, opened.keyID, nil
}
