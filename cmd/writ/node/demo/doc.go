// Package demo tells what a lease with a fencing token is good for, in a story of under a minute: on a real quorum, with a
// holder that is a process of its own and is really paused.
//
// It promises that what it prints was seen and measured, not written down beforehand, and that it ends with an error
// unless every step went as it had said. What it shows of a guard is a stand-in: a storage of a few lines that compares
// tokens and does nothing else that a guard does.
//
// It assumes that this process may start another one of its own executable, and pause it by signal.
package demo
