// Package jepsen proves promises on the programs that ship: real server processes on real disks and sockets, real kills
// and pauses, and judges that look only at what clients saw.
//
// It consists of tests. Package cluster runs the processes, package netns gives them a network that can be cut, the
// packages history and appends judge what was recorded, package bench measures. What the tests hold the servers to:
//
//   - the lease API is linearizable while nodes are killed and paused, and no lease is seen to expire before its time
//     (TestLeasesAreLinearizable);
//   - no token is repeated, no acknowledged state is lost and work goes on while each node in turn is killed
//     (TestKillEachNodeInTurnUnderLoad);
//   - a paused holder and its successor never believe in a lease at the same time (TestPausedHolderCannotOverlap);
//   - behind three guards, a store that compares nothing applies no write under an older token after one under a newer, and
//     loses no acknowledged append, while nodes, guards and writers are killed and paused, in the middle of writes too,
//     and cut off from each other in one direction or both (TestGuardedStore, TestKilledGuardLeavesNothing); without
//     guards the same judge finds both (TestUnguardedStoreIsCaught);
//   - a guard that is paused for longer than W in the middle of a write is survived by a storage that compares tokens
//     itself, PostgreSQL with a fence among them, and by no other (TestPausedGuard).
//
// The tests of guards put every process into a network namespace of its own: see package netns. They need root.
//
// What they do not show: networks that reorder, clocks that drift, disks that lie. All processes share one
// machine, so that the instants of their clocks can be compared; that is what makes the judgement of expiry exact.
//
// A seed fixes what the clients and the faults try, and is printed on failure. It does not fix how processes interleave,
// so the same seed may have to be run several times:
//
//	WRIT_JEPSEN_SEED=7 WRIT_JEPSEN_SECONDS=300 go test -count=1 -run TestLeasesAreLinearizable ./jepsen
//	WRIT_JEPSEN_SEED=7 go test ./jepsen -count=1 -run TestGuardedStore -v -timeout 20m -guards 10m
//
// WRIT_JEPSEN_BINARY and WRIT_JEPSEN_GUARD_BINARY name programs to test instead of those that are built from the sources.
package jepsen
