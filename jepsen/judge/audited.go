//go:build linux

package judge

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// chain is what an audit log tells.
type chain struct {
	granted  map[fence.Token]string // the resource, by token
	newest   map[string]fence.Token // by resource
	open     map[string]fence.Token // what was granted and has not ended
	executed map[string]bool
	wrong    []string
}

// audited holds the quorum's audit log against itself and against what clients were told. False: the run has none. The log of
// a control may be as wrong as what it breaks.
func audited(h *record.History) (j verdict.Judgement, ok bool) {
	j = verdict.Judgement{Check: "audit", Verdict: verdict.Valid}
	f, err := os.Open(filepath.Join(h.Dir, record.AuditFile))
	if h.Run.Control || errors.Is(err, fs.ErrNotExist) { // a run that should have one has a problem then
		return j, false
	}
	if err != nil {
		j.Verdict, j.Reason = verdict.Unknown, err.Error()
		return j, true
	}
	defer func() { _ = f.Close() }()
	c := &chain{
		granted: make(map[fence.Token]string), newest: make(map[string]fence.Token), open: make(map[string]fence.Token), executed: make(map[string]bool),
	}
	report, err := audit.Verifier{Each: c.take}.Verify(f)
	if err != nil {
		j.Verdict, j.Reason = verdict.Invalid, "the audit log does not verify"
		j.Evidence = []string{err.Error()}
		return j, true
	}
	told, err := workload.ToldIn(h)
	if err != nil {
		j.Verdict, j.Reason = verdict.Unknown, "the record cannot be read: "+err.Error()
		return j, true
	}
	c.compare(told)
	j.Reason = fmt.Sprintf("%d records verify, with %d grants and %d operations that were executed, and all that clients were told", report.Records, len(c.granted), len(c.executed))
	if len(c.wrong) > 0 {
		j.Verdict, j.Reason, j.Evidence = verdict.Invalid, "the audit log tells of what must not be, or does not tell what was", c.wrong[:min(len(c.wrong), mostWrong)]
	}
	return j, true
}

// mostWrong is how many findings are shown.
const mostWrong = 20

func (c *chain) blame(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// take looks at a record: tokens of a resource increase, what was granted ends before the next is, and has every guard proved.
func (c *chain) take(r audit.Record) {
	switch r.Action {
	case audit.ActionGrant, audit.ActionTenureGrant:
		token := c.token(r)
		if open := c.open[r.Target]; open != 0 {
			c.blame("record %d: %s is granted under %v before %v has ended", r.Sequence, r.Target, token, open)
		}
		if token <= c.newest[r.Target] {
			c.blame("record %d: %s is granted under %v after %v", r.Sequence, r.Target, token, c.newest[r.Target])
		}
		c.newest[r.Target], c.open[r.Target], c.granted[token] = token, token, r.Target
		c.proved(r)
	case audit.ActionEnd, audit.ActionTenureEnd:
		if token := c.token(r); token == c.open[r.Target] {
			delete(c.open, r.Target)
		} else if c.open[r.Target] != 0 {
			c.blame("record %d: %v of %s ends, and %v was granted", r.Sequence, token, r.Target, c.open[r.Target])
		}
	case audit.ActionExecute:
		c.executed[r.Target] = true // the verifier sees to it that nothing is twice
	}
}

func (c *chain) token(r audit.Record) fence.Token {
	token, err := fence.ParseToken(r.Detail["token"])
	if err != nil {
		c.blame("record %d: %s of %s: %v", r.Sequence, r.Action, r.Target, err)
	}
	return token
}

// proved wants to know how each guard was.
func (c *chain) proved(r audit.Record) {
	all := strings.Fields(r.Detail["proofs"])
	if len(all) == 0 {
		c.blame("record %d: %s is granted, and no guard was proved", r.Sequence, r.Target)
	}
	named := make(map[string]bool)
	for _, proof := range all {
		guard, how, _ := strings.Cut(proof, "=")
		if !slices.Contains(workload.Proofs, how) {
			c.blame("record %d: %s is granted with the proof %q", r.Sequence, r.Target, proof)
		}
		named[guard] = true
	}
	for i := range lab.GuardCount {
		if guard := lab.Guard(i); !named[guard] {
			c.blame("record %d: %s is granted without a proof of %s", r.Sequence, r.Target, guard)
		}
	}
}

// compare looks for what clients know and the log does not.
func (c *chain) compare(told *workload.Told) {
	for _, token := range slices.Sorted(maps.Keys(told.Grants)) {
		if resource := told.Grants[token]; c.granted[token] != resource {
			c.blame("a guard let a write to %s through under %v, of which the log has no grant", resource, token)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(told.Executed)) {
		if !c.executed[id] {
			c.blame("somebody was told that %s was executed, and the log does not say so", id)
		}
	}
}
