// Package cron decides when a job that runs in one place runs: a pure core, the document that it keeps in the quorum, and
// the document by which people steer it. The shell is singleton.Cron.
//
// # How a slot is run
//
// A process that holds the resource of the job steps a [Machine]. When a slot falls due the Machine asks for its state to be
// stored with the slot claimed in it, as the checkpoint of the resource, which only the newest token can write. Only when
// that is done does the slot run, and its outcome is stored after. So no two holders claim a slot, and a claim without an
// outcome tells the next holder what a dead one left behind: it runs the slot again, as the next attempt under the same id,
// within the catch-up window.
//
// # What it promises
//
//   - [Tick.ID] is the same for all attempts of a slot and differs between slots: an effect that is recorded under it, in
//     storage that compares tokens, happens once.
//   - A slot that was disposed of (run, skipped, given up) is not run again, wherever clocks go. A slot within the window
//     that the policy does not skip is claimed by the next holder that the quorum grants the resource.
//   - The state says, of the last slots, what came of each or why it was skipped.
//   - A document of a version that is not known is refused and left as it is.
//
// # What it does not promise
//
// A function may be interrupted at any point and run again: what it does outside of storage that compares tokens can happen
// twice. A slot that is older than the window is not run. Slots that passed while nothing ever held the job, or under a
// spec that is replaced, are not made up for.
//
// # What it assumes of clocks
//
// Slots are times of day. A machine whose clock is ahead runs a slot early by as much, and no other runs it again: slots
// that its clock passed over are missed like any other. When a clock is set back, nothing runs until it has passed the last
// slot again; only what failed to be stored is stored again at once. Other durations, and leases, never come from that clock.
package cron
