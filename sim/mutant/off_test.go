//go:build !mutants

package mutant

import "testing"

func TestNoMutantIsOn(t *testing.T) {
	if Enabled {
		t.Error("this build has mutants")
	}
	Use("")
	for _, m := range Registry {
		if On(m.ID) {
			t.Errorf("%s is on", m.ID)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s can be turned on", m.ID)
				}
			}()
			Use(m.ID)
		}()
	}
}
