package node

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// A rolling restart must not cost elections.
func TestStopHandsTheCoordinatorOver(t *testing.T) {
	const election = 4 * time.Second
	c := newCluster(t, 3)
	for i := range c.configs {
		c.configs[i].Heartbeat, c.configs[i].Election = 100*time.Millisecond, election
	}
	c.start(c.all()...)
	c.ready()
	coordinator, other := -1, -1
	for i, n := range c.nodes {
		if n.Status().Coordinator == n.config.Name {
			coordinator = i
		} else {
			other = i
		}
	}
	first := c.acquire(other, "a")
	began := clock.System().Now()
	c.stop(coordinator)
	second := c.acquire(other, "b")
	took := clock.System().Now().Sub(began)
	t.Logf("granted %v after the stop began", took)
	if took >= election {
		t.Errorf("the next grant took %v, an election takes at least %v", took, election)
	}
	if second <= first {
		t.Errorf("token %v after %v", second, first)
	}
	// Without the others there is nobody to hand over to, and that does not hold the stop up for long.
	c.stop(other)
	for i := range c.nodes {
		began = clock.System().Now()
		c.stop(i)
		if took := clock.System().Now().Sub(began); took > 3*election {
			t.Errorf("the last stop took %v", took)
		}
	}
}
