// Package singletontest is a quorum in memory for tests of programs that use package singleton, or lease.Client.
//
//	bubble.Test(t, func(t *testing.T) {
//		quorum := singletontest.New(t, singletontest.Config{})
//		eu, us := quorum.Process("eu-1", "eu"), quorum.Process("us-1", "us")
//		go run(eu.Client())
//		go run(us.Client())
//		quorum.Advance(time.Second) // one of them works
//		eu.Pause()                  // its network and its clock stand still: it still believes
//		quorum.Advance(time.Minute) // and the other one takes over
//		eu.Resume()                 // what it writes now has to be refused
//	})
//
// # What it promises
//
//   - It decides with lease.Table, as a real quorum does: priorities, queues, hand-off, tokens, checkpoints, policies and
//     late duplicates are the real ones. Clients are real too, and speak gRPC to it over a network in memory.
//   - Tokens are never issued twice, and writs are signed: [Quorum.Keys] verifies them.
//   - A [Process] can be paused, which makes it a zombie, cut off, and slowed down, each alone.
//   - [Quorum.Expire] and [Quorum.Steal] end a lease under a holder that believes in it, as only a fault beyond what Writ
//     promises can: to test that storage refuses the older token.
//   - All of it works inside a bubble of invented time (testing/synctest; under the race detector use Test of package
//     lease/clock/bubble), where a minute takes no time. Make it, its processes and everything that uses them inside.
//
// # What it does not promise
//
// Nobody is authenticated, nothing is guarded, nothing survives the test, and there is one quorum that never fails: cut
// processes off from it instead. It says nothing about speed.
//
// # Clocks and failure
//
// The quorum's clock is Go's monotonic one, which is the bubble's in a bubble; each process has a clock of its own that
// follows it unless the process is paused. Misuse, such as expiring what nobody holds, fails the test.
package singletontest
