// Package nemesis does harm to a lab: to processes, to the network between them, and to writers at the very moment that
// matters.
//
// # What it promises
//
//   - Every strike is written down with its beginning and its end, and is over when [Field.Run] returns: what was cut is
//     mended, what was killed is started, what was paused goes on.
//   - Strikes compose. Each takes what it touches for itself, so that no two of them undo each other; one that finds what
//     it needs taken waits for its next turn.
//   - Which nemeses do harm together is drawn from a seed, see [Swarm]: leaving most out lets the others go further than
//     all of them at once would.
//   - No guard is paused or starved for half of its slack or longer by intent. How long it was is in [Field.LongestPause].
//
// # What it does not promise
//
// A seed fixes what is tried, not when the processes are struck in the course of what they do.
//
// # Further nemeses
//
// A nemesis is a name, a sentence, and a function of a [strike]. It begins by taking what it touches, and does everything by
// strike.during, so that the promises above are kept.
package nemesis
