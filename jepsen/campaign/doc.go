// Package campaign carries out runs of the fault harness: it builds a lab, puts it to work in rounds of faults, lets it heal
// after each, and leaves a record to be judged.
//
// # What it promises
//
//   - A round has faults for a while, drawn by nemesis.Swarm; then everything is healed, and work goes on until every workload
//     has succeeded again or its bound has passed. So each round is judged by itself.
//   - The positive controls are run before, each in a lab of its own that breaks a promise on purpose; their records lie
//     below that of the run.
//   - Whatever happens, the processes and the network are gone when [Run] returns; when the harness is killed, the kernel ends
//     the processes, and the next lab on the machine removes what is left of the network. A record that was not ended is
//     judged as far as it goes, and never valid.
//
// # What it does not promise
//
// It needs Linux, root, and the Go toolchain for programs that are not given.
package campaign
