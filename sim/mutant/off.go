//go:build !mutants

package mutant

// Enabled says whether this build has mutants.
const Enabled = false

// On tells whether that mutant is the active one. In this build none can be.
func On(ID) bool { return false }

// Use makes a mutant the active one, or none with "". In this build it panics for any other.
func Use(id ID) {
	if id != "" {
		panic("mutant: " + string(id) + " needs a build with -tags mutants")
	}
}
