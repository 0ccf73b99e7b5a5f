// Package wallclock makes the wall clock of one process jump or stand still, while the machine's goes on.
//
// # What it promises
//
//   - Only the wall clock of the process changes: CLOCK_REALTIME, and the coarse one. Its other clocks, its timers, and all other
//     processes keep theirs.
//   - It works on a process that runs, at any time, and leaves nothing behind in the system: what was changed ends with the
//     process. [Clock.Restore] gives it the right time back.
//   - A process whose clock has never been touched pays nothing.
//
// # How
//
// Programs of Go read clocks by a function that the kernel maps into them, the vDSO. The process is stopped for some milliseconds,
// a few instructions are written to the unused end of its copy of that page, which no other process shares, and the function
// jumps there from then on. They ask the kernel for the time and add what [Clock.Jump] says.
//
// # What it does not promise
//
// It needs Linux on amd64 and root, see [Supported]. A program that asks the kernel itself, or by gettimeofday, gets the right
// time. So do timers of the kernel that are set by the wall clock, which programs of Go do not use.
package wallclock
