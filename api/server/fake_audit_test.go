package server

import (
	"context"
	"io"
	"time"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// scriptedRecord is the one record of a fake's audit log.
var scriptedRecord = quorum.AuditRecord{
	Record: audit.Record{
		Sequence: 7, At: grantedAt, Actor: "quorum", Action: "grant", Target: "db", Detail: map[string]string{"token": token(7).Decimal()},
	},
	Stored: []byte(`{"sequence":"7"}`),
}

func (q *fakeQuorum) ListAudit(_ context.Context, query quorum.AuditQuery) (quorum.AuditPage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.guardCmds = append(q.guardCmds, query)
	return quorum.AuditPage{Records: []quorum.AuditRecord{scriptedRecord}, More: true, Pruned: 3, Head: 9}, nil
}

func (q *fakeQuorum) WhoCouldWrite(_ context.Context, _ lease.Resource, at time.Time) (quorum.AuditAnswer, error) {
	return quorum.AuditAnswer{
		Answer: audit.Answer{
			Writable: []audit.Writable{{Region: "eu", Token: token(7), From: at.Add(-time.Hour), Promotion: "db-1.2", ApprovedBy: []string{"ann", "bob"}}},
			Caveats:  []string{"one", "two"},
		},
		Records: []quorum.AuditRecord{scriptedRecord},
	}, nil
}

// exportedBytes is more than goes into one message.
const exportedBytes = 600_000

func (q *fakeQuorum) ExportAudit(_ context.Context, _, _ uint64, w io.Writer) error {
	_, err := w.Write(make([]byte, exportedBytes))
	return err
}

func (q *fakeQuorum) PruneAudit(_ context.Context, actor lease.Principal, before uint64, _ string) (uint64, error) {
	if err := q.decides(); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.guardCmds = append(q.guardCmds, actor)
	return before - 1, nil
}

func (q *fakeQuorum) AuditAlarms() []string { return []string{"n1"} }
