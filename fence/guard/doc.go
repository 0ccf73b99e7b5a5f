// Package guard is the shell of a guard: it runs the gate ([gate.Gate]) with a clock, a floor store, and a stream to the quorum,
// and admits writes for the fronts that stand before a storage.
//
// # What it promises
//
//   - [Guard.Admit] lets a write go only as the gate says: nothing is admitted under a token that is not durable as the floor,
//     nothing below a floor, and nothing at all before the quorum has told the floors since the process started.
//   - A signed writ is believed only if a key of the quorum signed it, this quorum issued it, and it is for the resource of the
//     write. Keys and issuer are kept in the floor store, so that a guard that restarts can tell forged writs from others; a
//     writ that was verified once is recognised until the keys change.
//   - [Guard.Close] says goodbye to the quorum, and marks the store as clean, only when nothing is under way any more. If its
//     time is up before, writes under way are cut off and the next process assumes the worst.
//
// # What it does not promise
//
//   - A bare token proves nothing. Fronts pass one on only from callers that they trust.
//   - An admission whose Done is never called counts as under way for as long as the process lives: a newer token is then
//     held up, and in the end refused with DRAINING. Fronts call Done in a defer. Calling it twice does no harm.
//   - What a process does after it was paused between Admit and the storage is beyond this package: W ([Config.Slack]) bounds
//     such pauses.
//
// # Clocks
//
// One clock, which counts suspend. It is compared with the time of day once a second and at every admission; when the two
// disagree, nothing is believed until the quorum has been heard again.
//
// # How it fails
//
// Without the quorum, rules decide: resources that close are refused with ISOLATED when the guard lease has run out, others go
// on by comparing tokens. Without the store, tokens that need a new floor are refused with STORE_FAILED, and the quorum is not
// asked for contact, so that it gives the guard up. A process that cannot open its store does not start.
//
// One lock is around the gate. Whatever blocks happens elsewhere: one goroutine writes to the store, in order; one speaks with
// a node; one wakes the gate in time. Close joins them all.
package guard
