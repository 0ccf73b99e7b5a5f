package judge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What guards do is held to what was granted and admitted before, and to their disks.
func TestGuards(t *testing.T) {
	const r = lease.Resource("r")
	tok := func(n int64) fence.Token { return fence.Token(1<<48 | n) }
	of := func(guard string, token, durable fence.Token) Admission {
		return Admission{Guard: guard, Process: guard, Store: "store of " + guard, Resource: r, Token: token, Durable: durable, Seeded: true}
	}
	admits := func(guard string, n int64) func(*Judge) {
		return func(j *Judge) { j.Admits(of(guard, tok(n), tok(n))) }
	}
	but := func(change func(*Admission)) func(*Judge) {
		a := of("g1", tok(6), tok(6))
		change(&a)
		return func(j *Judge) { j.Admits(a) }
	}
	reaches := func(n int64, loose bool) func(*Judge) {
		return func(j *Judge) { j.Reaches(of("g1", tok(n), tok(n)), loose) }
	}
	granted := func(n int64, proofs ...lease.Proof) func(*Judge) {
		return func(j *Judge) { j.granted(j.resource(r), tok(n), requestOf(r, "", fmt.Sprint(n)), proofs) }
	}
	ruled := func(j *Judge) {
		j.rules = &writv1.GuardingRecord{Rules: []*writv1.GuardingRule{{Prefix: "r"}}}
		j.was = j.rules
	}
	bare := func(j *Judge) { j.rules = nil }
	loosen := func(j *Judge) { j.Loosen("g1", r) }
	tighten := func(base int64) func(*Judge) { return func(j *Judge) { j.Tighten("g1", tok(base)) } }
	unproven := lease.Proof{Guard: "g1", How: lease.Unproven}
	for name, test := range map[string]struct {
		does []func(*Judge)
		want string
	}{
		"in order":                 {[]func(*Judge){ruled, granted(5), admits("g1", 5), admits("g1", 5), granted(6), admits("g1", 6)}, ""},
		"below its own":            {[]func(*Judge){admits("g1", 7), admits("g1", 6)}, "S2"},
		"below its own, put back":  {[]func(*Judge){admits("g1", 7), func(j *Judge) { j.PutBack("store of g1") }, admits("g1", 6)}, ""},
		"below what was made up":   {[]func(*Judge){ruled, granted(5), admits("g1", 7), admits("g2", 5)}, ""},
		"below a grant":            {[]func(*Judge){ruled, granted(5), admits("g1", 4)}, "S2"},
		"below one without a rule": {[]func(*Judge){granted(5), admits("g1", 4)}, ""},
		"below one before that":    {[]func(*Judge){ruled, granted(5), bare, granted(9), admits("g1", 5), admits("g2", 4)}, "S2"},
		"in the commit of a rule":  {[]func(*Judge){ruled, bare, granted(5), admits("g1", 4)}, ""},
		"unproven":                 {[]func(*Judge){ruled, granted(5), granted(6, unproven), admits("g1", 5)}, ""},
		"unproven, below that":     {[]func(*Judge){ruled, granted(5), granted(6, unproven), granted(7, unproven), admits("g1", 4)}, "S2"},
		"another is unproven":      {[]func(*Judge){ruled, granted(5), granted(6, unproven), admits("g2", 5)}, "S2"},
		"unproven and told":        {[]func(*Judge){ruled, granted(5), granted(6, unproven), tighten(7), admits("g1", 5)}, "S2"},
		"told, and then unproven":  {[]func(*Judge){ruled, granted(5), granted(6, unproven), tighten(6), admits("g1", 5)}, ""},
		"loose":                    {[]func(*Judge){ruled, granted(5), loosen, granted(6), admits("g1", 5)}, ""},
		"loose, below that":        {[]func(*Judge){ruled, granted(5), loosen, granted(6), admits("g1", 4)}, "S2"},
		"loose and told":           {[]func(*Judge){ruled, granted(5), loosen, granted(6), tighten(9), admits("g1", 5)}, "S2"},
		"not on disk":              {[]func(*Judge){but(func(a *Admission) { a.Durable = tok(5) })}, "D2"},
		"not seeded":               {[]func(*Judge){but(func(a *Admission) { a.Seeded = false })}, "D2"},
		"before older":             {[]func(*Judge){but(func(a *Admission) { a.Older = tok(5) })}, "S2"},
		"acknowledges":             {[]func(*Judge){func(j *Judge) { j.Acknowledges("g1", r, tok(6), tok(6), 0) }}, ""},
		"acks without a disk":      {[]func(*Judge){func(j *Judge) { j.Acknowledges("g1", r, tok(6), tok(5), 0) }}, "D2"},
		"acks before older":        {[]func(*Judge){func(j *Judge) { j.Acknowledges("g1", r, tok(6), tok(6), tok(4)) }}, "S2"},
		"reaches":                  {[]func(*Judge){ruled, granted(5), reaches(5, false)}, ""},
		"reaches after grant":      {[]func(*Judge){ruled, granted(5), reaches(4, false)}, "S2"},
		"reaches through a loose":  {[]func(*Judge){ruled, granted(5), reaches(4, true)}, "undone"},
		"reaches without a rule":   {[]func(*Judge){granted(5), reaches(4, false)}, "undone"},
		"reaches, loose by now":    {[]func(*Judge){ruled, granted(5), loosen, granted(6), reaches(4, false)}, "undone"},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			j := New(func() time.Duration { return 0 }, func(invariant, _ string) { found = append(found, invariant) })
			for _, do := range test.does {
				do(j)
			}
			if j.Undone(r) {
				found = append(found, "undone")
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
