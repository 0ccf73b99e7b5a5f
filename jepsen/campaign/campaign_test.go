//go:build linux

package campaign_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/campaign"
	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/nemesis"
	"github.com/writ-io/writ/jepsen/netns"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/report"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// programs are where the programs are built.
var programs string

func TestMain(m *testing.M) {
	if code, ok := lab.Child(); ok {
		os.Exit(code)
	}
	var err error
	if programs, err = os.MkdirTemp("", "writ-jepsen-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// harness runs workloads and controls for a few seconds.
func harness(ctx context.Context, t *testing.T, span time.Duration, works []workload.Kind, controls []campaign.Control, progress io.Writer) string {
	t.Helper()
	if err := netns.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	kinds, err := nemesis.Kinds.Named("kill-node", "cut-nodes-oneway", "kill-writer")
	if err != nil {
		t.Fatal(err)
	}
	config := campaign.Config{
		Dir: filepath.Join(t.TempDir(), "run"), Time: span, Seed: 1,
		Workloads: works, Nemeses: kinds, Controls: controls, Command: os.Args, Progress: progress,
		// What a few seconds bring says little where other tests run beside them.
		Matrix: lab.Matrix{Pace: 0.05},
	}
	if err := config.Build(t.Context(), programs); err != nil {
		t.Fatal(err)
	}
	if err := campaign.Run(ctx, config); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(config.Dir, "work")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return config.Dir
}

// TestHarness has a short run judged, twice: it is valid, the controls are found out, and the record says the same the second
// time.
func TestHarness(t *testing.T) {
	controls := campaign.Controls.All
	if testing.Short() { // the race detector has seen all when it has seen one
		controls = controls[:1]
	}
	dir := harness(t.Context(), t, 6*time.Second, workload.Kinds.All, controls, t.Output())
	r, err := judge.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	report.Text(t.Output(), r)
	if r.Verdict != verdict.Valid || r.Overall() != verdict.Valid {
		t.Errorf("the run is %v, and %v with its controls", r.Verdict, r.Overall())
	}
	if len(r.Controls) != len(controls) {
		t.Errorf("%d controls", len(r.Controls))
	}
	again, err := judge.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b verdict.Judgement) bool {
		return a.Verdict == b.Verdict && a.Reason == b.Reason && slices.Equal(a.Rounds, b.Rounds)
	}
	if !slices.EqualFunc(r.Judgements, again.Judgements, same) {
		t.Errorf("judged again: %+v", again.Judgements)
	}
	if err := report.Write(filepath.Join(dir, "report.html"), r); err != nil {
		t.Error(err)
	}
}

// listener hears of the progress.
type listener func(said string)

func (l listener) Write(p []byte) (int, error) {
	l(string(p))
	return len(p), nil
}

// TestInterruptedHarness ends a run early: everything is healed and taken down, and the record says so.
func TestInterruptedHarness(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	works, err := workload.Kinds.Named("counter", workload.Appends)
	if err != nil {
		t.Fatal(err)
	}
	r, err := judge.Dir(harness(ctx, t, time.Hour, works, nil, listener(func(said string) {
		if strings.HasPrefix(said, "round 1") {
			time.AfterFunc(4*time.Second, cancel)
		}
	})))
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != verdict.Unknown || !r.History.Complete() || !slices.Equal(r.History.Run.Problems, []record.Problem{{Text: "interrupted"}}) {
		report.Text(t.Output(), r)
		t.Errorf("the run is %v, with %+v", r.Verdict, r.History.Run.Problems)
	}
	for _, f := range r.History.Faults {
		if f.Ended == 0 {
			t.Errorf("%s was never over", f.Nemesis)
		}
	}
}
