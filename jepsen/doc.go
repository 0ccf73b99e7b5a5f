// Package jepsen proves promises on the programs that ship: real server processes on real disks and sockets, real kills
// and pauses, and judges that look only at what clients saw.
//
// It consists of tests. Package cluster runs the processes, package history judges what was recorded, package bench
// measures. What the tests hold the servers to:
//
//   - the lease API is linearizable while nodes are killed and paused, and no lease is seen to expire before its time
//     (TestLeasesAreLinearizable);
//   - no token is repeated, no acknowledged state is lost and work goes on while each node in turn is killed
//     (TestKillEachNodeInTurnUnderLoad);
//   - a paused holder and its successor never believe in a lease at the same time (TestPausedHolderCannotOverlap).
//
// What they do not show: networks that drop or reorder, clocks that drift, disks that lie. All processes share one
// machine, so that the instants of their clocks can be compared; that is what makes the judgement of expiry exact.
//
// A seed fixes what the clients and the faults try, and is printed on failure. It does not fix how processes interleave,
// so the same seed may have to be run several times:
//
//	WRIT_JEPSEN_SEED=7 WRIT_JEPSEN_SECONDS=300 go test -count=1 -run TestLeasesAreLinearizable ./jepsen
//
// WRIT_JEPSEN_BINARY names a writ program to test instead of the one that is built from the sources.
package jepsen
