// Package store is the replicated store of the simulated nodes: what quorum.Store asks for, in simulated time.
//
// There are two. [Raft] runs a real raft replica beside each node, on a simulated disk and network, under a small key-value
// store that compares terms. [Fast] is one copy for all nodes that behaves as badly as the contract allows: late, out of
// order where that is allowed, and often without saying what happened. Both pass the suite in quorum/storetest, as embedded
// etcd does.
//
// Nothing waits: calls answer through callbacks, in the life of the process that made them, or never; whoever calls keeps
// the time. No call answers from within itself, except that a watch begins with what is there.
//
// A replica behaves as an etcd server around raft: one Ready at a time, promises only after the flush, images for those who are
// far behind, proposals that may get lost but are never repeated. Most of its cost is what raft allocates for each message, so
// a run profits from a garbage collector that starts late (GOGC=400).
//
// Raft reports members that apply different commands at one place. It does not compare their states: those are functions of
// the commands.
package store
