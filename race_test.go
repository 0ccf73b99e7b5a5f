package writ_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// raceNot is the variable of the Makefile that lists what is not run under the race detector.
var raceNot = regexp.MustCompile(`(?m)^RACE_NOT := (.+)$`)

// TestNothingConcurrentIsKeptFromTheRaceDetector holds the packages that it skips to one goroutine, their tests included.
func TestNothingConcurrentIsKeptFromTheRaceDetector(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	list := raceNot.FindSubmatch(makefile)
	if list == nil {
		t.Fatal("the Makefile has no RACE_NOT: change this test with it")
	}
	for _, dir := range strings.Fields(string(list[1])) {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Errorf("%s: no Go files (%v)", dir, err)
		}
		for _, path := range paths {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, why := range concurrent(t, path, source) {
				t.Errorf("%s %s: take it off RACE_NOT in the Makefile", path, why)
			}
		}
	}
}

// concurrent says what of a file may run beside something else.
func concurrent(t *testing.T, path string, source []byte) (why []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "sync", "sync/atomic", "testing/synctest", "golang.org/x/sync/errgroup", "net", "net/http", "google.golang.org/grpc":
			why = append(why, "imports "+name)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			why = append(why, "starts a goroutine")
		case *ast.SelectorExpr:
			switch n.Sel.Name {
			case "Parallel", "AfterFunc", "RunParallel":
				why = append(why, "calls "+n.Sel.Name)
			}
		}
		return true
	})
	return why
}

func TestConcurrent(t *testing.T) {
	for source, want := range map[string]int{
		"package p\nimport \"fmt\"\nfunc f() { fmt.Println() }":                    0,
		"package p\nfunc f() { go f() }":                                           1,
		"package p\nimport \"sync\"\nvar m sync.Mutex":                             1,
		"package p\nimport \"testing\"\nfunc TestX(t *testing.T) { t.Parallel() }": 1,
	} {
		if why := concurrent(t, "p.go", []byte(source)); len(why) != want {
			t.Errorf("%s: %q", source, why)
		}
	}
}
