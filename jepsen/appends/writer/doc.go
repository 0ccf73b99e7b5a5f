// Package writer is a program of the fault harness: it appends to the list of a store whenever it is granted the lock, by
// reading the list and writing it back.
//
// Once it has been granted the lock it never asks again whether it still holds it, as no program can between two of its
// instructions: it goes on until somebody refuses its writes. What it does it says on standard output, a [Said] of JSON
// each line, an attempt before it is sent and its outcome after. It sends one write at a time, each once, and none after
// one whose outcome it does not know.
//
// Commands come by standard input, a line each: [Hold] has it stop once after reading, [Go] has it go on. The end of the
// input has it finish what it is doing.
package writer
