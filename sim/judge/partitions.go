package judge

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/partition"
)

// consumers is what is known of a group of consumers.
type consumers struct {
	name    string
	names   partition.Names
	byName  map[string]int
	lineage int
	parts   []share
	members map[string]bool // that live, by instance

	// As it was last at rest, with what has happened since.
	rested bool
	since  time.Duration
	owners []string
	live   []string
	joined bool
	letGo  []bool // of each partition: its owner of then released it while it was a member
	moves  int    // how often this was judged
}

// share is a partition.
type share struct {
	owner  string // instance; empty: nobody
	token  fence.Token
	offset uint64 // of the last checkpoint
	done   uint64 // items up to here have had their effects
	under  fence.Token
}

// Consumers begins to keep the books of a group.
func (j *Judge) Consumers(name string, names partition.Names, partitions int) {
	g := &consumers{name: name, names: names, byName: make(map[string]int), parts: make([]share, partitions), members: make(map[string]bool)}
	for i := range g.parts {
		g.byName[names.Partition(i)] = i
	}
	j.groups = append(j.groups, g)
}

// consumed takes in the record of a resource, if it is that of a group; how is how the grant before ended, if it did.
func (j *Judge) consumed(name lease.Resource, rec *lease.Record, ended bool, how lease.End) {
	for _, g := range j.groups {
		rest, ok := strings.CutPrefix(string(name), g.names.Prefix())
		if !ok {
			continue
		}
		if g.lineage != j.lineage {
			g.begin(j.lineage)
		}
		if index, ok := g.byName[string(name)]; ok {
			p := &g.parts[index]
			if ended && g.rested && p.owner == g.owners[index] && how == lease.EndReleased && g.members[p.owner] && !j.lost[lease.Ref{Resource: name, Token: p.token}] {
				g.letGo[index] = true
				g.rested = j.now() > g.since+calm // what was decided before may take a while
			}
			p.owner = ""
			if rec.Held {
				p.owner, p.token = rec.Holder.Instance, rec.Token
			}
		} else if strings.HasPrefix(rest, "member/") {
			if rec.Held && !g.members[rec.Holder.Instance] {
				g.joined = true
			}
			if id := rec.Holder.Instance; rec.Held {
				g.members[id] = true
			} else {
				delete(g.members, id)
			}
		}
		j.rest(g)
	}
}

// begin starts the books of a lineage; what was done stays done.
func (g *consumers) begin(lineage int) {
	g.lineage, g.rested, g.members = lineage, false, make(map[string]bool)
	for i := range g.parts {
		g.parts[i] = share{done: g.parts[i].done, under: g.parts[i].under}
	}
}

// atRest tells whether every partition is owned by a member, balanced within one.
func (g *consumers) atRest() bool {
	counts := make(map[string]int)
	for _, p := range g.parts {
		if !g.members[p.owner] {
			return false
		}
		counts[p.owner]++
	}
	least, most := len(g.parts), 0
	for id := range g.members { // least and most: the order does not matter
		least, most = min(least, counts[id]), max(most, counts[id])
	}
	return most-least <= 1
}

// rest judges how a group came from one rest to the next: members that only went away take nothing with them but what they had.
func (j *Judge) rest(g *consumers) {
	if !g.atRest() {
		return
	}
	live := slices.Sorted(maps.Keys(g.members))
	if g.rested && !g.joined && len(live) < len(g.live) {
		g.moves++
		for i, p := range g.parts {
			if was := g.owners[i]; g.letGo[i] && p.owner != was && g.members[was] {
				j.violation("P1", "partition %d of %s went from %s to %s when others had gone", i, g.name, was, p.owner)
			}
		}
	}
	owners := make([]string, len(g.parts))
	for i, p := range g.parts {
		owners[i] = p.owner
	}
	if !g.rested || !slices.Equal(live, g.live) || !slices.Equal(owners, g.owners) {
		g.since = j.now()
	}
	g.rested, g.joined, g.live, g.owners, g.letGo = true, false, live, owners, make([]bool, len(g.parts))
}

// calm is how long a group is at rest until nothing is under way any more that somebody decided before, by what they saw then.
const calm = 20 * time.Second

// AtRest tells whether every partition of a group is owned by one of these members, which are all there are, and the load is
// balanced within one; otherwise how it is.
func (j *Judge) AtRest(name string, members []string) (ok bool, how string) {
	for _, g := range j.groups {
		if g.name != name {
			continue
		}
		live := slices.Sorted(maps.Keys(g.members))
		var owners []string
		for i, p := range g.parts {
			owners = append(owners, strconv.Itoa(i)+":"+p.owner)
		}
		return g.atRest() && slices.Equal(live, slices.Sorted(slices.Values(members))),
			"of " + strings.Join(members, ", ") + " there are " + strings.Join(live, ", ") + ", who have " + strings.Join(owners, " ")
	}
	return true, ""
}

// Thinned is how often a group was judged after members had gone.
func (j *Judge) Thinned() int {
	n := 0
	for _, g := range j.groups {
		n += g.moves
	}
	return n
}

// Owner returns who owns a partition, by instance.
func (j *Judge) Owner(name string, index int) string {
	for _, g := range j.groups {
		if g.name == name {
			return g.parts[index].owner
		}
	}
	return ""
}

// Item takes in that the storage has accepted the effect of an item of a partition: items come one after the other, again at most
// from the last checkpoint on, and under tokens that do not decrease.
func (j *Judge) Item(name string, index int, offset uint64, token fence.Token) {
	for _, g := range j.groups {
		if g.name != name {
			continue
		}
		p := &g.parts[index]
		if token < p.under {
			j.violation("P1", "item %d of partition %d of %s had its effect under %v after %v", offset, index, name, token, p.under)
		}
		if offset > p.done+1 {
			j.violation("P1", "item %d of partition %d of %s had its effect, and items from %d on are left out", offset, index, name, p.done+1)
		}
		p.under, p.done = token, max(p.done, offset)
	}
}

// Offset is what a checkpoint of a partition says: how far it is, and how it came about.
func Offset(data []byte) uint64 {
	n, _, _ := strings.Cut(string(data), " ")
	offset, err := strconv.ParseUint(n, 10, 64)
	if err != nil {
		return 0
	}
	return offset
}

// offset takes in that the checkpoint of a partition was committed.
func (j *Judge) offset(name lease.Resource, data []byte) {
	for _, g := range j.groups {
		index, ok := g.byName[string(name)]
		if !ok || g.lineage != j.lineage {
			continue
		}
		p, offset := &g.parts[index], Offset(data)
		if offset < p.offset {
			j.violation("P1", "the offset of partition %d of %s went back from %d to %d", index, g.name, p.offset, offset)
		}
		if offset > p.done {
			j.violation("P1", "the offset of partition %d of %s is %d, and items from %d on have had no effect", index, g.name, offset, p.done+1)
		}
		p.offset = offset
	}
}
