// Package node runs nodes: it wires the replicated store, the quorum service and the API server of one node together,
// for the commands server, dev and quorum restore.
//
// It promises that a node never starts on a state that it knows to be older than what it last saw. Beside the store each
// node keeps a witness, in a file of its own; a start compares the two and refuses, with the ways out, what does not fit:
// a missing, edited or foreign witness, a store that was wiped, or one that was put back to an older state. A start that
// is refused changes nothing. See startup.go for the rules.
//
// It promises that Stop hands the coordinator over before anything ends, so that a rolling restart costs no election, and
// that it is bounded: what does not stop in time is cut off.
//
// It does not notice when the data directory and the witness in it were put back together: nothing on this machine can.
// The other nodes' witnesses then tell by their token ceilings and epochs, unless they were all put back.
//
// Of clocks it assumes nothing beyond what the parts assume. Bounded waits run on Go's monotonic clock.
//
// How it fails: Start answers an error of one line that names the field or file and the remedy. A node whose store or
// listeners fail later closes Done, and the process should exit with Err.
package node
