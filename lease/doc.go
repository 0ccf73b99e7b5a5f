// Package lease answers who may act on a resource now, across regions: leases with fencing tokens, their rules, and the
// client that holds them.
//
//	client, err := lease.Dial(ctx, cfg)                                          // cfg, err := lease.ConfigFromEnv()
//	hold, err := client.Acquire(ctx, "billing/nightly", lease.AcquireOptions{})  // waits for its turn
//	defer hold.Release(ctx)                                                      // after the work has stopped
//	err = work(hold.Context(), hold.Token())                                     // ends when the lease does
//
// The package holds three parts. [Table] is the server's pure core and [Keeper] the holder's: both decide and do nothing
// else. [Client], [Hold] and what belongs to them are the SDK, the shell around a Keeper.
//
// # What it promises
//
//   - While the assumptions below hold, no two processes believe in the lease of one resource at the same time. A holder
//     counts from before it sent the request, and stops early by what its clock may be wrong; the quorum counts from when
//     it took the request in, and waits the plain TTL.
//   - [Hold.Context] ends at the local deadline with no help from the network, and when the quorum says that the lease is
//     over.
//   - [Hold.Token] is greater than that of every earlier grant of the resource. It is part of the grant and never read
//     back.
//   - A request takes at most one lease: attempts without an answer are repeated under the same request id, and a request
//     that its caller gave up is cancelled, with any grant that was made meanwhile.
//   - One client renews everything that its process holds in one message per third of the shortest TTL.
//   - A node that fails or goes silent costs a fraction of the TTL; the client moves on, and returns later if that node is
//     nearer.
//   - [Client.Watch] yields a prefix of history, in order, without gap or duplicate, across nodes.
//
// # What it does not promise
//
//   - A context cannot stop a process that is paused between looking and writing. Only a guard, or storage that compares
//     tokens, refuses the write that comes too late: pass the token along.
//   - A hold is not re-entrant, and [Hold.Valid] asks nobody; [Hold.Verify] does.
//   - A watch event tells what was committed. It never confers ownership.
//   - An error that matches [ErrUnknownOutcome] says that the call may or may not have had its effect.
//   - Work that ignores its context is not stopped.
//
// # What it assumes of clocks
//
// Every clock runs at a rate within [1−ρ, 1+ρ] of real time, ρ being 500 ppm unless [Config] says otherwise. Belief is
// counted by [clock.System], which also counts suspend where the platform allows. When the time of day and that clock
// disagree by more than a second, the process may have been frozen: no hold is believed until the quorum has vouched for it
// anew, and one for which that fails within a third of its TTL is lost. A freeze that shows in neither clock is outside of
// the model. Clocks of different machines are never compared.
//
// # How it fails
//
// Without a majority nothing new is granted and holders lose their leases at their deadlines, each by itself: it fails
// closed. [Client.Acquire] and the other calls go on asking until their context ends and then say what the last node said.
// Every error carries a [Reason]; wire.go relates reasons to gRPC codes, HTTP statuses and exit codes in one table. A lost
// lease ends the hold's context with a [*LostError].
package lease
