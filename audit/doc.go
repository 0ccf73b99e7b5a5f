// Package audit chains records of what people and the quorum did to what matters, so that none can be changed, dropped or
// slipped in unnoticed.
//
// Every record carries its sequence, which starts at 1 and has no gap, and the SHA-256 of the record before it. Whoever
// stores a record stores it in the very transaction that does what it tells (invariant M1), together with the new Head.
//
// The package is pure: it reads no clock and stores nothing. It does not keep a record from being read, and it does not
// say who is right when two chains fork from one record: a restore records its fork itself.
package audit
