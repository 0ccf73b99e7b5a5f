// Package store is the replicated store of the simulated nodes: what quorum.Store asks for, in simulated time.
//
// There are two. [Raft] runs a real raft replica beside each node, on a simulated disk and network, under a small key-value
// store that compares terms. [Fast] is one copy for all nodes that behaves as badly as the contract allows: late, out of
// order where that is allowed, and often without saying what happened. Both pass the suite in quorum/storetest, as embedded
// etcd does.
//
// Nothing waits: calls answer through callbacks, in the life of the process that made them, or never; whoever calls keeps
// the time.
package store
