// Package supervisor runs a command for as long as a lease is held, and no longer.
//
// # What it promises
//
// Every process that came of the command was sent SIGKILL before the local deadline of the lease, with no help from the
// network: [Reserve] before it, so that there is time to die. [Config.Grace] before the deadline they are asked to end with
// SIGTERM. When the lease is lost sooner, because the server ended it, they are killed at once. The command's process
// group receives the signals that this process receives. [Run] returns only when no process of the command is left, or
// says which are.
//
// # What it does not promise
//
// A process that is stopped, frozen or starved of processor time decides nothing meanwhile, while the command goes on. It
// kills as soon as it runs again; until then only the fencing token protects the storage. The same holds if this process
// is killed: the kernel then kills the command, but not what the command had started.
//
// # What it assumes of clocks
//
// The deadline is counted by a clock that goes on during suspend, see the package lease/clock. After a resume the deadline
// is looked at within 100 ms.
//
// # Parts
//
// machine.go decides and is pure; supervisor_linux.go carries out; the package proctree knows processes.
package supervisor
