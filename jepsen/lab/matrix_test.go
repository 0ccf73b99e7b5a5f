//go:build linux

package lab

import (
	"testing"

	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/sim"
)

// The round trips of the globe are those that the simulator's fleets have.
func TestGlobeIsThatOfFleets(t *testing.T) {
	all, err := Matrices.Named("globe")
	if err != nil {
		t.Fatal(err)
	}
	places := [cluster.Size]string{"europe", "us-east-a", "asia"}
	for a := range places {
		for b := range places {
			want := sim.FleetRoundTrip(places[a], places[b])
			if a == b {
				want = 0
			}
			if got := all[0].between(a, b).Delay + all[0].between(b, a).Delay; got != want {
				t.Errorf("between %s and %s: %v, and %v in the simulator", cluster.Regions[a], cluster.Regions[b], got, want)
			}
		}
	}
}

func TestMatrices(t *testing.T) {
	for _, m := range Matrices.All {
		for a := range cluster.Size {
			for b := range cluster.Size {
				s := m.between(a, b)
				if err := s.Validate(); err != nil {
					t.Errorf("%s: %v", m.Name, err)
				}
				if (s.Delay == 0) != (a == b) || s != m.between(b, a) {
					t.Errorf("%s, from %d to %d: %+v", m.Name, a, b, s)
				}
			}
		}
	}
	if s := (Matrix{}).between(0, 1); s.Delay != 0 || s.Jitter != 0 {
		t.Errorf("without a matrix: %+v", s)
	}
}

func TestHomes(t *testing.T) {
	for party, want := range map[string]int{
		"eu": 0, "us": 1, "ap": 2, Guard(0): 0, Guard(2): 0, Store: 0, Writer(0): 0, Writer(1): 1, Writer(2): 2, Writer(3): 0, "client": 0,
		Agent("us"): 1, PairWriter("eu"): 0, PairStore: 0, Database: 0, Service(2): 2, TableWriter(1): 1,
	} {
		if got, ok := home(party); got != want || !ok {
			t.Errorf("%s: %d, %v", party, got, ok)
		}
	}
	if _, ok := home(Observer); ok {
		t.Error("the observer is far from somebody")
	}
}
