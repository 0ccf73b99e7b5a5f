// Package jepsen proves promises on the programs that ship: real server processes on real disks and sockets, real kills
// and pauses, and judges that look only at what clients saw.
//
// The command cmd/jepsen runs workloads under faults for as long as one likes and reports on them: docs/JEPSEN.md tells how.
// Package lab builds what is tried, of processes that package cluster runs in a network of package netns; nemesis does harm,
// workload puts the lab to work, record keeps what happened, judge and report say what it is worth, and campaign carries all
// of that out. The packages history and appends judge leases and lists, package bench measures.
//
// This package consists of tests of what the command does not try, or more sharply. What they hold the servers to:
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
//     itself, PostgreSQL with a fence among them, and by no other (TestPausedGuard);
//   - when a region with the primary of a real PostgreSQL pair is cut off, the other one is promoted with two signatures after
//     the wait that was computed; what was acknowledged and is gone is in the tail that is listed when the region comes back,
//     a zombie there is refused, and a failback loses nothing (TestPromotionOfPostgreSQL);
//   - of three processes with cron jobs, one in each region, and PostgreSQL with a fence, every slot has its effect once, within
//     the catch-up window, and never beside another, while nodes and processes are killed, paused and cut off, in the middle
//     of slots too; where the database compares no tokens, the same judge finds doubles (TestSingletons, a run of the command's
//     own workload);
//   - whichever state a promotion is in when its coordinator's process is killed, the next one goes on where it was, and no
//     hook runs twice (TestCoordinatorKilledIn).
//
// The tests of guards and of PostgreSQL put every process into a network namespace of its own: see package netns. They need root.
//
// What these tests do not show: networks that reorder, wall clocks that jump, disks that fail and lose what was not flushed.
// Runs of the command do, see docs/JEPSEN.md. Neither shows clocks that drift. All processes share one machine, so that the
// instants of their clocks can be compared; that is what makes the judgement of expiry exact.
//
// A seed fixes what the clients and the faults try, and is printed on failure. It does not fix how processes interleave,
// so the same seed may have to be run several times:
//
//	WRIT_JEPSEN_SEED=7 WRIT_JEPSEN_SECONDS=300 go test -count=1 -run TestLeasesAreLinearizable ./jepsen
//	WRIT_JEPSEN_SEED=7 go test ./jepsen -count=1 -run TestGuardedStore -v -timeout 20m -guards 10m
//	WRIT_JEPSEN_SEED=7 go test ./jepsen -count=1 -run TestSingletons -v -timeout 20m -singletons 10m
//
// WRIT_JEPSEN_BINARY and WRIT_JEPSEN_GUARD_BINARY name programs to test instead of those that are built from the sources.
package jepsen
