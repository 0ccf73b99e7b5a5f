package sim

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/writ-io/writ/sim/plan"
)

// scenarios are plans with a story: what a mutant needs to show, what a bug that was found needed, and what a reader should
// see once.
//
//go:embed testdata/*.txt
var scenarios embed.FS

// Scenarios lists the names of the scenarios that come with the program, in order.
func Scenarios() []string {
	entries, err := scenarios.ReadDir("testdata")
	if err != nil {
		panic(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".txt"))
	}
	slices.Sort(names)
	return names
}

// Scenario answers the scenario of that name, and whether there is one.
func Scenario(name string) (plan.Plan, bool) {
	file := path.Join("testdata", name+".txt")
	text, err := scenarios.ReadFile(file)
	if err != nil {
		return plan.Plan{}, false
	}
	p, err := plan.Parse(file, text)
	if err != nil {
		panic(fmt.Sprintf("sim: a scenario of the program itself: %v", err)) // a test reads them all
	}
	return p, true
}
