//writ:core

package gate

import (
	"slices"
	"strings"
)

// resources are those that the gate knows something of.
type resources struct {
	byName map[string]*resource
	names  names
}

func newResources(expected int) resources {
	return resources{byName: make(map[string]*resource, expected)}
}

func (rs *resources) add(r *resource) {
	rs.byName[r.name] = r
	rs.names.insert(r)
}

func (rs *resources) drop(r *resource) {
	delete(rs.byName, r.name)
	rs.names.remove(r)
}

// maxChunk bounds the pieces of names: to take one in moves at most so many.
const maxChunk = 512

// names keeps resources in order of their names, so that a page of them costs what the page holds and not what there is. It is
// made of sorted pieces, none of which is empty.
type names struct{ chunks [][]*resource }

func byName(r *resource, name string) int { return strings.Compare(r.name, name) }

// chunkFor is where the piece is in which a name belongs: the first whose last name is not before it. It is len(n.chunks) if
// the name is behind all.
func (n *names) chunkFor(name string) int {
	at, _ := slices.BinarySearchFunc(n.chunks, name, func(chunk []*resource, name string) int {
		return byName(chunk[len(chunk)-1], name)
	})
	return at
}

// insert takes in a resource whose name is not there yet.
func (n *names) insert(r *resource) {
	if len(n.chunks) == 0 {
		n.chunks = append(n.chunks, []*resource{r})
		return
	}
	c := min(n.chunkFor(r.name), len(n.chunks)-1)
	chunk := n.chunks[c]
	at, _ := slices.BinarySearchFunc(chunk, r.name, byName)
	chunk = slices.Insert(chunk, at, r)
	if len(chunk) <= maxChunk {
		n.chunks[c] = chunk
		return
	}
	half := len(chunk) / 2
	n.chunks[c] = chunk[:half:half]
	n.chunks = slices.Insert(n.chunks, c+1, slices.Clone(chunk[half:]))
}

// remove lets go of a resource, if it is there.
func (n *names) remove(r *resource) {
	c := n.chunkFor(r.name)
	if c == len(n.chunks) {
		return
	}
	at, found := slices.BinarySearchFunc(n.chunks[c], r.name, byName)
	if !found {
		return
	}
	if n.chunks[c] = slices.Delete(n.chunks[c], at, at+1); len(n.chunks[c]) == 0 {
		n.chunks = slices.Delete(n.chunks, c, c+1)
	}
}

// from visits the resources from a name on, that of the name included, in order, until visit answers false. visit must not
// take any in, or let any go.
func (n *names) from(name string, visit func(*resource) bool) {
	for c := n.chunkFor(name); c < len(n.chunks); c++ {
		at, _ := slices.BinarySearchFunc(n.chunks[c], name, byName)
		for _, r := range n.chunks[c][at:] {
			if !visit(r) {
				return
			}
		}
	}
}
