package purity_test

import (
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"
	"golang.org/x/tools/go/packages"

	"github.com/writ-io/writ/sim/purity"
)

// Each package under testdata breaks the rules of one kind; the comments in it
// say what must be reported where, and nothing else may be.
func TestRules(t *testing.T) {
	analysistest.Run(t, analysistest.TestData(), purity.Analyzer,
		"concurrency", "clocks", "imports", "state", "maporder", "neighbours", "directives")
}

func TestCheckAgreesWithTheAnalyzer(t *testing.T) {
	pkg := load(t, "./testdata/src/neighbours")
	found, err := purity.Check(pkg)
	if err != nil {
		t.Fatal(err)
	}
	const want = "core.go:12:2: core: function helper is declared in shell.go, which is not a core file"
	if !strings.Contains(strings.Join(found, "\n"), want) {
		t.Errorf("Check found\n%s\nwant among it\n%s", strings.Join(found, "\n"), want)
	}
}

func TestCheckRefusesWhatDoesNotCompile(t *testing.T) {
	pkg := load(t, "./testdata/src/broken")
	if found, err := purity.Check(pkg); err == nil {
		t.Errorf("Check found %q in a package that does not compile, want an error", found)
	}
}

func load(t *testing.T, pattern string) *packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{Mode: purity.LoadMode}, pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) != 1 {
		t.Fatalf("loaded %d packages for %s, want 1", len(pkgs), pattern)
	}
	return pkgs[0]
}
