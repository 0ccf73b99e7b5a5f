// Command bench measures Writ beside etcd's client/v3/concurrency in one run on one machine, and prints the table that
// docs/BENCHMARKS.md keeps. Three processes a side, the same disks, heartbeats and elections, no TLS, one client
// connection a side; both sides take short turns, and what counts is the median of the ratios, turn by turn. With -base
// another build of Writ takes etcd's place.
//
// It asserts nothing: a busy machine changes the figures, not the verdict.
package main
