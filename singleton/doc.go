// Package singleton runs work in one place across all regions: a job, a scheduler, the consumers of a queue.
//
//	client, err := lease.Dial(ctx, cfg)
//	...
//	s, err := singleton.New(client, singleton.Config{})
//	...
//	err = s.Run(ctx, "billing/nightly", func(ctx context.Context) error {
//		return bill(ctx) // ends when ctx does; what it writes carries the token in ctx
//	})
//
// Every process of every region calls Run; one of them is in the function at a time. [Singleton.Cron] does the same with
// the slots of a schedule:
//
//	err = s.Cron(ctx, "billing/nightly", "CRON_TZ=Europe/Berlin 30 2 * * *", func(ctx context.Context, tick singleton.Tick) error {
//		return bill(ctx, tick.ID) // the same id if a holder dies and the slot is run again
//	})
//
// A program with one client that is configured by its environment calls [Run] of this package and nothing else.
//
// # What it promises
//
//   - The context of the function ends before another process can be granted the resource, by this machine's clock and
//     with no help from the network: [Config.StopLead] before the lease does, so that the function can stop in between.
//     The lease is released only after the function has returned.
//   - A function that does not return when its context ends never has its lease released: the lease runs out, and then
//     the process exits, unless [Config.OnStuck] says otherwise. With [Config.Strict] it exits before anybody else can be
//     granted the resource.
//   - The context carries the writ, so guards and storage that compare tokens refuse what a paused process writes when it
//     wakes up: fence.Transport, the interceptors of package fencegrpc, and fence.FromContext or [Term.Write] for pgfence.
//   - A hand-over to a preferred region, and a clean shutdown while somebody waits, is one commit of the quorum.
//   - A slot is claimed durably before it runs, so that no two processes claim it, and one whose holder died is run again,
//     within the window of its policy. See package cron.
//
// # What it does not promise
//
// A process can be paused between looking at its context and writing. No lease prevents that: only a guard, or storage
// that compares tokens, does. A function that lost its lease just as it finished is run again, here or elsewhere.
//
// # Clocks and failure
//
// Belief is counted on a clock that counts suspend, from before the request that conferred it was sent. Without a quorum
// nobody is granted anything, and work stops when the lease ends.
//
// A [Runner] makes the decisions: a pure core. Goroutines are joined before a call returns, except that of a function which
// is left behind as stuck.
package singleton
