package s3fence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/writ-io/writ/fence"
)

// Snapshot is one state of a manifest.
type Snapshot struct {
	// Token is the one that this state was written under.
	Token fence.Token
	// Revision counts the states; the first is 1.
	Revision uint64

	objects map[string]Ref
}

// Ref refers to a data object.
type Ref struct {
	// Key is below the prefix.
	Key string `json:"key"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is of the content, in hexadecimal.
	SHA256 string `json:"sha256"`
}

// Names returns the names of the snapshot, sorted.
func (s Snapshot) Names() []string { return slices.Sorted(maps.Keys(s.objects)) }

// Ref returns what a name refers to.
func (s Snapshot) Ref(name string) (Ref, bool) {
	ref, ok := s.objects[name]
	return ref, ok
}

func (s Snapshot) clone() Snapshot {
	s.objects = maps.Clone(s.objects)
	if s.objects == nil {
		s.objects = make(map[string]Ref)
	}
	return s
}

// stored is a snapshot as it is written. The token is in the seal.
type stored struct {
	Revision uint64         `json:"revision,string"`
	Objects  map[string]Ref `json:"objects"`
}

func (s Snapshot) encode() ([]byte, error) {
	objects := s.objects
	if objects == nil {
		objects = map[string]Ref{}
	}
	body, err := json.Marshal(stored{Revision: s.Revision, Objects: objects})
	if err != nil {
		return nil, err
	}
	return append(body, '\n'), nil
}

// decodeSnapshot reads a manifest that was sealed under token.
func decodeSnapshot(token fence.Token, body []byte) (Snapshot, error) {
	var in stored
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return Snapshot{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Snapshot{}, fmt.Errorf("%w: manifest: something follows it", ErrDamaged)
	}
	if in.Revision == 0 || in.Objects == nil {
		return Snapshot{}, fmt.Errorf("%w: manifest: revision and objects must be there", ErrDamaged)
	}
	for name, ref := range in.Objects {
		if err := checkName(name); err != nil {
			return Snapshot{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
		}
		// Nothing but data objects may be named, or Collect could be led to remove, and a reader to show, anything else.
		written, err := dataToken(ref.Key)
		if err != nil {
			return Snapshot{}, fmt.Errorf("%w: manifest: %s: %w", ErrDamaged, quote(name), err)
		}
		if written > token || ref.Size < 0 || !isHex(ref.SHA256, 32) {
			return Snapshot{}, fmt.Errorf("%w: manifest: %s: key, size or sha256 cannot be", ErrDamaged, quote(name))
		}
	}
	return Snapshot{Token: token, Revision: in.Revision, objects: in.Objects}, nil
}

// dataKey is where a data object lies. Its token has leading zeros, so that keys are listed in the order of tokens.
func dataKey(token fence.Token, nonce string) string {
	return fmt.Sprintf("%s%019d/%s", dataPrefix, int64(token), nonce)
}

// dataToken reads the token of a data object's key.
func dataToken(key string) (fence.Token, error) {
	rest, ok := strings.CutPrefix(key, dataPrefix)
	digits, nonce, slash := strings.Cut(rest, "/")
	if !ok || !slash || len(digits) != 19 || !isHex(nonce, nonceBytes) {
		return 0, invalid("key", key, "is not that of a data object")
	}
	return parseDecimal(strings.TrimLeft(digits, "0"))
}
