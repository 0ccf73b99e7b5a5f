//writ:core

package maporder

import (
	"maps"
	"slices"
)

type table map[string]int

func impure[M ~map[string]int](t table, m M) (names []string) {
	for name := range t { // want `core: range over a map in random order: sort the keys, or say why not with //writ:unordered`
		names = append(names, name)
	}
	for name := range m { // want `core: range over a map`
		names = append(names, name)
	}
	for name := range maps.Keys(t) { // want `core: maps.Keys yields in random order: pass it straight to slices.Sorted`
		names = append(names, name)
	}
	_ = slices.Collect(maps.Values(t)) // want `core: maps.Values yields in random order`

	//writ:unordered // want `core: //writ:unordered needs a reason`
	for range t {
	}

	//writ:unordered too far above // want `core: //writ:unordered excuses nothing`

	for range t { // want `core: range over a map`
	}
	//writ:unordered not a map // want `core: //writ:unordered excuses nothing`
	for range names {
	}
	return names
}

func pure(t table, m map[string]int) (sum int) {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		sum += m[name]
	}
	//writ:unordered addition commutes
	for _, n := range t {
		sum += n
	}
	// A comment may surround the directive.
	//writ:unordered multiplication commutes
	// too.
	for n := range maps.Values(t) {
		sum *= n
	}
	//writ:unordered any entry will do
outer:
	for range t {
		break outer
	}
	return sum + len(m)
}
