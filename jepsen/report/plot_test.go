package report

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/record"
)

// TestPlot places what happened in a run of 100 s.
func TestPlot(t *testing.T) {
	call := func(workload string, at, returned time.Duration, outcome record.Outcome) *record.Call {
		return &record.Call{Workload: workload, At: at * time.Second, Returned: returned * time.Second, Outcome: outcome, Result: json.RawMessage("1")}
	}
	open := call("a", 90, 0, record.Unknown)
	open.Open = true
	p := newPlot(&record.History{
		Last: 100 * time.Second,
		Calls: []*record.Call{
			call("a", 9, 10, record.OK), call("a", 9, 10, record.OK), call("a", 49, 50, record.Fail), open,
			call("b", 9, 10, record.OK), call("b", 70, 71, record.OK),
		},
		Rounds: []record.Round{{Number: 1, Healed: 30 * time.Second}, {Number: 2}},
		Faults: []record.Fault{{Nemesis: "n", Began: 20 * time.Second, Ended: 25 * time.Second}, {Nemesis: "m", Began: 80 * time.Second}},
	}, "a")
	if len(p.Shades) != 2 || p.Shades[0].X != left+200 || p.Shades[0].W != 50 || p.Shades[1].X != left+800 || p.Shades[1].W != 200 {
		t.Errorf("faults from 20 s to 25 s, and from 80 s on: %+v", p.Shades)
	}
	if len(p.Healed) != 1 || p.Healed[0] != left+300 {
		t.Errorf("healed at 30 s: %v", p.Healed)
	}
	if p.Most != 4 { // two in half a second
		t.Errorf("%v calls per second at most", p.Most)
	}
	// Points that are not on the ground: spans of half a second, whose middle is shown.
	for outcome, want := range map[record.Outcome]string{record.OK: "162.5,10.0", record.Fail: "562.5,80.0", record.Unknown: "962.5,80.0"} {
		var high []string
		for point := range strings.FieldsSeq(p.Rates[outcome]) {
			if !strings.HasSuffix(point, ",150.0") {
				high = append(high, point)
			}
		}
		if len(high) != 1 || high[0] != want {
			t.Errorf("%s: %q, want %s", outcome, high, want)
		}
	}
}
