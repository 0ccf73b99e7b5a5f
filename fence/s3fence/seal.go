package s3fence

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/writ-io/writ/fence"
)

// TokenMetadata is the metadata (header x-amz-meta-writ-token) that repeats the token of a sealed object, so that it can
// be seen without reading the body. Of the object itself, nothing is decided by it.
const TokenMetadata = "writ-token"

// kind is what a sealed object stands for.
type kind string

const (
	live kind = "live"
	gone kind = "gone" // a tombstone: deleted, but the token must not be forgotten
)

// seal is the first line of a sealed object:
//
//	writ-seal/1 <token, decimal> <nonce, 32 hex digits> <kind>\n
//
// It is part of the body because an ETag is a digest of the body alone. Were the token only in the metadata, then writing
// the same bytes again under a newer token would leave the ETag as it was, and the old holder's conditional write, with
// the ETag that it read long ago, would succeed. The nonce makes every state of an object different from all others, and
// lets a writer recognise its own.
//
// Invariant: no two writes have the same nonce.
type seal struct {
	token fence.Token
	nonce string
	kind  kind
}

const (
	sealMagic  = "writ-seal/1"
	nonceBytes = 16
	// maxSealBytes bounds the first line: magic, 19 digits, nonce, kind, three spaces, line end.
	maxSealBytes = int64(len(sealMagic) + 19 + 2*nonceBytes + len(live) + 4)
)

func newNonce() string {
	var nonce [nonceBytes]byte
	_, _ = rand.Read(nonce[:]) // never fails
	return hex.EncodeToString(nonce[:])
}

// line returns the seal as it stands before the body.
func (s seal) line() []byte {
	return fmt.Appendf(nil, "%s %s %s %s\n", sealMagic, s.token.Decimal(), s.nonce, s.kind)
}

// openSeal takes a sealed body apart. There is one spelling of each seal. What does not begin like one is [ErrForeign],
// what begins like one and is none is [ErrDamaged].
func openSeal(data []byte) (seal, []byte, error) {
	if !bytes.HasPrefix(data, []byte(sealMagic+" ")) {
		return seal{}, nil, fmt.Errorf("%w: it has no seal", ErrForeign)
	}
	line, body, found := bytes.Cut(data, []byte("\n"))
	fields := strings.Split(string(line[:min(len(line), int(maxSealBytes))]), " ")
	if !found || len(fields) != 4 {
		return seal{}, nil, fmt.Errorf("%w: seal %s", ErrDamaged, quote(string(line)))
	}
	token, err := parseDecimal(fields[1])
	if err != nil {
		return seal{}, nil, fmt.Errorf("%w: seal: %w", ErrDamaged, err)
	}
	s := seal{token: token, nonce: fields[2], kind: kind(fields[3])}
	if !isHex(s.nonce, nonceBytes) {
		return seal{}, nil, fmt.Errorf("%w: seal: nonce %s", ErrDamaged, quote(s.nonce))
	}
	if s.kind != live && s.kind != gone {
		return seal{}, nil, fmt.Errorf("%w: seal: kind %s", ErrDamaged, quote(string(s.kind)))
	}
	return s, body, nil
}

// metadataToken reads the token of the metadata; zero: there is none.
func metadataToken(metadata map[string]string) (fence.Token, error) {
	var token fence.Token
	for name, value := range metadata {
		if !strings.EqualFold(name, TokenMetadata) {
			continue
		}
		if !token.IsZero() {
			return 0, fmt.Errorf("%w: metadata %s: given twice", ErrDamaged, TokenMetadata)
		}
		var err error
		if token, err = parseDecimal(value); err != nil {
			return 0, fmt.Errorf("%w: metadata %s: %w", ErrDamaged, TokenMetadata, err)
		}
	}
	return token, nil
}

// parseDecimal reads a valid token in the form for machines.
func parseDecimal(s string) (fence.Token, error) {
	if strings.Contains(s, ".") {
		return 0, &fence.InvalidError{Kind: fence.ErrInvalidToken, Field: "token", Value: s, Fix: "use a decimal integer"}
	}
	return fence.ParseToken(s)
}

// isHex reports whether s is n bytes in lower-case hexadecimal.
func isHex(s string, n int) bool {
	decoded, err := hex.DecodeString(s)
	return err == nil && len(decoded) == n && s == hex.EncodeToString(decoded)
}
