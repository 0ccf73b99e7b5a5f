package sim

import (
	"slices"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/store"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// operator is whoever runs the quorum: replaces members, restores backups, and makes mistakes. What cannot be done now is
// tried again.
type operator struct {
	run        *run
	chores     []*chore // one after the other
	backup     *store.Backup
	remembered remembered // by the quorum, when it was put back last
	recovery   time.Duration
	attempts   uint64
	since      time.Duration   // when the first chore was begun
	restored   int             // how often the quorum was restored
	open       map[string]bool // rules that let guards go on without contact, by prefix
	bare       map[string]bool // rules that are taken away, by prefix
}

// chore is something to be done; do is called until it calls done with true.
type chore struct {
	what string
	do   func(done func(bool))
}

func newOperator(r *run) *operator {
	o := &operator{run: r, open: make(map[string]bool), bare: make(map[string]bool)}
	for _, rule := range r.plan.Rules {
		o.open[rule.Prefix] = rule.Open
	}
	return o
}

// want puts a chore behind those that wait.
func (o *operator) want(what string, do func(done func(bool))) {
	o.chores = append(o.chores, &chore{what, do})
	if len(o.chores) == 1 {
		o.since = o.run.world.Now()
		o.begin()
	}
}

// lastResort is how long an operator tries before it takes the quorum for lost, if nobody decides.
const lastResort = 90 * time.Second

const (
	choreRetry    = 500 * time.Millisecond
	chorePatience = 10 * time.Second
)

// begin tries the first chore. An answer that does not come counts as a failure, which is tried again.
func (o *operator) begin() {
	if o.run.deciding() == nil && o.run.world.Now()-o.since > lastResort {
		o.restore()
		return
	}
	c := o.chores[0]
	o.attempts++
	attempt := o.attempts
	done := func(ok bool) {
		if o.attempts != attempt || len(o.chores) == 0 || o.chores[0] != c {
			return
		}
		o.attempts++
		if ok {
			o.run.story.event(nil, trace.EventOperator, "operator: %s", c.what)
			o.chores = o.chores[1:]
			if len(o.chores) > 0 {
				o.since = o.run.world.Now()
				o.begin()
			}
			return
		}
		o.run.world.After(choreRetry, func() {
			if len(o.chores) > 0 && o.chores[0] == c {
				o.begin()
			}
		})
	}
	o.run.world.After(chorePatience, func() { done(false) })
	c.do(done)
}

// idle says whether nothing waits to be done.
func (o *operator) idle() bool { return len(o.chores) == 0 }

// coordinator is the node that decides: the one with the newest term, if several think so.
func (r *run) coordinator() *node {
	var best *node
	for _, n := range r.nodes {
		if n.decides() && !n.process.Paused() && (best == nil || n.term > best.term) {
			best = n
		}
	}
	return best
}

// deciding is the node that takes changes of the membership: the coordinator, also while it recovers.
func (r *run) deciding() *node {
	if n := r.coordinator(); n != nil {
		return n
	}
	for _, n := range r.nodes {
		if n.process.Up() && !n.process.Paused() && n.engine.Role() == quorum.Recovering {
			return n
		}
	}
	return nil
}

func (r *run) nodeNamed(name string) *node {
	for _, n := range r.nodes {
		if n.name() == name {
			return n
		}
	}
	return nil
}

// replace removes a node whose disk is lost from the quorum, and lets it join again with an empty one.
func (o *operator) replace(n *node) {
	what := "replace " + n.name()
	if slices.ContainsFunc(o.chores, func(c *chore) bool { return c.what == what }) {
		return
	}
	if !slices.ContainsFunc(o.run.nodes, func(other *node) bool { return other != n && !other.removed }) {
		o.run.world.After(choreRetry, o.restore) // there is nobody to remove it
		return
	}
	o.want("remove "+n.name(), func(done func(bool)) { o.remove(n, done) })
	o.want(what, func(done func(bool)) {
		o.add(n, func(ok bool) {
			if ok {
				o.run.mark(MarkMemberReplaced)
			}
			done(ok)
		})
	})
}

// remove takes a node out of the quorum, as "writ quorum member remove" does.
func (o *operator) remove(n *node, done func(bool)) {
	c := o.run.deciding()
	if c == nil {
		done(false)
		return
	}
	if c == n {
		o.move(nil, func(bool) { done(false) }) // and then again
		return
	}
	id, known := c.image.Identity().GetMembers()[n.name()]
	if !known || !slices.ContainsFunc(c.member.Members(), func(m quorum.MemberInfo) bool { return m.ID == id }) {
		done(true)
		return
	}
	change := &writv1.MemberChange{Name: n.name(), MemberId: id}
	c.do(quorum.BeginMemberChange{Actor: "operator", Change: change}, func(r lease.Reply) {
		if r.Err != nil {
			done(false)
			return
		}
		c.member.RemoveMember(id, func(err error) {
			if err != nil {
				done(false)
				return
			}
			o.end(c, nil, n.name(), done)
		})
	})
}

// add admits a node with an empty disk, and starts it.
func (o *operator) add(n *node, done func(bool)) {
	c := o.run.deciding()
	if c == nil || c == n || n.process.Up() {
		done(c != nil && c != n && n.process.Up())
		return
	}
	start := func(id uint64) {
		o.run.store.Disk(n.process).Wipe()
		o.run.store.Join(n.process, id)
		n.witness, n.removed = quorum.WitnessFromRecord(n.witness).Restarted().Record(), false
		n.start()
	}
	for _, m := range c.member.Members() {
		if m.Name == n.name() && m.Learner && !m.Started {
			o.end(c, map[string]uint64{n.name(): m.ID}, "", func(ok bool) { // an attempt before had come that far
				if ok {
					start(m.ID)
				}
				done(ok)
			})
			return
		}
	}
	change := &writv1.MemberChange{Name: n.name(), Add: true, PeerUrl: n.name()}
	c.do(quorum.BeginMemberChange{Actor: "operator", Change: change}, func(r lease.Reply) {
		if r.Err != nil {
			done(false)
			return
		}
		c.member.AddMember(n.name(), func(id uint64, err error) {
			if err != nil {
				done(false)
				return
			}
			o.end(c, map[string]uint64{n.name(): id}, "", func(ok bool) {
				if ok {
					start(id)
				}
				done(ok)
			})
		})
	})
}

// end commits the membership as the store now has it, as quorum.Service does.
func (o *operator) end(c *node, added map[string]uint64, removed string, done func(bool)) {
	members := quorum.NameMembers(c.member.Members(), c.image.Identity().GetMembers(), added)
	c.do(quorum.EndMemberChange{Members: members, Removed: removed}, func(r lease.Reply) { done(r.Err == nil) })
}

// move hands the coordinator over to a node, or to any other one.
func (o *operator) move(to *node, done func(bool)) {
	from := o.run.deciding()
	if from == nil {
		done(false)
		return
	}
	for _, n := range o.run.nodes {
		if to == nil && n != from && n.process.Up() && !n.process.Paused() {
			to = n
		}
	}
	if to == nil || !to.process.Up() || to == from {
		done(to == from && to != nil)
		return
	}
	from.member.MoveLeader(to.member.ID())
	o.run.mark(MarkMoved)
	done(true)
}

// force takes the lease of a resource away from whoever holds it; now: before it has run out, where guards refuse its holder.
func (o *operator) force(name lease.Resource, now bool, done func(bool)) {
	c := o.run.coordinator()
	token, held := o.run.judge.Held(name)
	if c == nil || !held {
		done(!held)
		return
	}
	command := lease.ForceRelease{
		Caller: operatorCaller, Ref: lease.Ref{Resource: name, Token: token}, Reason: "simulated", Now: now,
	}
	if now {
		o.run.sample.end(name)
	}
	o.run.judge.Asked(command)
	c.do(command, func(r lease.Reply) {
		if r.Err == nil && now {
			o.run.mark(MarkForcedNow)
		} else if r.Err == nil {
			o.run.mark(MarkForced)
		}
		done(r.Err == nil || known(r.Err))
	})
}

// takeBackup keeps the state as the coordinator has it.
func (o *operator) takeBackup(done func(bool)) {
	c := o.run.coordinator()
	if c == nil {
		done(false)
		return
	}
	o.backup = c.member.Backup()
	done(true)
}

// restore stops every node and starts them all from the last backup, as "writ quorum restore" does on each. Without one they
// start from nothing, and only their witnesses know that there has been something.
func (o *operator) restore() {
	backup := o.backup
	if backup == nil {
		backup = &store.Backup{}
	}
	o.chores = nil
	o.restored++
	o.remembered = o.run.recall(backup.Entries)
	defer o.excuse()
	var processes []*world.Process
	for _, n := range o.run.nodes {
		if n.removed {
			continue
		}
		n.crash()
		processes = append(processes, n.process)
	}
	o.run.store.Rebuild(backup, processes)
	for _, n := range o.run.nodes {
		if n.removed {
			continue
		}
		w, err := quorum.WitnessFromRecord(n.witness).Rebase(quorum.Witness{Cluster: clusterName, Node: n.name(), Foreign: "restored from a backup"})
		if err != nil {
			panic(err)
		}
		n.witness = w.Record()
		n.start()
	}
}

// newCluster makes what one node has on its disk a cluster of its own, behind Writ's back, after all others were lost. They
// join it with empty disks.
func (o *operator) newCluster(first *node) {
	o.chores = nil
	o.restored++
	o.remembered = remembered{}
	defer o.excuse()
	for _, n := range o.run.nodes {
		n.crash()
	}
	o.run.store.ForceNew(first.process)
	first.start()
	for _, n := range o.run.nodes {
		if n != first && !n.removed {
			o.run.store.Disk(n.process).Wipe()
			o.replace(n)
		}
	}
}
