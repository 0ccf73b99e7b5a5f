//go:build linux

package campaign

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/jepsen/nemesis"
)

// What a machine cannot have is left out, and said.
func TestUnsupportedNemesesAreLeftOut(t *testing.T) {
	var said strings.Builder
	leftOut := make(map[string]string)
	kinds := supported(Config{Progress: &said, Nemeses: []nemesis.Kind{
		{Name: "anywhere"},
		{Name: "nowhere", Supported: func() error { return errors.New("no such device") }},
		{Name: "here", Supported: func() error { return nil }},
	}}, leftOut)
	if got := nemesis.Kinds.Names(kinds); !slices.Equal(got, []string{"anywhere", "here"}) {
		t.Errorf("%v are left", got)
	}
	if !strings.Contains(said.String(), "nowhere is left out: no such device") {
		t.Errorf("it says %q", said.String())
	}
	if !maps.Equal(leftOut, map[string]string{"nowhere": "no such device"}) {
		t.Errorf("noted is %v", leftOut)
	}
}
