// Package judge says what a recorded run is worth: it has every workload's checker look at the record, and looks itself for
// what all have in common.
//
//   - liveness: after the faults of each round had healed, a call that was made then succeeded within the workload's bound;
//   - rate: enough calls succeeded while there were faults. Calls that change nothing count for neither;
//   - logs: no process panicked, and no handler did in one;
//   - goroutines: no process has more and more;
//   - harness: no process ended that nobody ended, and the run came to its end. A harness that failed makes the run unknown,
//     not invalid;
//   - faults: each nemesis that had its turn in three rounds struck.
//
// A verdict is never better than what is known. A positive control is judged in the same way, and passes if what it breaks, and
// nothing else, is what was found invalid. One that belongs to the run and has no record leaves the run unknown.
package judge
