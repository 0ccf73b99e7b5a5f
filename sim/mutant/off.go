//go:build !mutants

package mutant

// Enabled says whether this build has mutants.
const Enabled = false

// On tells whether that mutant is the active one. In this build none can be.
func On(ID) bool { return false }

// Use makes some mutants the active ones, or none with none or "". In this build it panics for any.
func Use(ids ...ID) {
	for _, id := range ids {
		if id != "" {
			panic("mutant: " + string(id) + " needs a build with -tags mutants")
		}
	}
}
