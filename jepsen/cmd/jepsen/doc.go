// Command jepsen runs Writ's programs under faults and judges what came of it. See docs/JEPSEN.md.
//
//	jepsen run -time 5m -out DIR    run, judge and report
//	jepsen check DIR                judge a record again
//
// It exits with 0 if the run is valid and every positive control was found invalid, 1 if it is invalid, 2 if it was called
// wrongly, and 3 if it is unknown or could not be carried out.
package main
