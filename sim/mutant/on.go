//go:build mutants

package mutant

import "sync/atomic"

// Enabled says whether this build has mutants.
const Enabled = true

var active atomic.Pointer[ID]

// On tells whether that mutant is the active one.
func On(id ID) bool {
	chosen := active.Load()
	return chosen != nil && *chosen == id
}

// Use makes a mutant the active one, or none with "". It panics if there is no such mutant. What runs meanwhile may see
// either.
func Use(id ID) {
	if id == "" {
		active.Store(nil)
		return
	}
	if _, ok := Find(id); !ok {
		panic("mutant: there is no " + string(id))
	}
	active.Store(&id)
}
