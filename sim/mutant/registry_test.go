package mutant

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// module is where the source of the module stands, seen from here.
const module = "../.."

var asks = regexp.MustCompile(`\bmutant\.On\((?:mutant\.(\w+)\))?`)

func TestEveryMutantIsAskedForAtOnePlace(t *testing.T) {
	places := map[ID][]string{}
	err := filepath.WalkDir(module, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != module && (name == "testdata" || name == "mutant" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		for _, found := range asks.FindAllSubmatch(source, -1) {
			if len(found[1]) == 0 {
				t.Errorf("%s asks for something else than a mutant.Name", path)
				continue
			}
			places[ID(found[1])] = append(places[ID(found[1])], path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range Registry {
		if len(places[m.ID]) != 1 {
			t.Errorf("%s is asked for in %q, want one place", m.ID, places[m.ID])
		}
		delete(places, m.ID)
	}
	for id, where := range places {
		t.Errorf("%s, asked for in %q, is not in the registry", id, where)
	}
}

func TestTheRegistryIsComplete(t *testing.T) {
	invariants, err := os.ReadFile(filepath.Join(module, "docs", "INVARIANTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[ID]bool{}
	for _, m := range Registry {
		if m.ID == "" || seen[m.ID] || m.What == "" || m.Needs == "" || len(m.Kills) == 0 {
			t.Errorf("%+v is twice there, or not whole", m)
		}
		seen[m.ID] = true
		for _, invariant := range m.Kills {
			if !strings.Contains(string(invariants), "| **"+invariant+"**") {
				t.Errorf("%s breaks %q, which is no invariant", m.ID, invariant)
			}
		}
		if found, ok := Find(m.ID); !ok || found.What != m.What {
			t.Errorf("%s is not found", m.ID)
		}
	}
	if _, ok := Find("nothing"); ok {
		t.Error("there is a mutant of that name")
	}
}
