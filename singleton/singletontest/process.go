package singletontest

import (
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
	"github.com/writ-io/writ/singleton"
)

// Process is what one process of a program is to the quorum: a client with a clock and a connection of its own. It is safe
// for concurrent use.
type Process struct {
	quorum *Quorum
	node   *leasetest.Node
	clock  *processClock
	client *lease.Client
}

// Process starts a process, for as long as the test lasts. Its name must be its own. Region may be empty.
func (q *Quorum) Process(name, region string) *Process {
	q.tb.Helper()
	if !q.state.name(name) {
		q.tb.Fatalf("singletontest: there is a process %q already", name)
	}
	p := &Process{quorum: q, node: leasetest.NewNode(q.state, name+":7411", region), clock: newProcessClock(q.clock)}
	q.tb.Cleanup(p.clock.close)
	q.network.Start(p.node)
	q.tb.Cleanup(p.node.Stop)
	client, err := lease.Dial(q.tb.Context(), lease.Config{
		Endpoints: []string{name + ":7411"}, Insecure: true, Region: region, Instance: name, Clock: p.clock,
		DialOptions: []grpc.DialOption{q.network.Option()},
	})
	if err != nil {
		q.tb.Fatalf("singletontest: process %q: %v", name, err)
	}
	p.client = client
	q.tb.Cleanup(func() {
		p.Resume()
		_ = client.Close()
	})
	return p
}

// Client returns the client of the process, which is closed when the test ends, or by the test.
func (p *Process) Client() *lease.Client { return p.client }

// Singleton makes a singleton of the process's client. An unusable configuration fails the test.
func (p *Process) Singleton(cfg singleton.Config) *singleton.Singleton {
	p.quorum.tb.Helper()
	s, err := singleton.New(p.client, cfg)
	if err != nil {
		p.quorum.tb.Fatalf("singletontest: %v", err)
	}
	return s
}

// Pause makes the process a zombie: its clock stands still and nothing reaches it or leaves it, while everybody else goes
// on. It believes in its leases for as long as that takes. Goroutines of the program run on, so that the test can have it
// do what a process does that was paused between looking and writing.
func (p *Process) Pause() {
	p.clock.pause(true)
	p.node.Freeze()
}

// Resume ends Pause and Partition. The clock shows at once how much time has passed.
func (p *Process) Resume() {
	p.clock.pause(false)
	p.node.Thaw()
}

// Partition cuts the process off from the quorum. Its clock goes on.
func (p *Process) Partition() { p.node.Freeze() }

// Heal ends Partition; what was held back passes.
func (p *Process) Heal() { p.node.Thaw() }

// Delay makes each call of the process take that much longer.
func (p *Process) Delay(d time.Duration) { p.node.SetDelay(d) }

// JumpClock moves the time of day of the process, forward or back, which its lease clock does not follow. A jump of more
// than a second makes the client renew everything before it believes again.
func (p *Process) JumpClock(d time.Duration) {
	p.clock.follow()
	p.clock.manual.JumpWall(d)
}

// Calls returns how many calls of a method of the API, such as "Renew", the process has made.
func (p *Process) Calls(method string) int { return p.node.Calls(method) }
