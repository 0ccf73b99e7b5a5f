//go:build linux

package workload

import (
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/verdict"
)

func TestBelief(t *testing.T) {
	hold := func(resource string, sequence uint64, from, until time.Duration) Belief {
		token, err := fence.NewToken(1, sequence)
		if err != nil {
			t.Fatal(err)
		}
		return Belief{Resource: resource, Token: token, From: from * time.Second, Until: until * time.Second}
	}
	for name, row := range map[string]struct {
		said     []any
		want     verdict.Verdict
		evidence string
	}{
		"one after the other":   {[]any{hold("r", 1, 1, 2), hold("r", 2, 3, 4), hold("r", 5, 4, 6)}, verdict.Invalid, "under 1.5 from 4s on, and b under 1.2 until 4s"},
		"sound":                 {[]any{hold("r", 1, 1, 2), hold("r", 2, 3, 4), hold("r", 5, 5, 6)}, verdict.Valid, ""},
		"told in another order": {[]any{hold("r", 5, 5, 6), hold("r", 1, 1, 2), hold("r", 2, 3, 4)}, verdict.Valid, ""},
		"of other resources":    {[]any{hold("r", 1, 1, 9), hold("s", 1, 2, 8)}, verdict.Valid, ""},
		"at once":               {[]any{hold("r", 1, 1, 3), hold("r", 2, 2, 4)}, verdict.Invalid, "b believed to hold it under 1.2 from 2s on, and b under 1.1 until 3s"},
		"within a longer one":   {[]any{hold("r", 1, 1, 9), hold("r", 2, 2, 3), hold("r", 3, 4, 5)}, verdict.Invalid, "under 1.3 from 4s on, and b under 1.1 until 9s"},
		"tokens go back":        {[]any{hold("r", 7, 1, 2), hold("r", 6, 3, 4)}, verdict.Invalid, "under 1.6 at 3s, after b under 1.7 at 1s"},
		"one token twice":       {[]any{hold("r", 7, 1, 2), hold("r", 7, 3, 4)}, verdict.Invalid, "under 1.7 at 3s"},
		"back to the oldest":    {[]any{hold("r", 7, 1, 2), hold("r", 20, 3, 4), hold("r", 8, 5, 6), hold("r", 15, 7, 8)}, verdict.Invalid, "under 1.15 at 7s, after b under 1.20 at 3s"},
		"no end":                {[]any{hold("r", 1, 5, 5)}, verdict.Unknown, `"until"`},
		"no token":              {[]any{Belief{Resource: "r", From: 5, Until: 6}}, verdict.Unknown, `"token"`},
		"something else":        {[]any{[]int{1}}, verdict.Unknown, "what b believed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTape(t)
			for _, s := range row.said {
				p.w.Event("belief", "b", opBelieved, s)
			}
			expect(t, checkBelief(p.read(true)), row.want, row.evidence)
		})
	}
}
