// Package report shows a judged run: as one HTML file that needs nothing else, and as text.
//
// The page has the verdicts of every workload under every nemesis, the positive controls, rates and latencies over time with
// the faults shaded, every judgement with its evidence, and for a history that is not linearizable porcupine's picture of
// it. Whatever a process said is shown as text.
//
// A cell of the table is about the rounds in which its nemesis did harm, in which others did as well: a violation is charged
// to every one of them. A repetition with `-nemeses` tells them apart.
package report
