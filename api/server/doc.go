// Package server serves the API of a node, over gRPC and over HTTP, on top of a [Quorum].
//
// # What it promises
//
//   - Nobody is anybody but the principal of the client certificate. A node may name the principal that it asks for, and
//     is believed only if its own certificate is that of a node of the quorum. HTTP callers cannot set what nodes say to
//     each other, whatever headers they send.
//   - What the policy does not allow is denied, on the node that was asked and again on the one that decides.
//   - A request for the coordinator is passed on to it, over one hop and never two, and again when the coordinator changes
//     meanwhile. It ends with an answer, with NO_QUORUM (nothing was changed), or with UNKNOWN_OUTCOME (something may have
//     been); these two are never confused.
//   - Renewals of all clients of a node travel to the coordinator together: one message is under way at a time, and what
//     arrives meanwhile goes into the next one.
//   - A guard's session works the same at every node: what it asks is authorised here and at the coordinator, again with
//     every ask, and it is told of raises, grants, keys and new coordinators. The newest takes the place of what has not
//     been read, so that a guard that does not read keeps nobody waiting; one that asks too much at a time is slowed down.
//   - The floors of a guard are the guard's own word, whichever node is asked (GetGuard). One that
//     does not answer is told to be what it is: what the quorum remembers never takes the place of an answer.
//   - Every failed call carries the reason, and where it helps the field and the remedy, in gRPC as in JSON.
//   - A handler that panics costs its caller an INTERNAL error, and nobody else anything.
//   - No request body, no key and no certificate is logged.
//
// # What it does not promise
//
// Validity of leases is between client and coordinator: nothing here counts TTLs. Rate limits hold on each node by itself.
// That a guard was told something is no proof of anything: only its acknowledgements count, and the coordinator repeats in
// each contact what it has not acknowledged. A canary shows one way through a guard, at one moment. Pages
// of a guard's floors are each of a moment of their own.
//
// A connection is as good as the certificate was when it was made, for at most [Config.MaxConnectionAge].
//
// # What it assumes of clocks
//
// Timeouts, rates and patience run on a monotonic clock that may stand still during suspend. Wall time is used to judge
// certificates, and for nothing else.
//
// # How it fails
//
// [New] refuses a configuration with an error that names the field. [Server.Serve] returns an error when a listener breaks;
// it has then stopped everything else. [Server.GracefulStop] is bounded by its context and then stops hard.
package server
