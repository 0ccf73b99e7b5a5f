//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCalledWrongly(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	for _, row := range []struct{ args, want string }{
		{"", "usage"},
		{"walk", `no command "walk"`},
		{"check", "usage"},
		{"check -x", "usage"},
		{"run", "-out is missing"},
		{"run -out " + out + " -time 0s", "-time is 0s"},
		{"run -out " + out + " -workloads regster", `no "regster"`},
		{"run -out " + out + " -nemeses kil", `no "kil"`},
		{"run -out " + out + " -controls etcd", `no "etcd"`},
		{"run -out " + out + " -matrix glob", `no "glob"`},
		{"run -out " + out + " -seed x", "invalid value"},
		{"run -dir " + out, "-dir; jepsen run -h lists"},
		{"run -out " + out + " more", `"more" is no flag`},
	} {
		var errs strings.Builder
		if code := run(t.Context(), append([]string{"jepsen"}, strings.Fields(row.args)...), &errs, &errs); code != exitUsage {
			t.Errorf("%q exits with %d", row.args, code)
		}
		if !strings.Contains(errs.String(), row.want) {
			t.Errorf("%q says %s, want %s", row.args, errs.String(), row.want)
		}
		if lines := strings.Count(errs.String(), "\n"); lines > 8 {
			t.Errorf("%q says so much that nobody finds what is wrong: %d lines", row.args, lines)
		}
	}
}

func TestHelp(t *testing.T) {
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"jepsen", "run", "-h"}, &out, &errs); code != exitValid || errs.Len() > 0 {
		t.Errorf("help exits with %d and says %s", code, errs.String())
	}
	for _, want := range []string{"Exit codes: 0 valid; 1 invalid", "register", "hold-writer", "etcd-mutex", "globe"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
}

func TestNoRecord(t *testing.T) {
	var errs strings.Builder
	if code := run(t.Context(), []string{"jepsen", "check", t.TempDir()}, &errs, &errs); code != exitUnknown {
		t.Errorf("check of nothing exits with %d", code)
	}
}
