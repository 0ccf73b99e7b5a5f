// Package leasetest is a test double of a Writ quorum for tests of clients: nodes that answer the lease API from a table
// in memory, and that fail when told to.
//
// # What it promises
//
//   - A [Node] speaks real gRPC over an in-memory [Network] or over any listener, so a client under test runs unchanged.
//     All of it works inside a testing/synctest bubble if it is made there.
//   - A node can be frozen (it accepts bytes and says nothing), reset, stopped and started again, slowed down, and
//     scripted: [Node.Script] answers, delays or loses chosen calls.
//   - Nodes that share a [Quorum] answer alike.
//
// # What it does not promise
//
// It is a double with scripted replies, not a quorum: one mutex stands for consensus, there is no authentication, no
// policy, no priority, no guard, and nothing survives. What it answers is meant to follow the documentation of the API; a
// test of the system belongs on real nodes.
//
// # Clocks and failure
//
// Leases expire by the clock that [NewQuorum] is given. A request that makes no sense is answered with INVALID, as a node
// would.
package leasetest
