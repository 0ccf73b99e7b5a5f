// Package fencetest is a conformance suite for guards: whatever admits writes by their fencing tokens can be held to what
// a guard has to promise.
//
//	func TestMyGuard(t *testing.T) {
//		fencetest.Run(t, fencetest.Config{Open: func(t *testing.T) fencetest.Guard { return newMyGuard(t) }})
//	}
//
// # What it promises
//
// [Run] tries, each on a guard of its own:
//
//   - that a token is admitted again, that a newer one is, and that nothing older is afterwards (S2);
//   - that resources do not concern each other;
//   - that tokens that are none are refused, and change nothing;
//   - that a newer token waits for an older write that is under way, or refuses, but is never carried out beside it; and
//     that an older one which comes later than the newer one is refused, also while the newer one waits;
//   - that of many writes at once none is carried out after one with a newer token has begun;
//   - that a guard which says that its floors are durable still has them after a restart.
//
// # What it does not promise
//
// A guard that passes may still be wrong: the suite does not pause it between its check and the storage, does not lose its
// disk, and does not forge writs. A guard that never answers is found by the timeout of
// the test, and one that lets a newer write pass an older one only if it does so within [Config.Settle].
//
// # Clocks and failure
//
// Nothing depends on time but that. What is wrong is said with the tokens that show it.
package fencetest
