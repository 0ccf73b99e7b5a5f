package server

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

func TestAuditorsAskAnyNode(t *testing.T) {
	ca := newAuthority(t)
	a, b := newFake("a"), newFake("b")
	na := start(t, ca, a, nil)
	nb := start(t, ca, b, nil)
	for _, q := range []*fakeQuorum{a, b} {
		q.setNodes(na.info, nb.info)
		q.setCoordinator(na.info)
	}
	c := writv1.NewAuditServiceClient(nb.dial("spiffe://test/auditor").conn)
	since := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	list, err := c.ListAudit(testContext(t), &writv1.ListAuditRequest{
		Target: "db*", Action: "grant", Actor: "quorum", Since: timestamppb.New(since), After: 5, NewestFirst: true,
	})
	if err != nil || len(list.GetRecords()) != 1 || !list.GetMore() || list.GetPruned() != 3 || list.GetHead() != 9 {
		t.Fatalf("listed %v, %v", list, err)
	}
	if r := list.GetRecords()[0]; r.GetSequence() != 7 || r.GetAction() != "grant" || !r.GetAt().AsTime().Equal(grantedAt) || string(r.GetStored()) != `{"sequence":"7"}` {
		t.Errorf("the record is %v", r)
	}
	want := quorum.AuditQuery{Target: "db*", Action: "grant", Actor: "quorum", Since: since, After: 5, Limit: defaultPageSize, NewestFirst: true}
	if got := b.guardCmds[0]; got != want {
		t.Errorf("asked %+v, want %+v", got, want)
	}
	who, err := c.WhoCouldWrite(testContext(t), &writv1.WhoCouldWriteRequest{Resource: "db", At: timestamppb.New(since)})
	if err != nil || len(who.GetWritable()) != 1 || who.GetCaveat() != "one; two" || len(who.GetRecords()) != 1 {
		t.Fatalf("who: %v, %v", who, err)
	}
	if w := who.GetWritable()[0]; w.GetRegion() != "eu" || w.GetToken() != uint64(token(7)) || w.GetUntil() != nil || strings.Join(w.GetApprovedBy(), " ") != "ann bob" {
		t.Errorf("writable: %v", w)
	}
	stream, err := c.ExportAudit(testContext(t), &writv1.ExportAuditRequest{})
	if err != nil {
		t.Fatal(err)
	}
	size, chunk := 0, (*writv1.ExportAuditResponse)(nil)
	for err == nil {
		if chunk, err = stream.Recv(); err == nil {
			size += len(chunk.GetData())
		}
	}
	if !errors.Is(err, io.EOF) || size != exportedBytes {
		t.Errorf("exported %d bytes, %v", size, err)
	}
	pruned, err := c.PruneAudit(testContext(t), &writv1.PruneAuditRequest{Before: 9, Reason: "a year is over"})
	if err != nil || pruned.GetPruned() != 8 {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	if len(a.guardCmds) != 1 || a.guardCmds[0] != lease.Principal("spiffe://test/auditor") {
		t.Errorf("the coordinator was asked to prune by %v", a.guardCmds)
	}
}

func TestAuditRefusals(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), func(c *Config) {
		c.Policy = mustPolicy(t, `
grants:
  - {principals: ["spiffe://test/auditor"], prefix: "", verbs: [audit]}
  - {principals: ["spiffe://test/admin"], prefix: "", verbs: [admin, acquire, read, force]}
`)
	})
	ctx := testContext(t)
	call := func(who string) []error {
		c := writv1.NewAuditServiceClient(n.dial("spiffe://test/" + who).conn)
		_, list := c.ListAudit(ctx, &writv1.ListAuditRequest{})
		_, asked := c.WhoCouldWrite(ctx, &writv1.WhoCouldWriteRequest{Resource: "db", At: timestamppb.Now()})
		stream, export := c.ExportAudit(ctx, &writv1.ExportAuditRequest{})
		if export == nil {
			_, export = stream.Recv()
		}
		_, prune := c.PruneAudit(ctx, &writv1.PruneAuditRequest{Before: 2, Reason: "x"})
		return []error{list, asked, export, prune}
	}
	for _, err := range call("admin") {
		wantReason(t, err, lease.ReasonDenied, "audit")
	}
	for i, err := range call("auditor") {
		if err != nil {
			t.Errorf("call %d of an auditor: %v", i, err)
		}
	}
	c := writv1.NewAuditServiceClient(n.dial("spiffe://test/auditor").conn)
	_, err := c.WhoCouldWrite(ctx, &writv1.WhoCouldWriteRequest{Resource: "db"})
	wantReason(t, err, lease.ReasonInvalid, "at")
	_, err = c.WhoCouldWrite(ctx, &writv1.WhoCouldWriteRequest{Resource: "db//x", At: timestamppb.Now()})
	wantReason(t, err, lease.ReasonInvalid, "resource")
	_, err = c.ListAudit(ctx, &writv1.ListAuditRequest{Limit: 1001})
	wantReason(t, err, lease.ReasonInvalid, "limit")
	_, err = c.ListAudit(ctx, &writv1.ListAuditRequest{Since: &timestamppb.Timestamp{Seconds: 1 << 60}})
	wantReason(t, err, lease.ReasonInvalid, "since")
	_, err = c.PruneAudit(ctx, &writv1.PruneAuditRequest{Before: 2})
	wantReason(t, err, lease.ReasonInvalid, "reason")
	_, err = c.PruneAudit(ctx, &writv1.PruneAuditRequest{Reason: "x"})
	wantReason(t, err, lease.ReasonInvalid, "before")
	if n.metric("writ_server_audit_alarms", "") != 1 {
		t.Error("alarms are not counted")
	}
	status, err := writv1.NewClusterServiceClient(n.dial("spiffe://test/admin").conn).Status(ctx, &writv1.StatusRequest{})
	if err != nil || len(status.GetAuditAlarms()) != 1 || status.GetAuditAlarms()[0] != "n1" {
		t.Errorf("the status has the alarms %v, %v", status.GetAuditAlarms(), err)
	}
}

func mustPolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAuditOverREST(t *testing.T) {
	n := start(t, newAuthority(t), newFake("a"), nil)
	for path, want := range map[string]string{
		"/v1/audit?target=db&newest_first=true":              `"action":"grant"`,
		"/v1/audit:who?resource=db&at=2026-11-21T03:12:00Z":  `"approvedBy":["ann","bob"]`,
		"/v1/audit:who?resource=db&at=2026-11-21T03:12:00+x": `"reason":"INVALID"`,
	} {
		_, body := n.call(n.web(n.ca.source("spiffe://test/auditor")), http.MethodGet, path, "")
		if !strings.Contains(strings.ReplaceAll(body, " ", ""), want) {
			t.Errorf("%s answers %s, want %s", path, body, want)
		}
	}
}
