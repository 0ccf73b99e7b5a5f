package writ_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
	"golang.org/x/tools/go/packages"

	"github.com/writ-io/writ/sim/purity"
)

const module = "github.com/writ-io/writ"

// coreFiles lists the files that hold a pure core, and so must carry the
// //writ:core directive. The list exists beside the directive so that neither
// can disappear without the other being missed.
var coreFiles = []string{
	"fence/gate/admit.go",
	"fence/gate/breakglass.go",
	"fence/gate/disk.go",
	"fence/gate/events.go",
	"fence/gate/gate.go",
	"fence/gate/link.go",
	"fence/gate/names.go",
	"fence/gate/page.go",
	"fence/gate/reason.go",
	"fence/gate/resource.go",
	"fence/gate/rules.go",
	"fence/gate/status.go",
	"lease/command.go",
	"lease/errors.go",
	"lease/guard.go",
	"lease/guard_rules.go",
	"lease/keeper.go",
	"lease/keeper_events.go",
	"lease/keeper_send.go",
	"lease/policy.go",
	"lease/record.go",
	"lease/record_stored.go",
	"lease/resource.go",
	"lease/table.go",
	"lease/table_fence.go",
	"lease/table_grant.go",
	"lease/table_guard.go",
	"lease/table_guard_admin.go",
	"lease/table_guard_calls.go",
	"lease/table_guard_glass.go",
	"lease/table_guard_open.go",
	"lease/table_hold.go",
	"lease/table_intern.go",
	"lease/table_notes.go",
	"lease/table_queue.go",
	"lease/table_attest.go",
	"lease/table_tenure.go",
	"lease/table_timers.go",
	"lease/tenure.go",
	"quorum/audit_prune.go",
	"quorum/engine.go",
	"quorum/engine_gather.go",
	"quorum/engine_guard.go",
	"quorum/engine_recover.go",
	"quorum/engine_region.go",
	"quorum/engine_round.go",
	"quorum/house.go",
	"quorum/image.go",
	"quorum/keys.go",
	"quorum/memory.go",
	"quorum/telling.go",
	"region/agents.go",
	"region/approvers.go",
	"region/automatic.go",
	"region/confidence.go",
	"region/contradicted.go",
	"region/drill.go",
	"region/explain.go",
	"region/groups.go",
	"region/groups_read.go",
	"region/loosen.go",
	"region/machine.go",
	"region/machine_events.go",
	"region/operations.go",
	"region/operations_sign.go",
	"region/promotion.go",
	"region/attestation.go",
	"region/promotion_calls.go",
	"region/promotion_checks.go",
	"region/promotion_hooks.go",
	"region/promotion_plan.go",
	"region/promotion_show.go",
	"region/promotion_states.go",
	"region/spec.go",
	"region/trace.go",
	"region/transitions.go",
	"region/agent/machine.go",
	"region/approval/errors.go",
	"region/approval/loosens.go",
	"region/approval/rule.go",
	"singleton/cron/control.go",
	"singleton/cron/encoder.go",
	"singleton/cron/events.go",
	"singleton/cron/machine.go",
	"singleton/cron/policy.go",
	"singleton/cron/slots.go",
	"singleton/cron/state.go",
	"singleton/partition/assign.go",
	"singleton/partition/machine.go",
	"singleton/partition/machine_events.go",
	"singleton/partition/machine_parts.go",
	"singleton/partition/names.go",
	"singleton/runner.go",
	"singleton/runner_events.go",
	"singleton/schedule/fields.go",
	"singleton/schedule/schedule.go",
}

func TestCoreFilesCarryTheDirective(t *testing.T) {
	marked := markedFiles(t)
	for _, name := range coreFiles {
		if !slices.Contains(marked, name) {
			t.Errorf("%s is in coreFiles but has no //writ:core directive (see the documentation of sim/purity for where it counts)", name)
		}
	}
	for _, name := range marked {
		if !slices.Contains(coreFiles, name) {
			t.Errorf("%s carries //writ:core; add it to coreFiles in house_test.go", name)
		}
	}
}

func TestCoresArePure(t *testing.T) {
	marked := markedFiles(t)
	if len(marked) == 0 {
		return // packages.Load would take no pattern for "."
	}
	var patterns []string
	for _, name := range marked {
		patterns = append(patterns, "./"+path.Dir(name))
	}
	slices.Sort(patterns)
	pkgs, err := packages.Load(&packages.Config{Mode: purity.LoadMode}, slices.Compact(patterns)...)
	if err != nil {
		t.Fatal(err)
	}
	checked := make(map[string]bool)
	for _, pkg := range pkgs {
		found, err := purity.Check(pkg)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, problem := range found {
			t.Error(problem)
		}
		for _, name := range pkg.CompiledGoFiles {
			checked[name] = true
		}
	}
	for _, name := range marked {
		absolute, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		if !checked[absolute] {
			t.Errorf("%s was not checked; if build constraints exclude it here, remove them: a core is the same on every platform", name)
		}
	}
}

// markedFiles returns the Go files with a valid //writ:core directive.
func markedFiles(t *testing.T) []string {
	t.Helper()
	var marked []string
	for name, content := range sources(t) {
		if path.Ext(name) != ".go" || !bytes.Contains(content, []byte("//writ:core")) {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if purity.IsCore(fset, file) {
			marked = append(marked, name)
		}
	}
	slices.Sort(marked)
	return marked
}

// Adding a dependency can silently downgrade etcd, since the new one may come
// with an older requirement that makes the whole build list settle elsewhere.
func TestEtcdIsPinned(t *testing.T) {
	const oldest, beyond = "v3.7.3", "v3.8.0-0"
	requires := requirements(t, "go.mod")
	server := requires["go.etcd.io/etcd/server/v3"]
	if semver.Compare(server, oldest) < 0 || semver.Compare(server, beyond) >= 0 {
		t.Errorf("go.mod requires etcd server %q, want at least %s and below v3.8; restore it with\n\tgo get go.etcd.io/etcd/server/v3@%s go.etcd.io/etcd/client/v3@%s",
			server, oldest, oldest, oldest)
	}
	for _, name := range []string{
		"go.etcd.io/etcd/client/v3", "go.etcd.io/etcd/api/v3", "go.etcd.io/etcd/pkg/v3", "go.etcd.io/etcd/client/pkg/v3",
	} {
		if requires[name] != server {
			t.Errorf("go.mod requires %s %q but the server %q; etcd's modules are tested only as one release, so make them equal",
				name, requires[name], server)
		}
	}
}

// Generated code refuses to run on a protobuf runtime older than its generator.
func TestGeneratorIsNotNewerThanRuntime(t *testing.T) {
	const protobuf = "google.golang.org/protobuf"
	runtime := requirements(t, "go.mod")[protobuf]
	generator := requirements(t, ".ci/tools/protogen/go.mod")[protobuf]
	if semver.Compare(generator, runtime) > 0 {
		t.Errorf(".ci/tools/protogen generates code with protobuf %s, but go.mod links the runtime %s; lower the former or raise the latter",
			generator, runtime)
	}
}

func requirements(t *testing.T, name string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := modfile.Parse(name, content, nil)
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]string)
	for _, require := range file.Require {
		versions[require.Mod.Path] = require.Mod.Version
	}
	for _, replace := range file.Replace {
		t.Errorf("%s replaces %s, which users of the module would not get; remove the replacement", name, replace.Old.Path)
	}
	return versions
}

// sources reads the Go files and go.mod files of the module, keyed by their
// slash-separated path.
//
// The go command reuses a test's result as long as the files that the test
// itself has opened are the same. It does not see what the go list below it
// opens, so every test here that asks go list opens the sources as well.
func sources(t *testing.T) map[string][]byte {
	t.Helper()
	contents := make(map[string][]byte)
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir // as the go command does
			}
			return nil
		}
		if filepath.Ext(base) != ".go" && base != "go.mod" {
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		contents[filepath.ToSlash(name)] = content
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return contents
}

// listed is what these tests want to know about a package from go list.
type listed struct {
	ImportPath string
	Imports    []string
	Module     *struct {
		Path, Version, Dir string
		Main               bool
	}
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	return goListIn(t, ".", args...)
}

// goListIn is goList for the module in dir.
func goListIn(t *testing.T, dir string, args ...string) []listed {
	t.Helper()
	sources(t)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-json=ImportPath,Imports,Module"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	var pkgs []listed
	for decoder := json.NewDecoder(&stdout); ; {
		var pkg listed
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("decode the output of %s: %v", strings.Join(cmd.Args, " "), err)
		}
		pkgs = append(pkgs, pkg)
	}
}
