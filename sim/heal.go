package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/store"
	"github.com/writ-io/writ/sim/trace"
)

// probeTTL is that of the leases that show that work goes on.
const (
	probeTTL  = 5 * time.Second
	probeName = "probe"
)

// heal ends everything that is wrong, and waits until every resource has been granted anew: L1. Clients let go of what they
// hold or are gone, so that a probe which waits for each resource must be served in time.
func (r *run) heal() {
	r.winding, r.healing = true, true
	r.story.event(nil, trace.EventOperator, "operator: everything is healed")
	r.mend()
	for _, c := range r.clients {
		for _, t := range c.tasks {
			if c.process.Up() && t.phase == working {
				t.finish()
			}
		}
	}
	started := r.world.Now()
	// What an operator still has to do (a member that lost its disk, and has to be replaced) is part of healing.
	for !r.oper.idle() && r.world.Now() < started+choresPatience {
		r.world.Run(r.world.Now() + 100*time.Millisecond)
		r.mend()
	}
	if !r.oper.idle() {
		r.violation("L1", fmt.Sprintf("an operator could not %s within %v of the end of all faults", r.oper.chores[0].what, choresPatience))
		return
	}
	r.promotionsEnd()
	healed := r.world.Now()
	limit := healed + r.patience()
	probes := r.probe()
	for r.world.Now() < limit && len(probes) > 0 {
		r.world.Run(r.world.Now() + 50*time.Millisecond)
		probes = pending(probes)
	}
	r.oper.recovery = r.world.Now() - healed
	if len(probes) > 0 {
		r.violation("L1", fmt.Sprintf("%s could not be acquired within %v of the end of all faults", strings.Join(probes.resources(), ", "), r.world.Now()-healed))
		return
	}
	r.settle()
	r.mark(MarkHealed)
	r.watchersCatchUp()
}

// choresPatience bounds what an operator may take to put things right.
const choresPatience = 3 * time.Minute

// mend ends faults that hold nodes, and starts what is down.
func (r *run) mend() {
	r.net.Clear()
	if fast, ok := r.store.(*store.Fast); ok {
		fast.Behave()
	}
	for _, n := range r.nodes {
		disk := r.store.Disk(n.process)
		disk.Full, disk.Slower, disk.Torn = false, 0, false
		n.process.Resume()
		if !n.process.Up() && r.oper.idle() {
			n.start()
		}
	}
	for _, g := range r.guards {
		g.disk.full, g.disk.slower = false, 0
		g.process.Resume()
		g.start()
	}
	for _, a := range r.agents {
		a.ill, a.bad = 0, 0
		a.process.Resume()
		a.start()
	}
	for _, w := range r.writers {
		w.process().Resume()
		w.start()
	}
	for _, s := range r.services {
		if s.process().Paused() {
			s.client.thaw()
		}
		s.start()
	}
	for _, c := range r.clients {
		c.twice = false
		if c.process.Paused() {
			c.thaw()
		}
		c.start()
	}
	for _, w := range r.watches {
		w.process.Resume()
		w.start()
		w.wake()
	}
}

// patience is how long it may take until a resource is granted: what is held runs out, unless its holder lets go, for which
// its clock may need a bit longer; elections come and go; and a state that is foreign waits for the longest TTL.
func (r *run) patience() time.Duration {
	p := r.plan
	// A waiter that is gone keeps its place for a third of its TTL after each third that it asked for, and is served at
	// most once before that.
	patience := 2*r.longestTTL() + p.LockDelay + 4*p.Election + 40*r.roundTrip() + 5*time.Second
	patience += r.guardPatience()
	if r.oper.restored > 0 && len(r.guards) > 0 {
		patience += r.guardLease() + lease.MaxGuardSlack // a rebuilt quorum waits for guards that it does not know of
	}
	if r.oper.restored > 0 {
		patience += max(p.MaxTTL, lease.DefaultMaxTTL) + 2*witnessEvery + 4*p.Election
	}
	return patience
}

// probes are tasks that wait for one resource each.
type probes []*task

func (p probes) resources() []string {
	var names []string
	for _, t := range p {
		names = append(names, string(t.resource))
	}
	return names
}

// probe starts a client that waits for every resource.
func (r *run) probe() probes {
	names := r.resources()
	if len(names) == 0 {
		names = []string{"probe"}
	}
	region := "probe"
	if len(r.plan.Nodes) > 0 {
		region = r.plan.Nodes[0].Region
	}
	c := newClient(r, plan.Client{Name: probeName, Region: region, Resources: names, All: true, TTL: probeTTL, Hold: time.Hour, Think: time.Millisecond})
	r.winding = false // for the probe: the others have no timer that begins anew before it is done
	for _, o := range r.clients {
		o.retired = true
	}
	c.start()
	all := probes(c.tasks)
	for _, t := range all {
		t.resource = t.resources[0]
	}
	return all
}

func pending(all probes) probes {
	var left probes
	for _, t := range all {
		if t.phase != working {
			left = append(left, t)
		}
	}
	return left
}

// watchersCatchUp waits until every watcher has been told everything.
func (r *run) watchersCatchUp() {
	behind := func() *watcher {
		for _, w := range r.watches {
			if w.judge.Behind() > 0 {
				return w
			}
		}
		return nil
	}
	limit := r.world.Now() + 4*watchProgress + 2*readTimeout + 20*r.roundTrip()
	for r.world.Now() < limit && behind() != nil {
		r.world.Run(r.world.Now() + 100*time.Millisecond)
	}
	if w := behind(); w != nil {
		r.violation("S10", fmt.Sprintf("%s was not told of %d changes", w.spec.Name, w.judge.Behind()))
	}
}
