// Package judge holds a simulated run to Writ's invariants, by exact bookkeeping in simulated real time.
//
// It sees what nobody in the run can see: every commit at the instant at which the first member applies it, every belief by
// the clock of whoever believes, converted to real time, and every answer as it leaves the node that decided it. It takes no
// part in the run, and the run goes on whatever it finds.
//
// What it checks, and under which name it reports:
//
//	S1  tokens of a resource increase in commit order, over all lineages; a grant that was acknowledged before another was
//	    asked for has the smaller token; a token is not used again after its grant has ended
//	S3  no update of a fenced read-modify-write that was acknowledged is lost
//	S4  nobody believes in a lease while somebody else does, nor after its end was committed
//	S5  a grant ends as released only if its holder asked for just that
//	S7  work goes on after the local deadline only where the process stood still; no lease is released before its function
//	    has returned, and one that does not return ends its process
//	S9  one request is granted once; an answer that shows the state is not older than its intake; what is refused as
//	    "nothing was changed" changed nothing; sampled histories are linearizable (package jepsen/history)
//	S10 a watcher is told every committed change of its prefix once, in order
//	D1  what was acknowledged was committed before, and a new coordinator finds it; members agree on the history
//	J1  slots are claimed before they run, have their effect once and in order, and are accounted for
//	P1  items of partitions come in order, offsets do not go back, and who stays keeps what they have
//	M1  the audit chain has no gap and no broken link
//
// L1 is judged by the run, which knows when everything was healed.
package judge
