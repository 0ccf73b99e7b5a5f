// Package verdict says what a run is: valid, invalid, or unknown. These are never folded into two: what nobody could decide
// is neither passed nor failed.
//
// Of several verdicts the worst counts: invalid if any is, else unknown if any is, else valid. Of none, it is unknown: who
// has looked at nothing knows nothing.
package verdict
