//go:build mutants

package mutant

import "testing"

func TestOneMutantIsOn(t *testing.T) {
	defer Use("")
	if !Enabled {
		t.Error("this build has no mutants")
	}
	for _, chosen := range append(Registry, Mutant{}) {
		Use(chosen.ID)
		for _, m := range Registry {
			if On(m.ID) != (m.ID == chosen.ID) {
				t.Errorf("%q was chosen, and %s is %v", chosen.ID, m.ID, On(m.ID))
			}
		}
	}
	Use(FloorInMemory, AdmitUnseeded)
	if !On(FloorInMemory) || !On(AdmitUnseeded) || On(EarlyExpiry) {
		t.Error("two were chosen, and are not those that are on")
	}
	defer func() {
		if recover() == nil {
			t.Error("what does not exist can be turned on")
		}
	}()
	Use("nothing")
}
