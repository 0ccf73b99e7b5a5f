package writ_test

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// contribs returns the directories of the adapters that are modules of their own.
func contribs(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("contrib/*/go.mod")
	if err != nil || len(files) == 0 {
		t.Fatalf("no modules below contrib: %v", err)
	}
	var dirs []string
	for _, file := range files {
		dirs = append(dirs, filepath.ToSlash(filepath.Dir(file)))
	}
	return dirs
}

// A module below contrib is called after its directory and takes this module from here.
func TestContribModules(t *testing.T) {
	entries, err := os.ReadDir("contrib")
	if err != nil {
		t.Fatal(err)
	}
	dirs := contribs(t)
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		dir := path.Join("contrib", entry.Name())
		if !slices.Contains(dirs, dir) {
			t.Errorf("%s is no module; give it a go.mod, or put it elsewhere", dir)
		}
		if !strings.Contains(string(makefile), dir) {
			t.Errorf("the Makefile does not know %s; add it to CONTRIB", dir)
		}
	}
	for _, dir := range dirs {
		name := path.Join(dir, "go.mod")
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := modfile.Parse(name, content, nil)
		if err != nil {
			t.Fatal(err)
		}
		if file.Module.Mod.Path != module+"/"+dir {
			t.Errorf("%s is module %s, want %s", name, file.Module.Mod.Path, module+"/"+dir)
		}
		if len(file.Replace) != 1 || file.Replace[0].Old.Path != module || file.Replace[0].New.Path != "../.." {
			t.Errorf("%s has to replace %s by ../.., and nothing else", name, module)
		}
	}
}

// What adapters link is as permissive as what the module itself does, and does not pull etcd.
func TestContribLinksLittle(t *testing.T) {
	for _, dir := range contribs(t) {
		pkgs := goListIn(t, dir, "-deps", "./...")
		checkLicenses(t, dir, licensesShipped, pkgs)
		for _, pkg := range pkgs {
			if strings.HasPrefix(pkg.ImportPath, "go.etcd.io/") {
				t.Errorf("%s pulls %s", dir, pkg.ImportPath)
			}
		}
	}
}
