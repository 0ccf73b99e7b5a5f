//go:build mutants

package proxy_test

import (
	"flag"

	_ "pgregory.net/rapid" // the hunt sets its flags, whatever the package

	"github.com/writ-io/writ/sim/mutant"
)

func init() {
	flag.Func("mutant", "plant this mutant in the proxy: only the tests of this package can kill it", func(id string) error {
		mutant.Use(mutant.ID(id))
		return nil
	})
}
