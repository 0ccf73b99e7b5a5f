// Package sim runs the code of a whole quorum, its clients and everything that can go wrong between them in simulated time,
// on one goroutine, from one seed, and holds the run to the invariants of docs/INVARIANTS.md.
//
// What runs is what ships: quorum.Engine and quorum.Image on every node, lease.Table below them, the rules of witnesses and
// of watches, lease.Keeper in every client, gate.Gate in every guard, singleton.Runner, cron.Machine and partition.Machine
// in every service. Simulated is what is around them: clocks, the network, disks, processes, raft's replicas and the
// operator (packages world and store). What happens is a plan (package plan): drawn from a seed, or written as a scenario.
// docs/SIMULATION.md tells how to use it and how to read what it says.
//
// # How a run goes
//
// [Run] starts the nodes, the clients and the watchers of a plan and lets its faults happen in their time. When the plan's
// duration is over it heals: every fault ends, everybody is started again, the operator finishes what was begun, clients let
// go. Then a client that nobody knows, the probe, asks for every resource, and must have all of them within a time that
// follows from the plan: that is L1. Watchers must have been told everything by then. All the while package judge keeps
// the books.
//
// # What it promises
//
// One plan has one [Result], on every machine, as long as the program is the same: [Result.Hash] is over every event. A
// [Sweep] repeats one run of a hundred and reports one that differs as a failure of its own. A panic of the code under test is
// a violation and not the end of the program.
//
// # What it does not promise
//
// That a clean sweep means more than that these plans broke nothing that is looked at. [Marks] say which situations a sweep
// was in, and mutants (package mutant) which bugs it would have found.
//
// S6 and S8 are checked of one storage for all regions of a group, with people whose rule is two of them. S2 and S3 are
// checked of storage that compares tokens atomically with what it writes, and of storage that compares nothing and is
// reached through guards alone, as far as something is promised: docs/SIMULATION.md lists where it is not. S7 is checked of
// lease.Keeper and of functions that run in one place; that "writ run" kills what it started is tested with real processes.
// Code that is not simulated is not tested: gRPC and REST, certificates, policy files, the adapter to etcd, lease.Client
// around the keeper, singleton.Singleton around its cores, quorum.Service around the engine, guard.Guard around the gate,
// its floor store and its proxy.
//
// # What it assumes
//
// Clocks within the ρ that production allows for, unless they miss time altogether, which a watchdog has to notice; a freeze of
// less than a second is below its notice and is not drawn. Disks keep what they have flushed, unless they are wiped, or put
// back to what they were fifteen seconds before or longer: a witness notes how far the log is every five seconds. A guard before a
// storage that compares nothing stands still for no longer than half of W in any guard lease, and what it has forwarded when its
// connection breaks is carried out within nine twentieths of W, or not at all. Nobody lies:
// a process that is faulty stops, restarts or is late.
//
// # How it fails
//
// A mistake in the simulator shows as a violation that is none, or as none where there is one. Against the first, every
// violation has a plan that can be shrunk and a page that shows it; against the second there are the mutants.
package sim
