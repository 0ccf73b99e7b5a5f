package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
)

// rewriteRunbooks has the expected output replaced by what was said: WRIT_REWRITE_RUNBOOKS=1, and review the diff.
var rewriteRunbooks = os.Getenv("WRIT_REWRITE_RUNBOOKS") != ""

// varying is what differs from one time to the next, and how runbooks write it.
var varying = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "DIGEST"},
	{regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`), "FINGERPRINT"},
	{regexp.MustCompile(`\b[0-9a-f]{24}\b`), "INCARNATION"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "DAY"},
	{regexp.MustCompile(`\b127\.0\.0\.1:\d+\b`), "ADDRESS"},
	{regexp.MustCompile(`\b28147497\d{7}( \(\d+\.\d+\))?`), "TOKEN"},
	{regexp.MustCompile(`\b1\.\d{6,}\b`), "TOKEN"},
	{regexp.MustCompile(`\b(orders|approvers|orders-drill)-1\.\d+\b`), "$1-1.N"},
	{regexp.MustCompile(`\b1\.(1|\d{5,})\b`), "TOKEN"},
	{regexp.MustCompile(`\bbreakglass-1\.\d{8}T\d{6}Z`), "CERTIFICATE"},
	{regexp.MustCompile(`\b(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?(s|ms|µs))( ago)?\b|\b\d+d\d+h\b|\b\d+h\d+m(0s)?\b`), "T"},
	{regexp.MustCompile(`[ \t]+`), " "},
	// Whether a tail knows a position depends on whether its agent was heard before the guard.
	{regexp.MustCompile(`unknown - (0/[0-9A-F]+|-) (0/[0-9A-F]+|-)$`), "unknown - POSITION POSITION"},
}

// plainly is what was said without what varies. What is told while a promotion goes on depends on how often it is looked at.
func plainly(said string) string {
	var lines []string
	for line := range strings.Lines(said) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "writ: orders-") {
			continue
		}
		for _, v := range varying {
			line = v.what.ReplaceAllString(line, v.as)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// sameLines compares without regard to order: guards acknowledge when they do.
func sameLines(a, b string) bool {
	sorted := func(s string) []string { return slices.Sorted(strings.SplitSeq(plainly(s), "\n")) }
	return slices.Equal(sorted(a), sorted(b))
}

// step is a command of a runbook, and what it says.
var step = regexp.MustCompile("(?s)```sh\n(.*?)```\n+```text\n(.*?)```")

// runbook runs the commands of a runbook in their order, and holds what they say against what stands there.
func (l *live) runbook(name string) {
	l.Helper()
	path := filepath.Join(l.docs, name+".md")
	page, err := os.ReadFile(path)
	if err != nil {
		l.Fatal(err)
	}
	if n := len(step.FindAll(page, -1)); n == 0 || n != strings.Count(string(page), "```sh\n") {
		l.Fatalf("%s: %d steps of %d have their output below them", name, n, strings.Count(string(page), "```sh\n"))
	}
	page = step.ReplaceAllFunc(page, func(found []byte) []byte {
		parts := step.FindSubmatch(found)
		command, want := string(parts[1]), string(parts[2])
		ctx, cancel := context.WithTimeout(l.Context(), proctest.Patience)
		defer cancel()
		sh := exec.CommandContext(ctx, "sh", "-c", command)
		sh.Env = append(os.Environ(), "PATH="+l.bin+":"+os.Getenv("PATH"))
		said, err := sh.CombinedOutput()
		l.Logf("%s$ %s%s(%v)", name, command, said, err)
		switch {
		case rewriteRunbooks:
			return bytes.Replace(found, []byte("```text\n"+want), []byte("```text\n"+plainly(string(said))+"\n"), 1)
		case !sameLines(string(said), want):
			l.Errorf("%s: %s\nit says\n%s\nand stands there as\n%s", name, command, plainly(string(said)), want)
		}
		return found
	})
	if rewriteRunbooks {
		if err := os.WriteFile(path, page, 0o644); err != nil { // it is a page for everybody
			l.Fatal(err)
		}
	}
}

// reads says where the runbooks stand, and lays the command out that they use.
func (l *live) reads(docs string) {
	l.Helper()
	l.docs, l.bin = docs, l.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n%s=1 %s exec '%s' \"$@\"\n", mainVariable, proctest.Brisk, os.Args[0])
	if err := os.WriteFile(filepath.Join(l.bin, "writ"), []byte(script), 0o700); err != nil {
		l.Fatal(err)
	}
}

// The runbooks' own commands are run, in an order in which one follows from the other, and say what stands there.
func TestRunbooks(t *testing.T) {
	docs, err := filepath.Abs("../../../docs/runbooks")
	if err != nil {
		t.Fatal(err)
	}
	l := goLive(t)
	l.reads(docs)
	t.Chdir(t.TempDir())
	if err := os.Symlink(filepath.Join(l.dir, "approvers"), "keys"); err != nil {
		t.Fatal(err)
	}
	groups := fmt.Sprintf(`name: orders
regions:
  - {name: eu, role: primary, priority: 10, agent: %[1]q, guards: [g-eu], writers: [%[1]q]}
  - {name: us, role: standby, priority: 5, agent: %[1]q, guards: [g-us]}
hooks: [{kind: drain}, {kind: promote}, {kind: shift}, {kind: verify}, {kind: undrain, optional: true}]
`, l.principal)
	if err := os.WriteFile("orders.yaml", []byte(groups), 0o600); err != nil {
		t.Fatal(err)
	}
	l.must(0, "applied", "group", "apply", "-f", "orders.yaml")
	euRuns, euEnds := context.WithCancel(context.Background())
	usRuns, usEnds := context.WithCancel(context.Background())
	var euDone, usDone sync.WaitGroup
	defer usDone.Wait()
	defer euDone.Wait()
	defer usEnds()
	defer euEnds()
	eu, us := l.guardOf("g-eu", "eu", "orders", "drill/*"), l.guardOf("g-us", "us", "orders", "drill/*")
	l.agent(euRuns, "eu", eu, &euDone)
	l.agent(usRuns, "us", us, &usDone)
	l.until("both agents are heard", func(g *writv1.Group) bool {
		heard := 0
		for _, r := range g.GetRegions() {
			if r.GetHealth() == writv1.Health_HEALTH_OK && len(r.GetGuards()) == 1 {
				heard++
			}
		}
		return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY && heard == 2
	})
	l.runbook("region-degraded")
	l.runbook("failback")
	l.runbook("rotating-approvers")
	// A region goes: its agent and its guard are not heard of any more.
	euEnds()
	euDone.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), proctest.Patience)
	defer cancel()
	if err := eu.Close(ctx); err != nil {
		t.Fatal(err)
	}
	l.until("eu is not heard of", func(g *writv1.Group) bool { return g.GetRegions()[0].GetHealth() == writv1.Health_HEALTH_UNKNOWN })
	l.runbook("guard-unreachable")
	l.runbook("region-down")
}
