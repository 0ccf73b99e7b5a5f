package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
)

// HeadType is the typ header of a signed head.
const HeadType = "writ-head+jwt"

// ErrHead says that a signed head is not acceptable: damaged, forged, or not of this chain.
var ErrHead = errors.New("audit: bad signed head")

// SignedHead is what a node says of a chain: it saw that record. On the wire it is a compact JWS by the node's writ key.
type SignedHead struct {
	Node        string
	Cluster     string
	Incarnation string
	Head        Head
	// At is the node's wall clock, for people.
	At time.Time
}

// claims is the payload of a signed head, in the order in which it is written.
type claims struct {
	Node        string    `json:"node"`
	Cluster     string    `json:"cluster"`
	Incarnation string    `json:"incarnation"`
	Sequence    uint64    `json:"sequence,string"`
	Hash        string    `json:"hash"`
	At          time.Time `json:"at"`
}

// StatementSigner signs statements; fence.Signer and fence.KeyRing do.
type StatementSigner interface {
	SignStatement(typ string, payload []byte) (string, error)
}

// Sign signs a head.
func (h SignedHead) Sign(signer StatementSigner) (string, error) {
	payload, err := json.Marshal(claims{
		Node: h.Node, Cluster: h.Cluster, Incarnation: h.Incarnation,
		Sequence: h.Head.Sequence, Hash: hex.EncodeToString(h.Head.Hash), At: h.At.UTC().Round(0),
	})
	if err != nil {
		return "", fmt.Errorf("audit: %w", err)
	}
	return signer.SignStatement(HeadType, payload)
}

// VerifyHead checks the signature of a head, and answers what it says and the id of the key. Errors: ErrHead.
func VerifyHead(keys fence.KeySet, signed string) (h SignedHead, keyID string, err error) {
	payload, keyID, err := keys.VerifyStatement(HeadType, signed)
	if err != nil {
		return SignedHead{}, "", fmt.Errorf("%w: %w", ErrHead, err)
	}
	var c claims
	if err := decodeStrict(payload, &c); err != nil {
		return SignedHead{}, "", fmt.Errorf("%w: %w", ErrHead, err)
	}
	hash, err := parseHash(c.Hash)
	if err != nil || c.Sequence == 0 {
		return SignedHead{}, "", fmt.Errorf("%w: it names record %d with the hash %q", ErrHead, c.Sequence, c.Hash)
	}
	return SignedHead{
		Node: c.Node, Cluster: c.Cluster, Incarnation: c.Incarnation, At: c.At, Head: Head{Sequence: c.Sequence, Hash: hash},
	}, keyID, nil
}

// parseHash reads a hash in the one spelling that is written.
func parseHash(s string) ([]byte, error) {
	hash, err := hex.DecodeString(s)
	if err != nil || len(hash) != hashBytes || s != strings.ToLower(s) {
		return nil, fmt.Errorf("%q is not a SHA-256 in lower-case hexadecimal", s)
	}
	return hash, nil
}

// decodeStrict reads one JSON value and nothing behind it.
func decodeStrict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the end")
	}
	return nil
}
