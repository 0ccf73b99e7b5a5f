// Package demo tells what a lease with a fencing token is good for, in a story of under a minute: on a real quorum, with a
// holder that is a process of its own and is really paused, and with storage that is really guarded.
//
// The storage is a file behind HTTP that knows nothing of tokens. Before it stands a guard of package fence/guard in the form
// of package fence/guard/proxy, enrolled at the quorum, so that every grant of the story needs its proof. Where PostgreSQL is
// installed the story starts one of its own, and the same writers also insert rows into a table that package fence/pgfence
// protects.
//
// It promises that what it prints was seen and measured, not written down beforehand, and that it ends with an error
// unless every step went as it had said. It leaves nothing behind: no file, no process.
//
// It assumes that this process may start another one of its own executable, and pause it by signal. Clocks matter for what
// it prints and for when it gives up, and for nothing else.
//
// It fails by telling which step did not go as promised. A PostgreSQL that does not start is no failure: the story says so
// and goes on without.
package demo
