//go:build linux

package campaign

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/jepsen/nemesis"
)

// What a machine cannot have is left out, and said.
func TestUnsupportedNemesesAreLeftOut(t *testing.T) {
	var said strings.Builder
	kinds := supported(Config{Progress: &said, Nemeses: []nemesis.Kind{
		{Name: "anywhere"},
		{Name: "nowhere", Supported: func() error { return errors.New("no such device") }},
		{Name: "here", Supported: func() error { return nil }},
	}})
	if got := nemesis.Kinds.Names(kinds); !slices.Equal(got, []string{"anywhere", "here"}) {
		t.Errorf("%v are left", got)
	}
	if !strings.Contains(said.String(), "nowhere is left out: no such device") {
		t.Errorf("it says %q", said.String())
	}
}
