//go:build mutants

package mutant

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Enabled says whether this build has mutants.
const Enabled = true

// planted names the mutants, separated by commas, that are active from the start: a program gets its bugs by
// -ldflags '-X github.com/writ-io/writ/sim/mutant.planted=ID,ID'.
var planted string

var active atomic.Pointer[[]ID]

func init() {
	var ids []ID
	for id := range strings.SplitSeq(planted, ",") {
		ids = append(ids, ID(id))
	}
	Use(ids...)
}

// On tells whether that mutant is active.
func On(id ID) bool {
	chosen := active.Load()
	return chosen != nil && slices.Contains(*chosen, id)
}

// Use makes some mutants the active ones, or none with none or "". It panics if there is no such mutant. What runs meanwhile
// may see either.
func Use(ids ...ID) {
	var chosen []ID
	for _, id := range ids {
		if id == "" {
			continue
		}
		if _, ok := Find(id); !ok {
			panic("mutant: there is no " + string(id))
		}
		chosen = append(chosen, id)
	}
	active.Store(&chosen)
}
