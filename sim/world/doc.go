// Package world is simulated time and everything that can go wrong in it: one event heap, clocks that drift, processes that
// pause and crash, a network, and disks.
//
// It promises that a World with the same seed, driven by the same calls, goes through the same events in the same order on
// every machine: nothing in it asks the time, draws a random number that is not derived from the seed, starts a goroutine,
// or depends on the order of a map. [World.Digest] is a digest of every event, to hold it to that.
//
// What is drawn for one thing does not depend on what is drawn for another: each draw hashes the seed, a name for the
// purpose and a counter. So removing a fault from a plan leaves the fate of every packet that is sent at all the same, and
// failures shrink.
//
// A World belongs to one goroutine. Instants of simulated real time, written T, are durations since its start.
package world
