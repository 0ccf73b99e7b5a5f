// Package quorum is a node: it decides, if it is the coordinator, and knows, whether it is or not.
//
// # What it promises
//
// Engine decides against memory, commits under a term, and lets no answer out before the commit it rests on has succeeded, or,
// if nothing changed, before a linearizable read begun after the request's intake has shown that the term is still its own. A
// round whose outcome is unknown ends the term: nothing is guessed, everything in memory is forgotten and loaded anew. Tokens
// are handed out only below a ceiling that has been committed, applied, and written to this node's witness.
//
// A state that a witness or the membership contradicts, or that was restored, is foreign: nothing is granted before the epoch
// has been raised above every member's witness, every member has witnessed it, and the longest TTL has passed.
//
// Reads and watches are served by every node from its view, which is always the state at one revision.
//
// # What it does not promise
//
// It cannot notice that every witness was rolled back at once together with the state. It does not stop whoever writes to a
// storage that compares no tokens.
//
// # What it assumes of clocks
//
// That the rate of each is within ρ of real time. Deadlines count from a request's intake on the coordinator's suspend-aware
// clock, plain; the holder's side shrinks. Clocks of two machines are never compared; wall time is for people.
//
// # How it fails
//
// Without a majority nothing is decided: callers get NO_QUORUM, NOT_COORDINATOR or UNKNOWN_OUTCOME, and asking again with the
// same request id is safe. A node that cannot write its witness hands the coordinator over.
//
// # Where to look
//
// engine*.go is the pure core, service.go its shell, store.go the port that package quorum/etcd implements, view.go and read.go
// the node's knowledge, herald.go what it tells the others and remembers, cluster.go the operator's side, house.go and
// service_house.go housekeeping. The pure parts of what a node knows are in image.go (the state), telling.go (watches) and
// memory.go (witness, announcements).
package quorum
