package choice

import (
	"slices"
	"strings"
	"testing"
)

var fruit = Set[string]{All: []string{"apple", "pear", "plum"}, Tell: func(s string) (string, string) { return s, "a " + s }}

func TestRead(t *testing.T) {
	for list, want := range map[string][]string{
		"all": fruit.All, "none": nil, "plum": {"plum"}, "plum,apple": {"plum", "apple"},
	} {
		if got, err := fruit.Read(list); err != nil || !slices.Equal(fruit.Names(got), want) {
			t.Errorf("%s: %v, %v", list, got, err)
		}
	}
	for _, list := range []string{"", "apple,", "peer", "all,apple", "apple, pear"} {
		if got, err := fruit.Read(list); err == nil || got != nil || !strings.Contains(err.Error(), "use some of apple, pear, plum") {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	var b strings.Builder
	if err := fruit.Describe(&b); err != nil || strings.Count(b.String(), "\n") != 3 || !strings.Contains(b.String(), "pear               a pear\n") {
		t.Errorf("%v, %q", err, &b)
	}
}
