//writ:core

package state

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

type core struct{ step int }

var _ fmt.Stringer = core{}

// Sentinels are constants in all but name.
var (
	errStale  = errors.New("stale")
	errStaler = fmt.Errorf("very %w", errStale)
)

var (
	counter  int                                      // want `core: package-level variable counter is state outside of the core`
	byName                        = map[string]int{}  // want `core: package-level variable byName`
	anyErr   any                  = errors.New("any") // want `core: package-level variable anyErr`
	lastErr  error                                    // want `core: package-level variable lastErr`
	fromFunc = error(firstErr())                      // want `core: package-level variable fromFunc`
	a, b     = 1, errors.New("b")                     // want `core: package-level variable a `
)

func firstErr() error { return errStaler }

func init() {} // want `core: func init runs before the first event`

func (c core) String() string {
	counter++               // want `core: assigns to package-level variable counter`
	byName["x"] = 1         // want `core: assigns to package-level variable byName`
	errStale = nil          // want `core: assigns to package-level variable errStale`
	_ = &counter            // want `core: takes the address of package-level variable counter`
	for counter = range 3 { // want `core: assigns to package-level variable counter`
	}
	for _, counter = range []int{} { // want `core: assigns to package-level variable counter`
	}
	c.step = counter // a local variable
	_ = binary.BigEndian.Uint64(nil)
	sha256.New().Write(nil) // declared by io.Writer, and yet pure
	return ""
}
