package quorum

import (
	"fmt"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
)

// What auditors ask of a log with 100,000 records: grants and their ends, of a hundred resources.
func benchmarkLog(b *testing.B) *Image {
	b.Helper()
	var head audit.Head
	var entries []Entry
	for i := range 100_000 {
		action := "grant"
		if i%200 >= 100 {
			action = "end"
		}
		stored, next, err := audit.Append(head, audit.Record{
			At: time.Unix(1_800_000_000, 0).Add(time.Duration(i) * time.Millisecond), Actor: "spiffe://test/worker", Action: action,
			Target: fmt.Sprint("orders/", i%100), Detail: map[string]string{
				"token": fmt.Sprint(1<<48 + i/200 + 1), "holder": "spiffe://test/worker#1@eu", "region": "eu", "proofs": "g1=acked", "how": "released",
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		head = next
		entries = append(entries, Entry{Key: AuditKey(next.Sequence), Value: stored, Revision: 1})
	}
	id := &writv1.IdentityRecord{Cluster: "test", Incarnation: "i1", AuditSequence: head.Sequence, AuditHash: head.Hash}
	image := NewImage()
	image.Reset(append(entries, Entry{Key: KeyIdentity, Value: marshal(id), Revision: 1}), 1)
	return image
}

func BenchmarkAuditList(b *testing.B) {
	image := benchmarkLog(b)
	for name, q := range map[string]AuditQuery{
		"newest":          {Limit: 100, NewestFirst: true},
		"of one resource": {Target: "orders/7", Limit: 1000, NewestFirst: true},
		"of nobody":       {Actor: "spiffe://test/nobody", Limit: 100},
		"since":           {Since: time.Unix(1_800_000_000, 0).Add(99 * time.Second), Limit: 100},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := listAudit(b.Context(), image, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWhoCouldWrite(b *testing.B) {
	image := benchmarkLog(b)
	b.ReportAllocs()
	for b.Loop() {
		answer, err := whoCouldWrite(b.Context(), image, "orders/7", time.Unix(1_800_000_000, 0).Add(50_050*time.Millisecond))
		if err != nil || len(answer.Writable) != 1 {
			b.Fatal(answer, err)
		}
	}
}
