package fence

import (
	"crypto/ed25519"
	"sync"
)

// KeyRing signs with one key while it changes, without a moment in which a writ
// is refused. A rotation has four steps:
//
//  1. Stage makes the next key, and [KeyRing.Keys] lists it from then on.
//  2. Publish the key set and wait until every verifier has it.
//  3. Rotate signs with the staged key; the old public key stays in the set.
//  4. Remove the old public key once none of its writs is needed any more.
//
// A KeyRing stores nothing: write each key with [SaveSigner] before the step
// that uses it. It is safe for concurrent use.
type KeyRing struct {
	mu      sync.RWMutex
	current *Signer // guarded by mu; never nil
	staged  *Signer // guarded by mu; nil when no rotation is under way
	keys    KeySet  // guarded by mu. Invariant: holds the keys of current and staged.
}

// NewKeyRing returns a ring that signs with current and also lists the keys of
// others, which may be the zero KeySet. A nil current is [ErrInvalidKey].
func NewKeyRing(current *Signer, others KeySet) (*KeyRing, error) {
	if current == nil {
		return nil, invalid(ErrInvalidKey, "signer", "", "must be given")
	}
	keys, err := withKey(others, current)
	if err != nil {
		return nil, err
	}
	return &KeyRing{current: current, keys: keys}, nil
}

func withKey(keys KeySet, s *Signer) (KeySet, error) {
	own, err := NewKeySet(s.private.Public().(ed25519.PublicKey))
	if err != nil {
		return KeySet{}, err
	}
	return keys.Merge(own), nil
}

// Keys returns the present set: current, staged and old keys.
func (r *KeyRing) Keys() KeySet {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys
}

// Current returns the signer in use.
func (r *KeyRing) Current() *Signer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.current
}

// Staged returns the next signer, and false when none is staged.
func (r *KeyRing) Staged() (*Signer, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.staged, r.staged != nil
}

// Sign signs with the current key. See [Signer.Sign].
func (r *KeyRing) Sign(w Writ) (string, error) { return r.Current().Sign(w) }

// Verify verifies with the present set. See [KeySet.Verify].
func (r *KeyRing) Verify(compact string) (Writ, error) { return r.Keys().Verify(compact) }

// Stage makes the next key and lists it. When one is staged already it returns
// that one, so that a repeated call starts no second rotation.
func (r *KeyRing) Stage() (*Signer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.staged != nil {
		return r.staged, nil
	}
	next, err := GenerateSigner()
	if err != nil {
		return nil, err
	}
	if err := r.stage(next); err != nil {
		return nil, err
	}
	return next, nil
}

// Restage puts back a staged key that was saved before a restart. It is
// [ErrInvalidKey] for a nil or the current signer, and while another is staged.
func (r *KeyRing) Restage(next *Signer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case next == nil:
		return invalid(ErrInvalidKey, "signer", "", "must be given")
	case next.keyID == r.current.keyID:
		return invalid(ErrInvalidKey, "kid", next.keyID, "is the current key: stage another")
	case r.staged != nil && r.staged.keyID != next.keyID:
		return invalid(ErrInvalidKey, "kid", r.staged.keyID, "is staged already: rotate first")
	}
	return r.stage(next)
}

// stage lists next as the staged key. The caller holds mu.
func (r *KeyRing) stage(next *Signer) error {
	keys, err := withKey(r.keys, next)
	if err != nil {
		return err
	}
	r.staged, r.keys = next, keys
	return nil
}

// Rotate makes the staged key the current one and returns the id of the old
// key, which stays in the set. With no key staged it is [ErrInvalidKey].
func (r *KeyRing) Rotate() (oldKeyID string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.staged == nil {
		return "", invalid(ErrInvalidKey, "rotation", "", "has no staged key: call Stage, publish the key set, then Rotate")
	}
	if !r.keys.Has(r.staged.keyID) {
		panic("fence: the staged key is not in the key set")
	}
	oldKeyID = r.current.keyID
	r.current, r.staged = r.staged, nil
	return oldKeyID, nil
}

// Remove takes an old public key out of the set; its writs are refused from
// then on. The current and the staged key cannot be removed: [ErrInvalidKey].
// An id that is not in the set is [ErrUnknownKey].
func (r *KeyRing) Remove(keyID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case keyID == r.current.keyID:
		return invalid(ErrInvalidKey, "kid", keyID, "is the current key: rotate first")
	case r.staged != nil && keyID == r.staged.keyID:
		return invalid(ErrInvalidKey, "kid", keyID, "is the staged key: rotate instead")
	case !r.keys.Has(keyID):
		return invalid(ErrUnknownKey, "kid", keyID, "use an id that the key set lists")
	}
	r.keys = r.keys.Without(keyID)
	return nil
}
