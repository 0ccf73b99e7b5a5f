// Package region moves the primary of a failover group from one region to another so that at no time two regions can get a
// write admitted (invariant S6), and only with the signatures that the group's rule asks for (S8).
//
// A [Machine] is the pure core. It holds groups, operations and promotions, judges signatures, hears agents, and acts upon
// tokens through [Tenures], which the table of leases implements: ending a tenure takes the token of the next one and raises
// every guard, and the next tenure is granted when each guard has been proved to refuse what is older. Each step of a
// promotion is one commit, with its audit record; whoever coordinates next goes on with the same step.
//
// What an observer cannot see is unknown, never dead. Nothing here reads a clock: durations are counted by the coordinator
// from its intake of a report, and wall time is for people, and for the expiry of what people have signed.
package region
