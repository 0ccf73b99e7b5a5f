// Package record keeps what happened in a run of the fault harness, in a directory that can be judged again at any time.
//
// # The directory
//
//   - run.json says what was run: seed, command, versions, topology, workloads, nemeses, and whether the run came to its end.
//   - history.jsonl holds calls, their returns, and events of processes, a line of JSON each; see [Call] and [Event].
//   - faults.jsonl holds rounds, faults with their beginning and end, and when all was healed; see [Round] and [Fault].
//   - logs/ holds what the processes logged.
//
// # What it promises
//
// A call of the harness is written before it is made and a return when its answer is there, so that the times between which
// an effect may have happened are never understated. What processes do is written when the harness hears of it over a pipe,
// which may be after its effect: their checkers go by what a store applied and by tokens, not by the times of their calls.
// Lines are handed to the kernel one by one: a harness that dies leaves all that it had written, at worst with a last line
// that was cut short, and calls without a return, whose outcome is unknown.
//
// Reading is strict. What is not understood is an error that names file, line and field; only a cut last line is taken for
// what it is, and noted.
//
// # Clocks
//
// Times count from the start of the run, by this machine's monotonic clock, and never decrease within a file.
package record
