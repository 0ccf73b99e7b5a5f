// Package audit chains records of what people and the quorum did to what matters, so that none can be changed, dropped or
// slipped in unnoticed.
//
// Every record carries its sequence, which starts at 1 and has no gap, and the SHA-256 of the record before it. Whoever
// stores a record stores it in the very transaction that does what it tells (invariant M1), together with the new Head.
//
// [Who] answers from the records who could write at an instant, and what that answer does not know. A [SignedHead] is what a
// node says that it has seen; a bundle ([Export], [VerifyBundle]) is a file that shows all of it to somebody with no server.
// A verifier takes nothing in a bundle on trust but the nodes' keys, and those only if it was given none: see [Verifier]. It
// keeps little in memory, and takes bundles from strangers.
//
// The package reads no clock and stores nothing. It does not keep a record from being read, and it does not
// say who is right when two chains fork from one record: a restore records its fork itself.
package audit
