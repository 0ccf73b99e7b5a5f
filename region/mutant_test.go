//go:build mutants

package region

import (
	"flag"
	"os"
	"testing"

	"github.com/writ-io/writ/sim/mutant"
)

// planted is for mutants that only the tests of this package can kill.
var planted = flag.String("mutant", "", "plant this mutant in the machine")

func TestMain(m *testing.M) {
	flag.Parse()
	mutant.Use(mutant.ID(*planted))
	os.Exit(m.Run())
}
