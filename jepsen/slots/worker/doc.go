// Package worker is a program of the fault harness: a service with cron jobs, of which one runs in each region.
//
// The work of a slot does not look whether it still may: once it has the token it presents it until the database refuses it,
// which is what the fence is there for. What it does it says on standard output in the words of package writer: Granted with each
// term, Put before the row of an effect, Done after, and Read when it waits in the middle of a slot.
//
// Commands come by standard input, a line each: "hold JOB" has the next slot of a job stop once between its rows, "go" has it
// go on. The end of the input ends the program in its own time.
package worker
