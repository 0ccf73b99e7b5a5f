//go:build linux

package jepsen_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/campaign"
	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/nemesis"
	"github.com/writ-io/writ/jepsen/netns"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/slots"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// singletonsSpan is how long the cron jobs are tried.
var singletonsSpan = flag.Duration("singletons", time.Minute, "how long TestSingletons does harm")

// Less than this in ten seconds shows too little.
const leastSlots, leastTakeovers, leastFaults = 8, 1, 2

// TestSingletons has a process in each of three regions run cron jobs, while nodes, processes and the network between them
// fail. Every slot has its effect in the database once, within the window, and never two at a time, where the database
// compares tokens. The same judge has to find the same program out where it does not.
func TestSingletons(t *testing.T) {
	if err := netns.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	config := campaign.Config{
		Dir: filepath.Join(t.TempDir(), "run"), Time: *singletonsSpan, Seed: uint64(setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano())),
		Command: os.Args, Progress: t.Output(),
	}
	t.Logf("seed %d", config.Seed)
	var err error
	if config.Writ, err = binary(); err != nil {
		t.Fatal(err)
	}
	if config.Guard, err = guardBinary(); err != nil {
		t.Fatal(err)
	}
	if config.Workloads, err = workload.Kinds.Named(workload.Singletons); err != nil {
		t.Fatal(err)
	}
	if config.Controls, err = campaign.Controls.Named("unfenced-singletons"); err != nil {
		t.Fatal(err)
	}
	config.Nemeses, err = nemesis.Kinds.Named("kill-node", "pause-node", "unplug-node", "cut-nodes-oneway",
		"kill-writer", "pause-writer", "unplug-writer", "cut-writer")
	if err != nil {
		t.Fatal(err)
	}
	if config.Always, err = nemesis.Kinds.Named("hold-writer"); err != nil {
		t.Fatal(err)
	}
	if err := campaign.Run(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	r, err := judge.Dir(config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range r.Judgements {
		t.Logf("%v: %s: %s: %s %q", j.Verdict, j.Workload, j.Check, j.Reason, j.Evidence)
	}
	if r.Overall() != verdict.Valid {
		t.Errorf("the run is %v, and %v with its control", r.Verdict, r.Overall())
	}
	countSlots(t, r.History)
}

// countSlots wants enough to have happened for the verdict to mean something.
func countSlots(t *testing.T, h *record.History) {
	t.Helper()
	jobs, rows, _, err := workload.Slots(h)
	if err != nil {
		t.Fatal(err)
	}
	ended, again, takeovers, zombies, refused := 0, 0, 0, 0, 0
	for _, job := range jobs {
		e, a, k := slots.Count(rows[job.Name])
		ended, again, takeovers = ended+e, again+a, takeovers+k
	}
	for _, f := range h.Faults {
		if f.Nemesis == "hold-writer" {
			zombies++
		}
	}
	for _, c := range h.Calls {
		if c.Workload == workload.Singletons && c.Outcome == record.Fail {
			refused++
		}
	}
	t.Logf("%d slots, %d further attempts, %d takeovers, %d effects refused as stale; %d faults, %d zombies", ended, again, takeovers, refused, len(h.Faults), zombies)
	tens := int(*singletonsSpan / (10 * time.Second))
	if ended < tens*leastSlots || takeovers < tens*leastTakeovers || len(h.Faults) < tens*leastFaults || again == 0 ||
		zombies < 1+int(*singletonsSpan/time.Minute) || refused == 0 {
		t.Error("that shows too little")
	}
}
