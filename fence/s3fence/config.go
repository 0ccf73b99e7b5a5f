package s3fence

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/writ-io/writ/fence"
)

const (
	// MaxKeyBytes is how long a whole key may be, prefix included.
	MaxKeyBytes = 1024
	// MaxNameBytes is how long a name in a manifest may be.
	MaxNameBytes = 512

	// What this package keeps for itself under the prefix.
	reserved    = ".writ-"
	fenceKey    = reserved + "fence"
	manifestKey = reserved + "manifest"
	dataPrefix  = reserved + "data/"
	verifyKey   = reserved + "verify/"

	// Defaults of Config.
	defaultMaxBytes = 16 << 20
	defaultAttempts = 32
)

// Config says where a fenced set of objects lies and how it is treated. All who write the same objects must agree on
// Resource, Prefix and Unfenced.
type Config struct {
	// Resource is the resource whose tokens fence the objects, for errors: 1 to 512 bytes.
	Resource string
	// Prefix begins every key; empty, or ending in "/". No two resources may share one, nor may one lie within another's.
	Prefix string
	// MaxBytes bounds the body of an object that is read as a whole: those of [Objects], and the manifest. 0: 16 MiB.
	MaxBytes int64
	// Attempts bounds how often a write is tried because others under the same token were faster. 0: 32.
	Attempts int
	// Unfenced leaves out the read of the fence object before each write of [Objects]: one request less, and
	// [Objects.Raise] then stops nobody. A [Manifest] never reads it.
	Unfenced bool
}

// Validate reports what is wrong with c; it matches [ErrInvalid].
func (c Config) Validate() error {
	switch {
	case c.Resource == "" || len(c.Resource) > 512 || !printable(c.Resource):
		return invalid("Resource", c.Resource, "use the resource's name: 1 to 512 bytes, printable")
	case c.MaxBytes < 0:
		return invalid("MaxBytes", fmt.Sprint(c.MaxBytes), "use at least 0")
	case c.Attempts < 0:
		return invalid("Attempts", fmt.Sprint(c.Attempts), "use at least 0")
	case c.Prefix == "":
		return nil
	case !strings.HasSuffix(c.Prefix, "/"):
		return invalid("Prefix", c.Prefix, `end it with "/"`)
	}
	return checkPath("Prefix", strings.TrimSuffix(c.Prefix, "/"), MaxKeyBytes/2)
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.Attempts == 0 {
		c.Attempts = defaultAttempts
	}
	return c
}

// checkKey refuses what is not a key of a user.
func (c Config) checkKey(key string) error {
	if err := checkPath("key", key, MaxKeyBytes-len(c.Prefix)); err != nil {
		return err
	}
	if strings.HasPrefix(key, reserved) {
		return invalid("key", key, "must not begin with "+reserved+", which this package keeps for itself")
	}
	return nil
}

// checkPath refuses keys that some storage would take for other keys, as one over a file system does with "a/../b".
func checkPath(field, path string, limit int) error {
	if path == "" || len(path) > limit {
		return invalid(field, path, fmt.Sprintf("use 1 to %d bytes", limit))
	}
	if !printable(path) {
		return invalid(field, path, "use printable UTF-8")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return invalid(field, path, `use no empty segment, "." or ".." between slashes`)
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxNameBytes || !printable(name) {
		return invalid("name", name, fmt.Sprintf("use 1 to %d bytes of printable UTF-8", MaxNameBytes))
	}
	return nil
}

func checkToken(token fence.Token) error {
	if token.Valid() {
		return nil
	}
	return &fence.InvalidError{Kind: fence.ErrInvalidToken, Field: "token", Value: token.Decimal(), Fix: "use the token that was granted"}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func invalid(field, value, fix string) error {
	return fmt.Errorf("%w: %s %s: %s", ErrInvalid, field, quote(value), fix)
}
