// Package workload is what a lab is put to in a run of the fault harness, and how what came of it is judged.
//
// # What it promises
//
// A workload does its work in rounds, writes every call to the record before it is made, and finishes what it has begun when
// a round ends. Its checker needs nothing but the record: it gives the same verdicts on the day and years later.
//
//   - register: clients fight over leases at random nodes. Every round's history is linearizable (S1, S5, S9, D1, and S4 as
//     far as servers have a part in it), see package history.
//   - counter: holders count in the checkpoint, over all rounds. Whoever is granted the lease receives the last number that
//     was acknowledged, or one sent since (D1), and tokens increase (S1).
//   - belief: clients of the SDK say when they saw their holds valid. No two believe in a lease at a time (S1, S7).
//   - appends: writers append to a list through guards before a store that compares nothing. S2 and S3, see package appends.
//   - pg-appends: writers append to a list in PostgreSQL under its fence, each with connections of its own. The same.
//   - singletons: processes in three regions have cron jobs with effects in PostgreSQL under its fence. Every slot has its effect
//     once, within the window, and never two at a time, see package slots; what was acknowledged is there.
//   - watch: watchers go from node to node by resume tokens while leases change. All see the same, in order, nothing twice,
//     and everything that was acknowledged (S10).
//
// Of every workload: each round's faults must be survived, so that a call that was made after they had healed succeeds within
// a bound (L1), and enough must succeed for the verdict to mean something. A run with less is invalid.
//
// # What it does not promise
//
// Bounds and rates allow for a machine that is busy: see [Kind]. An unknown outcome is never guessed.
package workload
