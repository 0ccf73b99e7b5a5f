package writ_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// License names, as SPDX spells them.
const (
	apache = "Apache-2.0"
	bsd    = "BSD"
	isc    = "ISC"
	mit    = "MIT"
	mpl    = "MPL-2.0"
)

// Who links Writ must not inherit obligations, so shipped code links only
// permissive licences. Tests may use MPL-2.0, whose copyleft ends at the file.
var (
	licensesShipped = []string{apache, bsd, isc, mit}
	licensesTested  = append(slices.Clone(licensesShipped), mpl)
)

// unshippedRooms are never part of a release.
var unshippedRooms = []string{"jepsen", "sim"}

func TestLicenses(t *testing.T) {
	var shipped []string
	for _, pkg := range goList(t, "./...") {
		if room, _ := roomOf(pkg.ImportPath); !slices.Contains(unshippedRooms, room) {
			shipped = append(shipped, pkg.ImportPath)
		}
	}
	checkLicenses(t, "shipped code", licensesShipped, goList(t, append([]string{"-deps"}, shipped...)...))
	checkLicenses(t, "tests", licensesTested, goList(t, "-deps", "-test", "./..."))
}

func checkLicenses(t *testing.T, where string, allowed []string, pkgs []listed) {
	t.Helper()
	seen := make(map[string]bool)
	for _, pkg := range pkgs {
		if pkg.Module == nil || pkg.Module.Main || seen[pkg.Module.Path] {
			continue // the standard library, ourselves, or known
		}
		seen[pkg.Module.Path] = true
		license, err := licenseOf(pkg.Module.Dir)
		if err != nil {
			t.Errorf("%s@%s, linked into %s by package %s: %v",
				pkg.Module.Path, pkg.Module.Version, where, pkg.ImportPath, err)
		} else if !slices.Contains(allowed, license) {
			t.Errorf("%s@%s, linked into %s by package %s, is licensed under %s; allowed are %s",
				pkg.Module.Path, pkg.Module.Version, where, pkg.ImportPath, license, strings.Join(allowed, ", "))
		}
	}
}

// licenseOf identifies the licence of the module in dir.
func licenseOf(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read the module: %w", err)
	}
	for _, entry := range entries {
		base, _, _ := strings.Cut(strings.ToUpper(entry.Name()), ".")
		if entry.IsDir() || base != "LICENSE" && base != "LICENCE" && base != "COPYING" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return "", err
		}
		license := classify(string(content))
		if license == "" {
			return "", fmt.Errorf("the licence in %s is not one of those license_test.go knows", entry.Name())
		}
		return license, nil
	}
	return "", fmt.Errorf("no file named LICENSE, LICENCE or COPYING")
}

// classify names the licence that a text states, or "" if it knows none.
func classify(text string) string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	// The order matters: the MPL mentions the GPL, and whatever else a file that
	// states the GPL also states, it comes second.
	for _, known := range []struct{ phrase, license string }{
		{"mozilla public license", mpl},
		{"server side public license", "SSPL"},
		{"gnu affero general public license", "AGPL"},
		{"gnu lesser general public license", "LGPL"},
		{"gnu general public license", "GPL"},
		{"business source license", "BUSL"},
		{"apache license version 2.0", apache},
		{"apache license, version 2.0", apache},
		{"permission is hereby granted, free of charge, to any person obtaining a copy", mit},
		{"redistribution and use in source and binary forms", bsd},
		{"permission to use, copy, modify, and/or distribute this software for any purpose", isc},
		{"permission to use, copy, modify, and distribute this software for any purpose", isc},
	} {
		if strings.Contains(text, known.phrase) {
			return known.license
		}
	}
	return ""
}

func TestClassify(t *testing.T) {
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		string(own): apache,
		"Mozilla Public License Version 2.0 ... the GNU General Public License":                     mpl,
		"GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007":                            "AGPL",
		"Server Side\nPublic License":                                                               "SSPL",
		"                    GNU GENERAL PUBLIC LICENSE":                                            "GPL",
		"Permission is hereby granted, free of charge,\nto any person obtaining a copy":             mit,
		"Redistribution and use in source and\nbinary forms, with or without":                       bsd,
		"Permission to use, copy, modify, and/or distribute this software\nfor any purpose with or": isc,
		"All rights reserved.": "",
	} {
		if got := classify(text); got != want {
			t.Errorf("classify(%.40q) = %q, want %q", text, got, want)
		}
	}
}
