// Package crowd has clients of the lease API fight over a few resources, at nodes chosen at random, and notes every call for
// package history to judge.
//
// Clients renew, checkpoint and release what they hold and what they no longer hold, die without a word, and read from views
// and from the coordinator. What they try is drawn from a seed; how calls interleave is not.
package crowd
