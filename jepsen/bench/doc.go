// Command bench measures Writ beside etcd's client/v3/concurrency in one run on one machine, and prints the table that
// docs/BENCHMARKS.md keeps. Three processes a side, the same disks, heartbeats and elections, no TLS, one client
// connection a side; both sides take turns, and what counts is the ratio of the medians.
//
// It asserts nothing: a busy machine changes the figures, not the verdict.
package main
