package pgfence

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// DefaultSchema is the schema that holds the fence's table and functions.
const DefaultSchema = "writ"

// The defaults of [BumpOptions] and [Config].
const (
	DefaultDrainTimeout = 10 * time.Second
	DefaultCutTimeout   = time.Second
	DefaultCutRounds    = 5
	DefaultTrust        = 10 * time.Second
)

// Verifier checks signed writs; [fence.KeySet] and [fence.KeyRing] are verifiers.
type Verifier interface {
	Verify(compact string) (fence.Writ, error)
}

// Config says how writers reach their fence. The zero Config is usable where writers present bare tokens.
type Config struct {
	// Schema is where the fence is installed; empty: [DefaultSchema].
	Schema string
	// Verifier checks the signed writs that writers present. Without one, only bare tokens can be presented.
	Verifier Verifier
	// Issuer is the quorum that must have issued the writs; empty: any whose key the Verifier knows.
	Issuer string
	// Trust is how long it is taken for granted, without asking the database, that the fence has been raised to a token;
	// 0: [DefaultTrust]. It matters only where a database is put back to an earlier state, and then only for how soon the
	// next transaction raises the fence again: the database itself checks every write.
	Trust time.Duration
	// Bump is how the fence is raised when a newer token is presented first.
	Bump BumpOptions
	// Clock is for tests; nil: [clock.System].
	Clock clock.Clock
}

// Validate names the first field that cannot be used and how to put it right.
func (c Config) Validate() error {
	if err := checkSchema(c.schema()); err != nil {
		return err
	}
	if c.Issuer != "" && c.Verifier == nil {
		return fmt.Errorf("pgfence: Config.Issuer is set but Verifier is not: set both, or neither")
	}
	if c.Trust < 0 {
		return fmt.Errorf("pgfence: Config.Trust %v is negative: use 0 for the default", c.Trust)
	}
	return c.Bump.Validate()
}

func (c Config) schema() string {
	if c.Schema == "" {
		return DefaultSchema
	}
	return c.Schema
}

// BumpOptions says how long a bump waits for older transactions, and what it does then.
type BumpOptions struct {
	// DrainTimeout is how long older transactions may go on; 0: [DefaultDrainTimeout]. New ones are refused from the
	// beginning.
	DrainTimeout time.Duration
	// CutTimeout is how long a terminated backend may take to end; 0: [DefaultCutTimeout].
	CutTimeout time.Duration
	// CutRounds is how often backends are terminated before the bump gives up; 0: [DefaultCutRounds].
	CutRounds int
	// NoCut lets older transactions end by themselves: the bump gives up after DrainTimeout.
	NoCut bool
}

// Validate names the first field that cannot be used and how to put it right.
func (o BumpOptions) Validate() error {
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"DrainTimeout", o.DrainTimeout}, {"CutTimeout", o.CutTimeout}} {
		// PostgreSQL takes a lock_timeout of 0 for endless, and counts milliseconds in 31 bits.
		if f.value != 0 && (f.value < time.Millisecond || f.value > 24*time.Hour) {
			return fmt.Errorf("pgfence: BumpOptions.%s is %v: use 1ms to 24h, or 0 for the default", f.name, f.value)
		}
	}
	if o.CutRounds < 0 || o.CutRounds > 1000 {
		return fmt.Errorf("pgfence: BumpOptions.CutRounds is %d: use 1 to 1000, or 0 for the default", o.CutRounds)
	}
	return nil
}

func (o BumpOptions) withDefaults() BumpOptions {
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.CutTimeout == 0 {
		o.CutTimeout = DefaultCutTimeout
	}
	if o.CutRounds == 0 {
		o.CutRounds = DefaultCutRounds
	}
	return o
}

// A schema's name stands in the text of functions, so it is held to what needs no quoting anywhere.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func checkSchema(name string) error {
	if !schemaName.MatchString(name) || strings.HasPrefix(name, "pg_") || name == "information_schema" || name == "public" {
		return fmt.Errorf("pgfence: schema %q: use up to 63 lower-case letters, digits and underscores, and a schema of its own", name)
	}
	return nil
}

func checkResource(name string) error {
	bad := len(name) < 1 || len(name) > 512 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	if bad {
		return fmt.Errorf("%w: resource %.80q: use 1 to 512 bytes of printable UTF-8", ErrInvalid, name)
	}
	return nil
}

// checkToken takes any positive number, for a fence orders tokens and leaves it to others which of them can be granted.
func checkToken(t fence.Token) error {
	if t <= 0 {
		return &fence.InvalidError{Kind: fence.ErrInvalidToken, Field: "token", Value: t.Decimal(), Fix: "use a granted token"}
	}
	return nil
}
