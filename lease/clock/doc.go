// Package clock measures durations for leases: how long a holder may believe
// that it holds one, and how long a coordinator or a guard must wait.
//
// # What it promises
//
//   - [System] reads a clock that also counts the time a machine spent
//     suspended, where the platform has one. A holder that closes its laptop
//     lid wakes up knowing that its lease is over.
//   - A [Timer] never fires before its instant by [Clock.Now] of its own clock,
//     and never leaves a stale tick behind after Reset or Stop.
//   - [Shrink] turns a lease's ttl into the window that the holder may use, so
//     that the window ends in real time before the coordinator's ttl does.
//
// # What it assumes
//
// Every clock runs at a rate within [1−ρ, 1+ρ] of real time; ρ is
// [DefaultDriftPPM] parts per million unless configured, and time daemons must
// be configured not to slew faster than that. Instants of two
// processes, two machines or two clocks are never compared.
//
// # What it does not promise
//
//   - A timer is a hint to look at the clock, not a guarantee of punctuality.
//     Code that is about to act must compare Now with its deadline again.
//   - A freeze that no clock of the machine shows (a paused virtual machine
//     whose wall clock is never corrected) cannot be seen. A freeze that shows
//     in one of the two clocks is reported by [Watchdog].
//   - Outside Linux, [System] is Go's monotonic clock, and on several platforms
//     that clock stops during suspend. [SuspendAware] tells.
//
// # Which clock
//
// Use [System] in production, [Monotonic] inside a testing/synctest bubble and
// [Manual] wherever a test wants to decide each step by itself.
//
// Wall time is for people: display, audit and certificate expiry. Durations
// never come from it.
package clock
