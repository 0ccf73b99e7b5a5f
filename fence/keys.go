package fence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// MaxJWKSBytes is the longest JSON text that [ParseJWKS] reads.
const MaxJWKSBytes = 256 << 10

// KeySet is a set of public keys, by key id. It is an immutable value and safe
// for concurrent use. The zero KeySet is empty and verifies nothing.
type KeySet struct {
	keys map[string]ed25519.PublicKey // never changed once the set is made
}

// NewKeySet returns the set of the given keys. A key that is not 32 bytes long
// is [ErrInvalidKey].
func NewKeySet(public ...ed25519.PublicKey) (KeySet, error) {
	keys := make(map[string]ed25519.PublicKey, len(public))
	for _, key := range public {
		keyID, err := KeyID(key)
		if err != nil {
			return KeySet{}, err
		}
		keys[keyID] = bytes.Clone(key)
	}
	return KeySet{keys: keys}, nil
}

// Len returns the number of keys.
func (s KeySet) Len() int { return len(s.keys) }

// Has reports whether the set holds the key with this id.
func (s KeySet) Has(keyID string) bool {
	_, ok := s.keys[keyID]
	return ok
}

// KeyIDs returns the ids of all keys, sorted.
func (s KeySet) KeyIDs() []string { return slices.Sorted(maps.Keys(s.keys)) }

// Merge returns the set of the keys of both.
func (s KeySet) Merge(other KeySet) KeySet {
	merged := make(map[string]ed25519.PublicKey, len(s.keys)+len(other.keys))
	maps.Copy(merged, s.keys)
	maps.Copy(merged, other.keys)
	return KeySet{keys: merged}
}

// Without returns the set without the key with this id.
func (s KeySet) Without(keyID string) KeySet {
	rest := maps.Clone(s.keys)
	delete(rest, keyID)
	return KeySet{keys: rest}
}

// Verify checks a compact writ and returns what it says. It accepts only alg
// EdDSA, typ writ+jwt, a signature by the key of this set that kid names, and
// each claim of [Writ] exactly once with its type. Claims and header parameters
// that it does not know are passed over, except crit and whatever brings a key
// of its own, which are refused.
//
// Errors are [ErrUnknownKey] when the set lacks the key, and [ErrInvalidWrit]
// for everything else. A writ that verifies may still be stale, or for another
// resource: see [Writ.Require].
func (s KeySet) Verify(compact string) (Writ, error) {
	opened, err := openEnvelope(compact, WritType)
	if err != nil {
		return Writ{}, err
	}
	key, ok := s.keys[opened.keyID]
	if !ok {
		return Writ{}, invalid(ErrUnknownKey, "kid", opened.keyID, "fetch the key set of the quorum again")
	}
	if !ed25519.Verify(key, []byte(opened.signed), opened.signature) {
		return Writ{}, invalid(ErrInvalidWrit, "signature", "", "does not match: present the writ as it was issued")
	}
	return parseClaims(opened.payload)
}

// jwk is a public Ed25519 key as RFC 8037 writes it.
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Kid string `json:"kid"`
	Alg string `json:"alg"`
	Use string `json:"use"`
}

// MarshalJWKS returns the set as a JWK Set (RFC 7517), ordered by key id. The
// same set gives the same text.
func (s KeySet) MarshalJWKS() ([]byte, error) {
	keys := make([]jwk, 0, len(s.keys))
	for _, keyID := range s.KeyIDs() {
		keys = append(keys, jwk{
			Kty: "OKP", Crv: "Ed25519", X: base64url.EncodeToString(s.keys[keyID]),
			Kid: keyID, Alg: "EdDSA", Use: "sig",
		})
	}
	return json.Marshal(map[string][]jwk{"keys": keys})
}

// ParseJWKS reads a JWK Set. It takes the Ed25519 signing keys and, as RFC 7517
// asks, passes over keys of other kinds. A kid must be the key's thumbprint
// ([KeyID]). Text that is no JWK Set, and a set that gives away a private or a
// symmetric key, are [ErrInvalidKey]. A set without a usable key is not an
// error; see [KeySet.Len].
func ParseJWKS(data []byte) (KeySet, error) {
	if len(data) > MaxJWKSBytes {
		return KeySet{}, invalid(ErrInvalidKey, "jwks", "", "must not be longer than 256 KiB")
	}
	set, err := parseObject(ErrInvalidKey, "jwks", data)
	if err != nil {
		return KeySet{}, err
	}
	var list []json.RawMessage
	raw, ok := set.members["keys"]
	if !ok || json.Unmarshal(raw, &list) != nil || list == nil {
		return KeySet{}, invalid(ErrInvalidKey, "keys", "", "must be an array of keys")
	}
	keys := make(map[string]ed25519.PublicKey, len(list))
	for i, raw := range list {
		keyID, key, err := parseJWK(fmt.Sprintf("keys[%d]", i), raw)
		if err != nil {
			return KeySet{}, err
		}
		if key != nil {
			keys[keyID] = key
		}
	}
	return KeySet{keys: keys}, nil
}

// parseJWK returns a nil key for one of a kind that is not used here.
func parseJWK(field string, data []byte) (string, ed25519.PublicKey, error) {
	found, err := parseObject(ErrInvalidKey, field, data)
	if err != nil {
		return "", nil, err
	}
	for _, secret := range []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, leaked := found.members[secret]; leaked {
			return "", nil, invalid(ErrInvalidKey, field+"."+secret, "", "is a secret: publish the public key only, and replace this key")
		}
	}
	kty, err := found.text("kty")
	if err != nil {
		return "", nil, err
	}
	if kty != "OKP" || !found.matches("crv", "Ed25519") || !found.matchesOrAbsent("alg", "EdDSA") ||
		!found.matchesOrAbsent("use", "sig") {
		return "", nil, nil
	}
	x, err := found.text("x")
	if err != nil {
		return "", nil, err
	}
	key, err := base64url.DecodeString(x)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return "", nil, invalid(ErrInvalidKey, field+".x", x, "must be 32 bytes in unpadded base64url")
	}
	keyID, err := KeyID(key)
	if err != nil {
		return "", nil, err
	}
	if kid, err := found.text("kid"); err != nil || kid != keyID {
		return "", nil, invalid(ErrInvalidKey, field+".kid", kid, "must be the key's thumbprint "+keyID)
	}
	return keyID, key, nil
}

func (o object) matches(name, want string) bool {
	value, err := o.text(name)
	return err == nil && value == want
}

func (o object) matchesOrAbsent(name, want string) bool {
	_, there := o.members[name]
	return !there || o.matches(name, want)
}
