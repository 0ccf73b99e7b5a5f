package sim

import (
	"slices"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/partition"
)

// consumer is a member of a group: what singleton.Consume is in production around partition.Machine. The number of partitions,
// which members agree on there before anything else, is that of the plan here.
type consumer struct {
	service  *service
	work     *plan.Work
	names    partition.Names
	machine  *partition.Machine
	member   string // the name of its own lease
	metadata []byte

	follower *watcher
	alarm    *world.Alarm
	events   []partition.Event
	due      bool // a step is coming
	workers  map[int]*partitionWorker
	place    *grip // its own lease; nil: it does not ask for it
	leaving  bool
	gone     bool
}

func newConsumer(s *service, w *plan.Work) *consumer {
	names, err := partition.NewNames(w.Name)
	if err != nil {
		panic(err) // plans are valid
	}
	c := &consumer{service: s, work: w, names: names, workers: make(map[int]*partitionWorker)}
	self := s.client.caller.Instance
	var homes []string
	if len(w.Homes) > 0 {
		for i := range w.Partitions {
			homes = append(homes, w.HomeOf(i))
		}
	}
	if c.member, err = names.Member(self); err != nil {
		panic(err)
	}
	if c.metadata, err = partition.Metadata(s.spec.Region, homes); err != nil {
		panic(err)
	}
	c.machine, err = partition.NewMachine(partition.MachineConfig{
		Names: names, Self: self, Partitions: w.Partitions, Homes: homes, Grace: s.spec.Grace, Retry: partition.DefaultRetry, Settle: partition.DefaultSettle,
	})
	if err != nil {
		panic(err)
	}
	c.alarm = s.process().NewAlarm(c.soon)
	c.follower = newFollower(s.run, s.process(), names.Prefix(), func(ev lease.WatchEvent) { c.tell(partition.Watched{Event: ev}) })
	c.soon()
	return c
}

// tell lets the machine hear of something.
func (c *consumer) tell(e partition.Event) {
	c.events = append(c.events, e)
	c.soon()
}

// soon steps the machine after what happens now.
func (c *consumer) soon() {
	if !c.due {
		c.due = true
		c.service.process().After(0, c.step)
	}
}

func (c *consumer) step() {
	c.due = false
	if c.gone {
		return
	}
	events := c.events
	c.events = nil
	e := c.machine.Step(c.service.now(), events...)
	c.apply(e)
	if e.Wake != 0 {
		c.alarm.Set(e.Wake)
	} else {
		c.alarm.Set(clock.Never)
	}
	if e.Done {
		c.gone = true
		c.follower.leave()
		c.service.depart()
		if !c.service.leaving { // a function has failed: whoever called Consume calls it again
			c.service.rejoin(c)
		}
	}
}

// apply carries effects out.
func (c *consumer) apply(e partition.Effects) {
	if e.Join {
		c.join()
	}
	if e.Quit {
		c.quit()
	}
	for _, index := range e.Cancel {
		c.workers[index].campaign.end()
	}
	for _, index := range e.Start {
		c.workers[index].start()
	}
	for _, index := range e.Revoke {
		c.workers[index].revoke()
	}
	for _, index := range e.End {
		c.service.run.mark(MarkRevokeGrace)
		c.workers[index].campaign.end()
	}
	for _, index := range e.Release {
		c.workers[index].release()
	}
	for _, index := range e.Ask { // last: it puts another worker in the place of the one that the others are for
		c.ask(index)
	}
}

// join asks for the member's own lease.
func (c *consumer) join() {
	g := c.service.newGrip(c.member, c.work)
	c.place, g.metadata = g, c.metadata
	g.onGrant = func(*lease.Grant) {
		g.onLoss = func() { c.leave(g) }
		c.tell(partition.Joined{})
		if g.state == gripLost {
			c.leave(g)
		}
	}
	g.onEnd = func() { c.tell(partition.Excluded{}) }
	g.ask()
}

// leave gives the member's own lease up.
func (c *consumer) leave(g *grip) {
	g.release(func() { c.tell(partition.Excluded{}) })
}

// quit ends the membership, or the asking for it.
func (c *consumer) quit() {
	switch g := c.place; g.state {
	case gripAsking:
		g.cancel()
	case gripHeld:
		c.leave(g)
	case gripLost, gripLetGo: // that is told when it has been released
	}
}

// ask starts a worker of a partition.
func (c *consumer) ask(index int) {
	w := &partitionWorker{consumer: c, index: index}
	c.workers[index] = w
	w.campaign = &campaign{
		service: c.service, labour: w, done: func(singleton.RunnerOutcome) { w.end() },
		newGrip: func() *grip { return c.service.newGrip(c.names.Partition(index), c.work) },
	}
	config := c.service.config(c.work)
	config.StopOnLoss, config.HandOver = true, false
	w.campaign.run(config)
}

// fail makes the member leave.
func (c *consumer) fail() {
	c.service.run.mark(MarkMemberFailed)
	c.tell(partition.Leave{})
}

func (c *consumer) end() {
	c.leaving = true
	c.tell(partition.Leave{})
}

func (c *consumer) over() bool { return c.gone }

func (c *consumer) crash() {
	c.gone = true
	c.follower.leave()
	for _, w := range c.workers {
		w.campaign.dead = true
	}
}

// rejoin calls Consume again.
func (s *service) rejoin(c *consumer) {
	i := slices.Index(s.works, undertaking(c))
	s.process().After(s.dice().Between(rejoinLeast, rejoinMost), func() {
		if !s.leaving {
			s.works[i] = newConsumer(s, c.work)
		}
	})
}
