package plan

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// checked draws from rapid, which shrinks towards low.
type checked struct{ t *rapid.T }

func (c checked) Int(label string, low, high int) int {
	return rapid.IntRange(low, high).Draw(c.t, label)
}

func TestDrawnPlansAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := DrawOptions{Duration: time.Duration(rapid.IntRange(1, 3600).Draw(t, "duration")) * time.Second}
		p := Draw(rapid.Uint64().Draw(t, "seed"), checked{t}, o)
		if err := p.Validate(); err != nil {
			t.Fatalf("%v in\n%s", err, p)
		}
		roundTrip(t, p)
	})
}

func TestDraw(t *testing.T) {
	const plans = 1000
	kinds := make(map[Kind]int)
	nodes := make(map[int]int)
	var faults, aimed int
	var rate float64
	for seed := range uint64(plans) {
		p := Draw(seed, Seeded(seed), DrawOptions{})
		if again := Draw(seed, Seeded(seed), DrawOptions{}); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d gives two plans:\n%s\n%s", seed, p, again)
		}
		if p.Duration != 10*time.Minute || p.Store != Raft || p.Seed != seed {
			t.Fatalf("unlike the options:\n%s", p)
		}
		nodes[len(p.Founders())]++
		rate += p.rate() / plans
		faults += len(p.Faults)
		for _, f := range p.Faults {
			kinds[f.Kind]++
			if slices.Contains(f.A, Leader) || slices.Contains(f.A, Holder) {
				aimed++
			}
		}
	}
	t.Logf("nodes %v, %d faults, %d aimed, %.0f operations/s, kinds %v", nodes, faults/plans, aimed/plans, rate, kinds)
	for _, kind := range Kinds() {
		least := plans / 20
		if kind == Abort || kind == Ill || kind == BadHooks { // of one plan of sixteen
			least = plans / 50
		}
		if kinds[kind] < least {
			t.Errorf("only %d faults in %d plans are %s", kinds[kind], plans, kind)
		}
	}
	if nodes[3] < nodes[5] || nodes[5] < nodes[1] || nodes[1] == 0 {
		t.Errorf("sizes of quorums: %v", nodes)
	}
	if mean := faults / plans; mean < 20 || mean > 60 {
		t.Errorf("%d faults in 10 minutes", mean)
	}
	if aimed < plans {
		t.Errorf("%d aimed faults", aimed)
	}
	if rate < 50 || rate > 100 {
		t.Errorf("clients make about %.0f operations a second", rate)
	}
}

// rate estimates how many operations clients make in a second while nothing goes wrong and
// somebody always waits: more than there will be.
func (p Plan) rate() float64 {
	const latency = 0.05
	var each float64
	resources := make(map[string]bool)
	for _, c := range p.Clients {
		for _, r := range c.Resources {
			resources[r] = true
		}
		hold := c.Hold.Seconds()
		operations := 2 + hold*3/c.TTL.Seconds()
		if c.Checkpoint > 0 {
			operations += hold / c.Checkpoint.Seconds()
		}
		each += operations / (hold + latency) / float64(len(p.Clients))
	}
	return each * float64(min(len(resources), len(p.Clients)))
}
