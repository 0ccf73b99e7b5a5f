// Package externaltest is what the tests of the forms have in common: an admitter in memory with the rules of a guard's gate
// for one token at a time, and a quorum's signer.
//
// It promises what package fence says of an Admitter, except that floors do not survive it and that a newer token cuts
// older writes at once and does not wait for them. It asks no clock.
package externaltest
