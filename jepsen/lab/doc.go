// Package lab builds what is tried: a quorum, guards, a store and writers, each a process of its own in a network namespace
// of its own, on a network that can be cut.
//
// # What it promises
//
//   - Every process is the program that ships, but for the store and the writers, which are this very program started anew:
//     see [Child].
//   - A process that ends though nobody ended it is found by [Lab.Check].
//   - [Lab.Close] ends every process, waits for it, and removes the network. Should this program die without calling it,
//     the kernel kills the processes, and the namespaces' names go with the next lab that is built on the machine.
//
// # What it does not promise
//
// It needs Linux and root. The directory with certificates, data and logs belongs to the caller.
//
// # Clocks
//
// All processes share the machine's clocks. [GuardLease] and [Slack] are short, so that much can happen in little time; who
// pauses a guard for more than Slack leaves what guards promise.
package lab
