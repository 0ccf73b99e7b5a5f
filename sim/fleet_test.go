package sim_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/sim"
)

func smallFleet(coordinator string) sim.Fleet {
	return sim.Fleet{
		Seed: 7, Coordinator: coordinator, Processes: 90, Leases: 1, Contended: 2, TTL: 30 * time.Second, Hold: 20 * time.Second, Measure: time.Minute,
	}
}

// No lease is lost with the coordinator, wherever it was, and nothing is faster than the network.
func TestFleet(t *testing.T) {
	for _, at := range sim.FleetRegions() {
		for _, reset := range []bool{false, true} {
			f := smallFleet(at)
			f.Reset = reset
			name := at + ", silent"
			if reset {
				name = at + ", reset"
			}
			t.Run(name, func(t *testing.T) {
				r := sim.RunFleet(f)
				for _, v := range r.Violations {
					t.Errorf("%v %s: %.1500s", v.At, v.Invariant, v.Text)
				}
				if r.Lost != 0 || r.Held == 0 {
					t.Errorf("%d of %d leases were lost", r.Lost, r.Held)
				}
				if r.Successor == at || r.TakenOver <= 0 || r.Granted < r.TakenOver || r.Intact < r.TakenOver {
					t.Errorf("%s took over after %v, granted after %v, and everybody had renewed after %v", r.Successor, r.TakenOver, r.Granted, r.Intact)
				}
				physics(t, r)
			})
		}
	}
}

// physics holds latencies against what light and the majority need.
func physics(t *testing.T, r *sim.FleetResult) {
	t.Helper()
	for i, region := range sim.FleetRegions() {
		way := sim.FleetRoundTrip(region, r.Fleet.Coordinator)
		commit := sim.FleetCommit(r.Fleet.Coordinator)
		for _, c := range []struct {
			what    string
			latency sim.Latency
			least   time.Duration
		}{
			{"acquires", r.Acquire[i], way + commit}, {"hand-offs", r.HandOff[i], way/2 + commit}, {"renewals", r.Renew[i], way + commit},
		} {
			if c.latency.Count == 0 || c.latency.P50 < c.least || c.latency.P99 < c.latency.P50 || c.latency.P50 > c.least+time.Second {
				t.Errorf("%s from %s take %+v with the coordinator in %s; no less than %v is possible", c.what, region, c.latency, r.Fleet.Coordinator, c.least)
			}
		}
	}
	if r.Traffic.Client <= 0 || r.Traffic.Forward <= 0 || r.Traffic.Raft <= 0 || r.Commits <= 0 {
		t.Errorf("traffic is %+v with %.1f commits/s", r.Traffic, r.Commits)
	}
}

func TestFleetRepeatsItself(t *testing.T) {
	f := smallFleet("europe")
	a, b := sim.RunFleet(f), sim.RunFleet(f)
	if a.Hash != b.Hash || a.Events != b.Events {
		t.Errorf("two runs of one seed went through %d and %d events to %s and %s", a.Events, b.Events, a.Hash, b.Hash)
	}
	f.Seed++
	if c := sim.RunFleet(f); c.Hash == a.Hash {
		t.Errorf("two seeds come to the same hash, %s", a.Hash)
	}
}

// Renewals of one process share a message, and those of one node's clients the way to the coordinator.
func TestFleetSharesMessages(t *testing.T) {
	together := smallFleet("us-west")
	together.Hold, together.Contended, together.Processes = time.Hour, 0, 500
	alone, few := together, together
	alone.Alone = true
	few.Processes, few.Leases = 50, 10
	a, b, c := sim.RunFleet(alone), sim.RunFleet(together), sim.RunFleet(few)
	if a.Held != 500 || b.Held != 500 || c.Held != 500 {
		t.Fatalf("%d, %d and %d leases are held, not 500", a.Held, b.Held, c.Held)
	}
	if 2*b.Traffic.Forward > a.Traffic.Forward {
		t.Errorf("nodes forward %.1f messages/s together and %.1f alone", b.Traffic.Forward, a.Traffic.Forward)
	}
	if 5*c.Traffic.Client > b.Traffic.Client {
		t.Errorf("processes send %.1f messages/s with ten leases each and %.1f with one", c.Traffic.Client, b.Traffic.Client)
	}
}
