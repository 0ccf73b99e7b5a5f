package judge

import (
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What guards do is held to what was granted and admitted before, and to their disks.
func TestGuards(t *testing.T) {
	const r = lease.Resource("r")
	tok := func(n int64) fence.Token { return fence.Token(1<<48 | n) }
	admits := func(token, durable fence.Token) func(*Judge) {
		return func(j *Judge) { j.Admits("g1", r, token, durable, true, 0) }
	}
	granted := func(j *Judge) { j.resource(r).highest = tok(5) }
	for name, test := range map[string]struct {
		does []func(*Judge)
		want string
	}{
		"in order":              {[]func(*Judge){granted, admits(tok(5), tok(5)), admits(tok(5), tok(5)), admits(tok(6), tok(6))}, ""},
		"below an admission":    {[]func(*Judge){admits(tok(7), tok(7)), func(j *Judge) { j.Admits("g2", r, tok(6), tok(6), true, 0) }}, "S2"},
		"below a grant":         {[]func(*Judge){granted, admits(tok(4), tok(4))}, "S2"},
		"not on disk":           {[]func(*Judge){admits(tok(6), tok(5))}, "D2"},
		"not seeded":            {[]func(*Judge){func(j *Judge) { j.Admits("g1", r, tok(6), tok(6), false, 0) }}, "D2"},
		"before older":          {[]func(*Judge){func(j *Judge) { j.Admits("g1", r, tok(6), tok(6), true, tok(5)) }}, "S2"},
		"acknowledges":          {[]func(*Judge){func(j *Judge) { j.Acknowledges("g1", r, tok(6), tok(6), 0) }}, ""},
		"acks without a disk":   {[]func(*Judge){func(j *Judge) { j.Acknowledges("g1", r, tok(6), tok(5), 0) }}, "D2"},
		"acks before older":     {[]func(*Judge){func(j *Judge) { j.Acknowledges("g1", r, tok(6), tok(6), tok(4)) }}, "S2"},
		"reaches":               {[]func(*Judge){granted, func(j *Judge) { j.Reaches("g1", r, tok(5)) }}, ""},
		"reaches after grant":   {[]func(*Judge){granted, func(j *Judge) { j.Reaches("g1", r, tok(4)) }}, "S2"},
		"reaches after a newer": {[]func(*Judge){admits(tok(9), tok(9)), func(j *Judge) { j.Reaches("g2", r, tok(8)) }}, "S2"},
		"excused": {[]func(*Judge){granted, func(j *Judge) { j.Excuse(r) }, admits(tok(4), tok(4)),
			func(j *Judge) { j.Reaches("g1", r, tok(4)) }, func(j *Judge) { j.LostUpdate(r, "x") }}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			j := New(nil, func(invariant, _ string) { found = append(found, invariant) })
			for _, do := range test.does {
				do(j)
			}
			if got := strings.Join(found, " "); got != test.want {
				t.Errorf("broken: %q, want %q", got, test.want)
			}
		})
	}
}

func TestProved(t *testing.T) {
	g := Grant{Proofs: []lease.Proof{{Guard: "g1", How: lease.ProofLapsed}}}
	if !g.Proved(lease.ProofLapsed) || g.Proved(lease.ProofCut) {
		t.Error("it rests on another proof")
	}
}
