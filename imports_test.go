package writ_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// anything lets a room import every other one.
const anything = "*"

// rooms is the import graph of the house: what the packages of a room may
// import of this module, besides their own room.
//
// A package belongs to the room whose name is its path or the longest prefix of
// it: lease/leasetest belongs to lease. The name fence/* stands for the packages
// below fence but not fence itself, for the one is an SDK and the others are
// the guard's shells and storage adapters.
//
// Test files are not held to it: a test of a client may start a real server.
var rooms = map[string][]string{
	".": {},
	// The planted bugs stand in the code that ships, so it asks whether one is active; without the build tag mutants
	// the answer is a constant, and the package imports nothing.
	"sim/mutant":  {},
	"api/writ/v1": {},
	// The clock that counts suspend is what holders, guards and nodes have in common, and nothing else is.
	"lease/clock": {"sim/mutant"},
	"fence":       {},
	// api/writ/v1 because records carry sets of approvers and rules as they are declared there.
	"audit":   {"fence", "region/approval", "api/writ/v1"},
	"lease":   {"lease/clock", "fence", "api/writ/v1", "sim/mutant"},
	"fence/*": {"fence", "lease/clock", "region/approval", "api/writ/v1", "sim/mutant"},
	// Who has signed what is judged by the quorum, by guards that people open without one, and by auditors offline.
	"region/approval": {"api/writ/v1", "sim/mutant"},
	"region":          {"region/approval", "lease", "lease/clock", "fence", "fence/*", "audit", "api/writ/v1", "sim/mutant"},
	"singleton":       {"lease", "lease/clock", "fence", "sim/mutant"},
	// Programs that people copy, and so built of nothing but what people import.
	"singleton/examples": {"singleton", "lease", "fence", "fence/*"},
	// api/writ/v1 because the records that the quorum stores are declared there,
	// in record.proto.
	"quorum":     {"region", "region/approval", "lease", "lease/clock", "audit", "fence", "api/writ/v1", "sim/mutant"},
	"api/server": {"quorum", "region", "region/approval", "singleton", "lease", "lease/clock", "audit", "fence", "api/writ/v1"},
	"jepsen":     {"audit", "region", "region/approval", "singleton", "lease", "lease/clock", "fence", "fence/*", "api/writ/v1"},
	"sim":        {anything},
	"cmd":        {anything},
}

// lightRooms and lightPackages are built into other people's programs and
// sidecars, where an etcd server would be a surprise.
var (
	lightRooms    = []string{"fence", "fence/*", "lease", "region", "region/approval", "singleton", "singleton/examples"}
	lightPackages = []string{module + "/cmd/writ-guard"}
)

func TestImportGraph(t *testing.T) {
	for _, pkg := range goList(t, "./...") {
		room, ok := roomOf(pkg.ImportPath)
		if !ok {
			t.Errorf("package %s belongs to no room; either move it below one of\n\t%s\nor add a room for it to the table in imports_test.go and to the documentation of the layout",
				pkg.ImportPath, strings.Join(slices.Sorted(maps.Keys(rooms)), " "))
			continue
		}
		for _, imported := range pkg.Imports {
			target, ours := roomOf(imported)
			if !ours || target == room || slices.Contains(rooms[room], anything) || slices.Contains(rooms[room], target) {
				continue
			}
			t.Errorf("%s imports %s, but room %q may import only %q; declare an interface where it is needed and pass the implementation in, or change the table in imports_test.go",
				pkg.ImportPath, imported, room, rooms[room])
		}
	}
}

// Go forbids cycles of packages, which still leaves room for cycles of rooms.
func TestRoomsFormNoCycle(t *testing.T) {
	done := make(map[string]bool)
	var visit func(room string, trail []string)
	visit = func(room string, trail []string) {
		if slices.Contains(trail, room) {
			t.Errorf("the table of rooms has a cycle: %s", strings.Join(append(trail, room), " → "))
			return
		}
		if done[room] {
			return
		}
		for _, target := range rooms[room] {
			if _, ok := rooms[target]; !ok && target != anything {
				t.Errorf("room %q may import %q, which is not a room", room, target)
			}
			visit(target, append(slices.Clone(trail), room))
		}
		done[room] = true
	}
	for room := range rooms {
		visit(room, nil)
	}
}

func TestRoomOf(t *testing.T) {
	for path, want := range map[string]string{
		module:                       ".",
		module + "/lease":            "lease",
		module + "/lease/clock":      "lease/clock",
		module + "/fence":            "fence",
		module + "/fence/guard":      "fence/*",
		module + "/fence/guard/http": "fence/*",
		module + "/api/writ/v1":      "api/writ/v1",
		module + "/api/server/x":     "api/server",
		module + "/api/writ/v2":      "",
		module + "/leasehold":        "",
		"github.com/writ-io/writer":  "",
		"time":                       "",
	} {
		if got, ok := roomOf(path); got != want || ok != (want != "") {
			t.Errorf("roomOf(%q) = %q, %v, want %q", path, got, ok, want)
		}
	}
}

// roomOf returns the room that a package of this module belongs to.
func roomOf(importPath string) (room string, ok bool) {
	if importPath == module {
		return ".", true
	}
	path, ours := strings.CutPrefix(importPath, module+"/")
	if !ours {
		return "", false
	}
	for candidate := range rooms {
		parent, below := strings.CutSuffix(candidate, "/*")
		matches := strings.HasPrefix(path, parent+"/") || path == parent && !below
		if matches && len(candidate) > len(room) {
			room = candidate
		}
	}
	return room, room != ""
}

func TestClientsDoNotPullTheServer(t *testing.T) {
	imports := make(map[string][]string)
	var roots []string
	for _, pkg := range goList(t, "-deps", "./...") {
		imports[pkg.ImportPath] = pkg.Imports
		room, _ := roomOf(pkg.ImportPath)
		if slices.Contains(lightRooms, room) || slices.Contains(lightPackages, pkg.ImportPath) {
			roots = append(roots, pkg.ImportPath)
		}
	}
	for _, root := range roots {
		if chain := chainToServer(imports, root); chain != nil {
			t.Errorf("%s is built into programs that are not nodes, but pulls etcd:\n\t%s",
				root, strings.Join(chain, "\n\t→ "))
		}
	}
}

// chainToServer returns the shortest chain of imports from root to a package of
// etcd or its consensus, or nil if there is none.
func chainToServer(imports map[string][]string, root string) []string {
	seen := map[string]bool{root: true}
	for queue := [][]string{{root}}; len(queue) > 0; queue = queue[1:] {
		chain := queue[0]
		last := chain[len(chain)-1]
		if strings.HasPrefix(last, "go.etcd.io/etcd/") || strings.HasPrefix(last, "go.etcd.io/raft/") {
			return chain
		}
		for _, next := range imports[last] {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, append(slices.Clone(chain), next))
			}
		}
	}
	return nil
}
