//go:build linux

package report_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/report"
	"github.com/writ-io/writ/jepsen/verdict"
)

// judged is a run with two holders at a time, and with markup in what a process said.
func judged(t *testing.T) *judge.Report {
	t.Helper()
	dir := t.TempDir()
	w, err := record.Create(dir, record.Run{Name: "run", Workloads: []string{"register"}, Nemeses: []string{"kill-node", "shape"}, Problems: []record.Problem{}})
	if err != nil {
		t.Fatal(err)
	}
	w.Round([]string{"kill-node"})
	over := w.Fault("kill-node", `<script>alert("eu")</script>`)
	for i, who := range []string{"a", "b"} {
		op := history.Op{Kind: history.Acquire, Resource: "r", Instance: who, TTL: time.Minute}
		saw := history.Sight{Token: uint64(i + 1), Holder: who}
		w.Call("register", who, "acquire", op)(record.OK, map[string]any{"Outcome": history.OK, "Saw": saw})
	}
	over()
	w.Healed()
	w.Round(nil)
	w.Healed()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, record.LogsDir, "eu.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := judge.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// outside finds what a page would fetch.
var outside = regexp.MustCompile(`(?i)(src|href)\s*=\s*["']?(https?:)?//|@import|url\(\s*["']?http`)

func TestPage(t *testing.T) {
	r := judged(t)
	if r.Verdict != verdict.Invalid {
		t.Fatalf("the run is %v", r.Verdict)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := report.Write(path, r); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	if found := outside.FindString(page); found != "" {
		t.Errorf("the page needs something else: %s", found)
	}
	if strings.Contains(page, "<script>alert") || !strings.Contains(page, "&lt;script&gt;alert") {
		t.Error("what a process said is not shown as text")
	}
	for _, want := range []string{
		`Writ under faults: <span class="badge invalid">invalid</span>`, "r is not linearizable", "srcdoc=", "kill-node",
		`title="register under kill-node: invalid, in rounds [1]"`, `<td class="none">–</td>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	report.Text(&b, judged(t))
	for _, want := range []string{"run: invalid; 2 calls, 1 faults in 2 rounds", "r is not linearizable", "did not strike: shape"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, b.String())
		}
	}
}
