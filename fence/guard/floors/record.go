package floors

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"hash/fnv"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// The file is a bbolt database with two buckets. Integers are big-endian.
//
//	state   "state" → format, name, version, base, witnessed, clean, number and digest of the floors, checksum
//	        "keys"  → checksum, length of the issuer, issuer, JSON Web Key Set
//	        "quorum", "openings" → checksum, JSON: the quorum enrolled with last, and what certificates of break-glass did
//	floors  resource → token, drained; the digest covers them
var (
	stateBucket  = []byte("writ-guard-state")
	floorsBucket = []byte("writ-guard-floors")
	stateKey     = []byte("state")
	keysKey      = []byte("keys")
	quorumKey    = []byte("quorum")
	openingsKey  = []byte("openings")
)

const (
	format = 1

	nameBytes  = 16
	floorBytes = 8 + 1
	stateBytes = 1 + nameBytes + 8 + 8 + 8 + 1 + 8 + 8 + 4

	maxResource = 512
	maxIssuer   = 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the record of the whole store.
type header struct {
	name      [nameBytes]byte
	version   uint64
	base      fence.Token
	witnessed fence.Token
	clean     bool
	// count and digest are of all floors, so that none can be missing unnoticed.
	count  uint64
	digest uint64
}

func (h *header) encode() []byte {
	b := make([]byte, 0, stateBytes)
	b = append(b, format)
	b = append(b, h.name[:]...)
	b = binary.BigEndian.AppendUint64(b, h.version)
	b = binary.BigEndian.AppendUint64(b, uint64(h.base))
	b = binary.BigEndian.AppendUint64(b, uint64(h.witnessed))
	b = append(b, flag(h.clean))
	b = binary.BigEndian.AppendUint64(b, h.count)
	b = binary.BigEndian.AppendUint64(b, h.digest)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte) (h header, err error) {
	if len(b) == 0 {
		return h, fmt.Errorf("%w: it has no state", ErrDamaged)
	}
	if b[0] != format {
		return h, fmt.Errorf("%w of format %d but of format %d: use the program that wrote it", ErrForeign, format, b[0])
	}
	if len(b) != stateBytes || binary.BigEndian.Uint32(b[stateBytes-4:]) != crc32.Checksum(b[:stateBytes-4], castagnoli) {
		return h, fmt.Errorf("%w: the checksum of its state does not match", ErrDamaged)
	}
	b = b[1:]
	b = b[copy(h.name[:], b):]
	h.version = binary.BigEndian.Uint64(b)
	h.base = fence.Token(binary.BigEndian.Uint64(b[8:]))
	h.witnessed = fence.Token(binary.BigEndian.Uint64(b[16:]))
	h.clean = b[24] != 0
	h.count = binary.BigEndian.Uint64(b[25:])
	h.digest = binary.BigEndian.Uint64(b[33:])
	if h.base < 0 || h.witnessed < 0 {
		return h, fmt.Errorf("%w: base %s or witnessed token %s is no token", ErrDamaged, h.base.Decimal(), h.witnessed.Decimal())
	}
	return h, nil
}

// state is what the gate wants to know of it, without the floors.
func (h *header) state() gate.State {
	return gate.State{
		Store: hex.EncodeToString(h.name[:]), Version: h.version, Base: h.base, Witnessed: h.witnessed, Clean: h.clean,
	}
}

func encodeFloor(f gate.Floor) []byte {
	b := make([]byte, 0, floorBytes)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Token))
	return append(b, flag(f.Drained))
}

func decodeFloor(resource, value []byte) (f gate.Floor, err error) {
	f.Resource = string(resource)
	if len(resource) == 0 || len(resource) > maxResource || len(value) != floorBytes {
		return f, fmt.Errorf("%w: the floor of %q has %d bytes", ErrDamaged, shorten(f.Resource), len(value))
	}
	f.Token, f.Drained = fence.Token(binary.BigEndian.Uint64(value)), value[8] != 0
	if f.Token <= 0 {
		return f, fmt.Errorf("%w: the floor of %q is %s, which is no token", ErrDamaged, shorten(f.Resource), f.Token.Decimal())
	}
	return f, nil
}

// digestOf is what a floor contributes to the digest of all, which is the exclusive or of these.
func digestOf(resource string, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(resource)) // a hash never fails
	_, _ = h.Write(value)
	return h.Sum64()
}

// Keys is what a guard verifies writs by.
type Keys struct {
	// Issuer is the name of the quorum; empty: not known yet.
	Issuer string
	// JWKS are its public keys as a JSON Web Key Set; empty: not known yet.
	JWKS string
}

func (k Keys) encode() []byte {
	b := make([]byte, 4, 4+2+len(k.Issuer)+len(k.JWKS))
	b = binary.BigEndian.AppendUint16(b, uint16(len(k.Issuer)))
	b = append(append(b, k.Issuer...), k.JWKS...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func decodeKeys(b []byte) (Keys, error) {
	if b == nil {
		return Keys{}, nil
	}
	if len(b) < 6 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) || len(b)-6 < int(binary.BigEndian.Uint16(b[4:])) {
		return Keys{}, fmt.Errorf("%w: the checksum of its keys does not match", ErrDamaged)
	}
	issuer := 6 + int(binary.BigEndian.Uint16(b[4:]))
	return Keys{Issuer: string(b[6:issuer]), JWKS: string(b[issuer:])}, nil
}

// encodeJSON writes what is small and rarely changes.
func encodeJSON(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(text, castagnoli)), text...), nil
}

// decodeJSON reads it; absent: what is there stays.
func decodeJSON(b []byte, what string, into any) error {
	switch {
	case b == nil:
		return nil
	case len(b) < 4 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli):
		return fmt.Errorf("%w: the checksum of its %s does not match", ErrDamaged, what)
	}
	if err := json.Unmarshal(b[4:], into); err != nil {
		return fmt.Errorf("%w: its %s cannot be read: %w", ErrDamaged, what, err)
	}
	return nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func shorten(s string) string { return s[:min(len(s), 64)] }
