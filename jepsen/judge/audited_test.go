//go:build linux

package judge_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

func nth(n int) fence.Token { return 1<<48 + fence.Token(n) }

// granted and ended are records of a log.
func granted(resource string, n int, proofs string) audit.Record {
	return audit.Record{Action: audit.ActionGrant, Target: resource, Detail: map[string]string{"token": nth(n).Decimal(), "proofs": proofs}}
}

func ended(resource string, n int) audit.Record {
	return audit.Record{Action: audit.ActionEnd, Target: resource, Detail: map[string]string{"token": nth(n).Decimal(), "how": "released"}}
}

// bundle exports a log of these records.
func bundle(t *testing.T, records []audit.Record) []byte {
	t.Helper()
	var head audit.Head
	var chain [][]byte
	for i, r := range records {
		r.At = time.Unix(int64(i), 0)
		stored, next, err := audit.Append(head, r)
		if err != nil {
			t.Fatal(err)
		}
		head, chain = next, append(chain, stored)
	}
	var b bytes.Buffer
	if err := audit.Export(&b, audit.Source{
		Cluster: "jepsen", Incarnation: "i1", Exported: time.Unix(99, 0), Records: slices.Values(chain), Keys: []byte(`{"keys":[]}`),
	}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// auditedRun writes a record in which a write was let through under each of some tokens, with a log.
func auditedRun(t *testing.T, tokens []int, log []byte) *judge.Report {
	t.Helper()
	dir := t.TempDir()
	w, err := record.Create(dir, record.Run{Name: "run", Workloads: []string{"appends", "promotion"}, Problems: []record.Problem{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range tokens {
		value := map[string]any{"element": "e" + strconv.Itoa(n), "token": nth(n), "front": 0}
		w.Call("appends", "writer1.1", "append", value)(record.OK, map[string]any{"front": 0})
	}
	if len(tokens) == 0 {
		w.Call("promotion-calls", "operator", "execute-operation", map[string]any{"id": "pair-1.1"})(record.OK, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, record.AuditFile), log, 0o600); err != nil {
		t.Fatal(err)
	}
	report, err := judge.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestAudit(t *testing.T) {
	const all = "guard1=acked guard2=lapsed guard3=cut"
	sound := []audit.Record{granted("orders-db", 1, all), ended("orders-db", 1), granted("pair", 2, all), granted("orders-db", 3, all), ended("orders-db", 3)}
	for name, row := range map[string]struct {
		log      []audit.Record
		tokens   []int
		change   func([]byte) []byte
		evidence string
	}{
		"sound":                     {log: sound, tokens: []int{1, 3}},
		"a grant that is missing":   {log: sound[:3], tokens: []int{1, 3}, evidence: "of which the log has no grant"},
		"of another resource":       {log: sound, tokens: []int{1, 2}, evidence: "of which the log has no grant"},
		"two at a time":             {log: slices.Delete(slices.Clone(sound), 1, 2), tokens: []int{1}, evidence: "before 1.1 has ended"},
		"a token that goes back":    {log: append(slices.Clone(sound), granted("orders-db", 2, all)), tokens: []int{1}, evidence: "after 1.3"},
		"another ends":              {log: []audit.Record{granted("orders-db", 1, all), ended("orders-db", 2)}, tokens: []int{1}, evidence: "was granted"},
		"no proof":                  {log: append(slices.Clone(sound), granted("orders-db", 4, "")), tokens: []int{1}, evidence: "no guard was proved"},
		"no good proof":             {log: append(slices.Clone(sound), granted("orders-db", 4, "guard1=unproven")), tokens: []int{1}, evidence: "guard1=unproven"},
		"a guard is not named":      {log: append(slices.Clone(sound), granted("orders-db", 4, "guard1=acked guard3=acked")), tokens: []int{1}, evidence: "without a proof of guard2"},
		"an operation is missing":   {log: sound, evidence: "somebody was told that pair-1.1 was executed"},
		"a bundle that was touched": {log: sound, tokens: []int{1}, change: func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, evidence: "audit"},
	} {
		t.Run(name, func(t *testing.T) {
			log := bundle(t, row.log)
			if row.change != nil {
				log = row.change(log)
			}
			report := auditedRun(t, row.tokens, log)
			want := verdict.Invalid
			if row.evidence == "" {
				want = verdict.Valid
			}
			at := slices.IndexFunc(report.Judgements, func(j verdict.Judgement) bool { return j.Check == "audit" })
			if at < 0 {
				t.Fatalf("the log was not judged: %+v", report.Judgements)
			}
			if j := report.Judgements[at]; j.Verdict != want || !strings.Contains(strings.Join(j.Evidence, "\n"), row.evidence) {
				t.Errorf("%+v, want %v with %q", j, want, row.evidence)
			}
		})
	}
}
