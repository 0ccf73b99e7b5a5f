package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum/etcd"
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

// A node whose database cannot be written to any more stops, though some of its goroutines wait for the database for ever.
func TestStopOfAFailedStore(t *testing.T) {
	dir := mount(t, "160m")
	c := newCluster(t, 1)
	c.configs[0].DataDir = filepath.Join(dir, "data")
	c.start(0)
	c.ready()
	fill(t, dir)
	n := c.nodes[0]
	for i, failed := 0, false; !failed; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, _ = c.leases(0).Acquire(ctx, &writv1.AcquireRequest{ // until the database needs space
			Resource: fmt.Sprint("r", i), Ttl: durationpb.New(time.Second), RequestId: "a", Instance: "i",
		})
		cancel()
		select {
		case <-n.Done():
			failed = true
		default:
		}
	}
	eventually(t, func() string {
		var all strings.Builder
		must(t, pprof.Lookup("goroutine").WriteTo(&all, 2))
		if !strings.Contains(all.String(), "(*Member).readHistory") {
			return "nobody waits for the database"
		}
		return ""
	})
	began := clock.System().Now()
	failed := (*etcd.FailedError)(nil)
	if err := n.Stop(t.Context()); !errors.As(err, &failed) {
		t.Errorf("stopped with %v", err)
	}
	c.nodes[0] = nil
	if took := clock.System().Now().Sub(began); took > drainTimeout+2*failedPatience {
		t.Errorf("the stop took %v", took)
	}
}
