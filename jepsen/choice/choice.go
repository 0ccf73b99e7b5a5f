package choice

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Set is what there is to choose from.
type Set[T any] struct {
	All []T
	// Tell returns the name of one, and a sentence on it for people.
	Tell func(T) (name, doc string)
}

// Named returns those with these names, in that order. Errors: a name that is none, with those that are.
func (s Set[T]) Named(names ...string) ([]T, error) {
	all := s.Names(s.All)
	var found []T
	for _, name := range names {
		i := slices.Index(all, name)
		if i < 0 {
			return nil, fmt.Errorf("there is no %q: use some of %s", name, strings.Join(all, ", "))
		}
		found = append(found, s.All[i])
	}
	return found, nil
}

// Read reads a list of names that are separated by commas. The name all stands for all, and none for nobody. Errors: those of
// [Set.Named].
func (s Set[T]) Read(list string) ([]T, error) {
	switch list {
	case "all":
		return s.All, nil
	case "none":
		return nil, nil
	default:
		return s.Named(strings.Split(list, ",")...)
	}
}

// Names returns the names of some.
func (s Set[T]) Names(some []T) (names []string) {
	for _, one := range some {
		name, _ := s.Tell(one)
		names = append(names, name)
	}
	return names
}

// Describe writes a line on each.
func (s Set[T]) Describe(w io.Writer) error {
	for _, one := range s.All {
		name, doc := s.Tell(one)
		if _, err := fmt.Fprintf(w, "  %-18s %s\n", name, doc); err != nil {
			return err
		}
	}
	return nil
}
