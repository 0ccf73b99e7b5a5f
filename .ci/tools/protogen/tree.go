package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// findSources returns the .proto files under dir, sorted, as slash-separated
// paths relative to it.
func findSources(dir string) ([]string, error) {
	sources, err := filesUnder(dir, func(name string) bool { return strings.HasSuffix(name, ".proto") })
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("no .proto file under %s", dir)
	}
	return sources, nil
}

// isGenerated tells by its name whether protogen owns a file.
func isGenerated(name string) bool {
	return strings.HasSuffix(name, ".pb.go") || strings.HasSuffix(name, ".pb.gw.go")
}

// checkTree compares the generated files with those under dir and returns an
// error that names every difference.
func checkTree(dir string, generated map[string][]byte) error {
	present, err := filesUnder(dir, isGenerated)
	if err != nil {
		return err
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(generated)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if !slices.Contains(present, name) {
			problems = append(problems, "missing: "+path)
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(content, generated[name]) {
			problems = append(problems, "stale:   "+path)
		}
	}
	for _, name := range present {
		if _, ok := generated[name]; !ok {
			problems = append(problems, "extra:   "+filepath.Join(dir, filepath.FromSlash(name)))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("generated code is not what the .proto files say; run make proto and commit the result\n%s",
			strings.Join(problems, "\n"))
	}
	return nil
}

// writeTree makes the generated files under dir be exactly generated. A file
// that already has the right content is left alone, so that its modification
// time does not invalidate anyone's cache.
func writeTree(dir string, generated map[string][]byte) error {
	present, err := filesUnder(dir, isGenerated)
	if err != nil {
		return err
	}
	for _, name := range present {
		if _, ok := generated[name]; ok {
			continue
		}
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	for name, content := range generated {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("a plugin wants to write %q, outside of %s", name, dir)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// filesUnder returns the regular files under dir whose name is wanted, sorted,
// as slash-separated paths relative to dir.
func filesUnder(dir string, wanted func(name string) bool) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || !wanted(entry.Name()) {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found = append(found, filepath.ToSlash(relative))
		return nil
	})
	slices.Sort(found)
	return found, err
}
