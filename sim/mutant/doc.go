// Package mutant plants bugs in the code that ships, to see whether the simulator finds them.
//
// A simulator that finds nothing proves something only if it would have found something. So each rule that keeps an
// invariant has a mutant here: a bug of the kind that somebody could have written, planted where that rule is applied.
// A campaign runs with one of them at a time, and a mutant that survives names a hole in the checks or in the weather
// that the simulator makes.
//
// # What it promises
//
// Without the build tag mutants, [On] is a constant false: compilers drop the call and everything that depends on it, and
// no mutant can be turned on. With the tag, a process has at most one mutant, chosen by [Use].
//
// # What it assumes
//
// That On is asked at one place per mutant, as the whole condition or a part of it, and that the code around it reads as if
// it were not there. A test holds every use against [Registry].
package mutant
