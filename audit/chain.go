package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrBroken says that a chain has a gap, a changed record or a wrong order.
var ErrBroken = errors.New("audit: chain broken")

// Head is the newest record of a chain. The zero Head is an empty chain.
type Head struct {
	Sequence uint64
	Hash     []byte // SHA-256 of the stored form; nil at sequence 0
}

// Record is one entry. Detail holds whatever the action needs to be understood, by name.
type Record struct {
	Sequence uint64            `json:"sequence,string"`
	Previous string            `json:"previous"` // hexadecimal hash of the record before, empty for the first
	At       time.Time         `json:"at"`       // the coordinator's wall clock
	Actor    string            `json:"actor"`
	Action   string            `json:"action"`
	Target   string            `json:"target"`
	Reason   string            `json:"reason,omitempty"`
	Detail   map[string]string `json:"detail,omitempty"`
}

// Append puts a record behind head: it sets Sequence and Previous and answers the stored form and the new head.
func Append(head Head, r Record) (stored []byte, next Head, err error) {
	r.Sequence = head.Sequence + 1
	r.Previous = hex.EncodeToString(head.Hash)
	r.At = r.At.UTC().Round(0)
	// Go writes the keys of a map in order, so that equal records have equal bytes.
	stored, err = json.Marshal(r)
	if err != nil {
		return nil, head, fmt.Errorf("audit: %w", err)
	}
	return stored, HeadOf(r, stored), nil
}

// Verify checks that stored is the record right behind head, and answers it with the new head. Errors: ErrBroken.
func Verify(head Head, stored []byte) (Record, Head, error) {
	r, err := Parse(stored)
	if err != nil {
		return Record{}, head, fmt.Errorf("%w: record %d: %w", ErrBroken, head.Sequence+1, err)
	}
	if r.Sequence != head.Sequence+1 {
		return Record{}, head, fmt.Errorf("%w: record %d follows record %d", ErrBroken, r.Sequence, head.Sequence)
	}
	if r.Previous != hex.EncodeToString(head.Hash) {
		return Record{}, head, fmt.Errorf("%w: record %d does not continue the one before it", ErrBroken, r.Sequence)
	}
	return r, HeadOf(r, stored), nil
}

// Parse reads the stored form of a record. It says nothing about the chain: see [Verify].
func Parse(stored []byte) (Record, error) {
	var r Record
	err := decodeStrict(stored, &r)
	return r, err
}

// HeadOf is the head of a chain that ends with that record.
func HeadOf(r Record, stored []byte) Head {
	sum := sha256.Sum256(stored)
	return Head{Sequence: r.Sequence, Hash: sum[:]}
}

// Is says whether both are the same head.
func (h Head) Is(other Head) bool {
	return h.Sequence == other.Sequence && bytes.Equal(h.Hash, other.Hash)
}

const hashBytes = sha256.Size
