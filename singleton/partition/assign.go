//writ:core

package partition

import (
	"slices"

	"github.com/writ-io/writ/sim/mutant"
)

// Member is a live member of a group.
type Member struct {
	// ID is its lease.Config.Instance.
	ID string
	// Region is where it runs; empty if it did not say.
	Region string
}

// Unassigned stands for the member of a partition when a group has none.
const Unassigned = -1

// Assign returns for each partition the index of the member which should hold it, or [Unassigned] if there are no members.
//
// Members are in the order of their IDs, each once. Holders names who holds each partition at present, by ID; empty, or the
// ID of nobody in members, counts as nobody. Homes names the region that each partition prefers, empty for none; nil if none
// does.
//
// The result is balanced within one. Among balanced ones it moves the fewest partitions away from their holders; where there is a
// choice of what a member gives up, that is what prefers another region; and of what has no holder or is given up, as much as
// possible goes to a member in its home region.
//
// Invariant: if a partition that Assign takes away from its holder becomes free, or a partition is taken by the member that
// Assign gives it to, the result stays the same.
func Assign(members []Member, holders, homes []string) []int {
	target := make([]int, len(holders))
	for p := range target {
		target[p] = Unassigned
	}
	if len(members) == 0 {
		return target
	}
	a := assignment{members: members, homes: homes, target: target, index: make(map[string]int, len(members))}
	for i, m := range members {
		a.index[m.ID] = i
	}
	a.countRegions()
	a.keep(holders)
	a.giveOut()
	return target
}

// assignment is the work of one call of Assign.
type assignment struct {
	members []Member
	homes   []string
	target  []int
	index   map[string]int // of a member, by ID
	// room is how many more partitions a member is to get.
	room []int
	// demand is how many partitions prefer a region, and staff how many members are in it.
	demand, staff map[string]int
}

func (a *assignment) home(p int) string {
	if a.homes == nil {
		return ""
	}
	return a.homes[p]
}

func (a *assignment) countRegions() {
	a.demand, a.staff = make(map[string]int), make(map[string]int)
	for _, m := range a.members {
		a.staff[m.Region]++
	}
	for _, home := range a.homes {
		a.demand[home]++
	}
}

// keep leaves with each member what it holds, up to its quota, and counts the room that is left.
func (a *assignment) keep(holders []string) {
	held := make([][]int, len(a.members))
	for p, holder := range holders {
		if i, ok := a.index[holder]; ok && holder != "" && !mutant.On(mutant.HoldersForgotten) {
			held[i] = append(held[i], p)
		}
	}
	a.room = a.quotas(held)
	for i, partitions := range held {
		if len(partitions) > a.room[i] {
			slices.SortStableFunc(partitions, func(p, q int) int { return a.unfit(i, p) - a.unfit(i, q) })
			partitions = partitions[:a.room[i]]
		}
		for _, p := range partitions {
			a.target[p] = i
		}
		a.room[i] -= len(partitions)
	}
}

// quotas returns how many partitions each member is to hold. All get the same number, and what does not divide goes, one
// each, to those who hold more than that number already, and then to those whose region is preferred most.
//
// Who is first among them must not depend on how much each holds: that changes on the way to the target.
func (a *assignment) quotas(held [][]int) []int {
	base, extra := len(a.target)/len(a.members), len(a.target)%len(a.members)
	quota := make([]int, len(a.members))
	order := make([]int, len(a.members))
	for i := range order {
		order[i], quota[i] = i, base
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if over, other := len(held[i]) > base, len(held[j]) > base; over != other {
			if over {
				return -1
			}
			return 1
		}
		r, s := a.members[i].Region, a.members[j].Region
		return a.preferred(s)*a.staff[r] - a.preferred(r)*a.staff[s]
	})
	for _, i := range order[:extra] {
		quota[i]++
	}
	return quota
}

// preferred is how many partitions have that home; a member that names no region is in nobody's.
func (a *assignment) preferred(region string) int {
	if region == "" {
		return 0
	}
	return a.demand[region]
}

// unfit says how gladly a member gives a partition up: most gladly one that has a home elsewhere, where somebody is.
func (a *assignment) unfit(member, p int) int {
	switch home := a.home(p); {
	case home == "":
		return 1
	case home == a.members[member].Region:
		return 0
	case a.staff[home] == 0:
		return 1
	}
	return 2
}

// giveOut assigns what nobody keeps: first to members at home, then to whoever has room.
//
// Both passes go by partition and take the first member with room, so that a partition which has been taken, with the room
// it took, leaves the choice for the others as it was.
func (a *assignment) giveOut() {
	byRegion := make(map[string][]int)
	all := make([]int, 0, len(a.members))
	for i, m := range a.members {
		all = append(all, i)
		byRegion[m.Region] = append(byRegion[m.Region], i)
	}
	for p, to := range a.target {
		if home := a.home(p); to == Unassigned && home != "" {
			byRegion[home] = a.give(p, byRegion[home])
		}
	}
	for p, to := range a.target {
		if to == Unassigned {
			all = a.give(p, all)
		}
	}
}

// give assigns a partition to the first of those who have room, and returns who may still have some.
func (a *assignment) give(p int, to []int) []int {
	for len(to) > 0 && a.room[to[0]] == 0 {
		to = to[1:]
	}
	if len(to) > 0 {
		a.target[p] = to[0]
		a.room[to[0]]--
	}
	return to
}
