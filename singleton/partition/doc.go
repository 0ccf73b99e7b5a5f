// Package partition decides which member of a group holds which of its partitions. It is the core below
// singleton.Consume; a program uses that.
//
// A group is a set of leases: one for each live member, one for each partition that somebody works on, and one whose
// checkpoint says how many partitions there are ([Names]). Every member watches them and computes the same target from what it sees
// ([Assign]); each then does its own part of the way there ([Machine]): it gives up what the target gives to others, and
// takes what is free and given to it. There is no leader, and nothing is agreed on but the leases themselves.
//
// # What it promises
//
//   - The target depends on what is seen and on nothing else: members that have seen the same compute the same.
//   - It is balanced within one, and differs from the present distribution as little as that permits. Of the partitions
//     that have to move, as many as possible go to a member in their home region.
//   - Progress towards a target leaves it as it is: while a partition is given up, and until it has been taken, nobody changes
//     their mind about the others. So members that see a move early and members that see it late do not disagree.
//   - A member asks only for what nobody holds, so that a member which sees little or late takes nothing from anybody.
//
// # What it does not promise
//
// A view lags, and until it has caught up a member may keep what is not its to keep, or ask for what another takes: the
// leases decide. A partition that is free waits for the member to which the target gives it, for as long as that member's
// own lease is renewed.
//
// # Clocks and failure
//
// The machine is told the time with each step and uses it for its own delays only. It fails by what its leases do: what is
// lost is ended, and asked for again if the target still says so.
package partition
