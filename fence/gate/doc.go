// Package gate is the pure core of a guard: it decides which writes may go to the storage, and speaks with the quorum about
// it.
//
// # What it promises
//
//   - The floor of a resource never decreases, and from the step that raises it nothing below it is admitted.
//   - Before a write is admitted under a token, or a raise to it acknowledged, that floor is durable, and every write under an
//     older token has finished, or was broken off and then waited out for W (Config.Slack).
//   - A process that has just started admits nothing before the quorum has seeded it and the seed is durable; nor does one that
//     is told that it is off the quorum's list, or that another process has its name.
//   - Under rules that close, nothing is admitted at or after the deadline that the last contact confers, counted from before
//     it was asked for; and what is still under way then is cut. So nothing of it reaches the storage once the guard lease and
//     W have run out at the quorum.
//   - What a process that ended badly may have left under way is waited out for W, for floors whose drain was not on disk and
//     for every floor that is raised.
//   - A parked write is decided within MaxParkTime. No ticket is used twice.
//   - A page of floors ([Gate.Page]) tells what is true when it is made. It costs time in proportion to the page.
//   - Admit and Done under an unchanged token do not allocate, and cost a map look-up.
//
// # What it does not promise
//
// A guard that is paused for longer than W between an admission and the storage, and a storage that carries a request out later
// than W after its connection broke, are beyond it. Nor does it check writs: who calls Admit says whether the token is verified.
//
// # What its shell has to do
//
//   - Hold one lock around every call, and read the clock under it.
//   - Make batches durable in order, each in one transaction, and then step Persisted. A batch that was reported as failed may
//     turn out to be durable; its version is not used again.
//   - Mark the store as not clean before New, and as clean only after Left, when the last batch has ended.
//   - Call Take after Admit, within the same hold of the lock, when Pending says so.
//   - End every admitted write with Done, exactly once: also one that it was told to cut, and one whose client has gone.
//   - Step Tick at Effects.Wake of the newest effects.
//
// # What it assumes of clocks
//
// A clock that counts suspend, and whose rate is within Config.Drift. Suspicion says that it may have missed time: nothing that
// was asked for before is believed any more.
//
// # How it fails
//
// Admit refuses with *fence.StaleError, *fence.UnavailableError, *fence.InvalidError or fence.ErrUnguarded. Messages of the
// quorum that make no sense are ignored with a Warning. A store that fails, or a batch that does not end within a third of the
// guard lease, stops contacts, so that the quorum gives the guard up rather than wait for acks that cannot come.
package gate
