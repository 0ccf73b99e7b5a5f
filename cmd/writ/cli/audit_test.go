package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
)

// auditDouble answers with a chain of records.
type auditDouble struct {
	writv1.UnimplementedAuditServiceServer
	stored [][]byte
	bundle []byte
	lists  []*writv1.ListAuditRequest
	who    *writv1.WhoCouldWriteResponse
	asked  *writv1.WhoCouldWriteRequest
	alarm  string
}

func (d *auditDouble) ListAudit(_ context.Context, req *writv1.ListAuditRequest) (*writv1.ListAuditResponse, error) {
	d.lists = append(d.lists, req)
	resp := &writv1.ListAuditResponse{Head: uint64(len(d.stored))}
	if d.alarm != "" {
		resp.Heads = []*writv1.AuditHeadStatus{{Head: &writv1.AuditHead{Node: "n1", Sequence: 2}, Alarm: d.alarm}}
	}
	for _, stored := range d.stored {
		r, err := audit.Parse(stored)
		if err != nil {
			return nil, err
		}
		resp.Records = append(resp.Records, &writv1.AuditRecord{
			Sequence: r.Sequence, At: timestamppb.New(r.At), Actor: r.Actor, Action: r.Action, Target: r.Target, Reason: r.Reason, Detail: r.Detail,
		})
	}
	return resp, nil
}

func (d *auditDouble) WhoCouldWrite(_ context.Context, req *writv1.WhoCouldWriteRequest) (*writv1.WhoCouldWriteResponse, error) {
	d.asked = req
	return d.who, nil
}

func (d *auditDouble) ExportAudit(_ *writv1.ExportAuditRequest, stream grpc.ServerStreamingServer[writv1.ExportAuditResponse]) error {
	return stream.Send(&writv1.ExportAuditResponse{Data: d.bundle})
}

func (d *auditDouble) PruneAudit(_ context.Context, req *writv1.PruneAuditRequest) (*writv1.PruneAuditResponse, error) {
	return &writv1.PruneAuditResponse{Pruned: req.GetBefore() - 1}, nil
}

// auditors starts a double with two records, in the environment.
func auditors(t *testing.T) *auditDouble {
	t.Helper()
	d := &auditDouble{}
	var head audit.Head
	for i := range 2 {
		stored, next, err := audit.Append(head, audit.Record{
			At: instant.Add(time.Duration(i) * time.Minute), Actor: "spiffe://test/sre", Action: "tenure.grant", Target: "orders-db", Reason: "drill",
			Detail: map[string]string{"token": "281474976710663", "region": "us", "document": "{}"},
		})
		if err != nil {
			t.Fatal(err)
		}
		d.stored, head = append(d.stored, stored), next
	}
	signer, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := keys.MarshalJWKS()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := audit.SignedHead{Node: "n1", Cluster: "test", Incarnation: "i", Head: head, At: instant}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	var bundle bytes.Buffer
	err = audit.Export(&bundle, audit.Source{
		Cluster: "test", Incarnation: "i", Exported: instant, Heads: []string{signed}, Keys: jwks,
		Records: func(yield func([]byte) bool) {
			for _, stored := range d.stored {
				if !yield(stored) {
					return
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.bundle = bundle.Bytes()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	writv1.RegisterAuditServiceServer(s, d)
	go func() { _ = s.Serve(l) }() // until it is stopped
	t.Cleanup(s.Stop)
	t.Setenv("WRIT_ENDPOINTS", l.Addr().String())
	t.Setenv("WRIT_INSECURE", "true")
	return d
}

func TestAuditList(t *testing.T) {
	d := auditors(t)
	writ(t, "audit", "list", "--utc").want(t, 0, `RECORD  TIME                         ACTION        TARGET     ACTOR              DETAIL
1       2026-03-14 03:00:00.000 UTC  tenure.grant  orders-db  spiffe://test/sre  region=us token=1.7 (drill)
2       2026-03-14 03:01:00.000 UTC  tenure.grant  orders-db  spiffe://test/sre  region=us token=1.7 (drill)
`, "")
	d.alarm = "record 2 is another one there than in the log"
	r := writ(t, "audit", "list", "--utc", "--since", "2026-03-14 02:00", "--until", "2026-03-14T04:00:00+01:00", "--oldest-first", "--actor", "a", "--action", "b", "--resource", "c*")
	if !strings.Contains(r.stderr, "warning: node n1 has signed record 2, and the log contradicts it: record 2 is another one there") {
		t.Errorf("no warning: %q", r.stderr)
	}
	req := d.lists[1]
	if req.GetTarget() != "c*" || req.GetActor() != "a" || req.GetAction() != "b" || req.GetNewestFirst() ||
		!req.GetSince().AsTime().Equal(instant.Add(-time.Hour)) || !req.GetUntil().AsTime().Equal(instant) {
		t.Errorf("asked %v", req)
	}
}

func TestAuditWho(t *testing.T) {
	d := auditors(t)
	d.who = &writv1.WhoCouldWriteResponse{Writable: []*writv1.Writable{{
		Region: "us", Token: 281474976710663, From: timestamppb.New(instant), ApprovedBy: []string{"ann", "bob"}, Promotion: "orders-db-1.2",
	}}, Caveat: "one; two"}
	writ(t, "audit", "list", "--resource", "orders-db", "--at", "2026-03-14 03:12", "--utc").want(t, 0, `At 2026-03-14 03:12:00.000 UTC, who could write to orders-db:

region       us
token        281474976710663 (1.7)
from         2026-03-14 03:00:00.000 UTC
until        now: it is in force
promotion    orders-db-1.2
approved by  ann, bob

What this does not know: one; two
`, "")
	if !d.asked.GetAt().AsTime().Equal(instant.Add(12 * time.Minute)) {
		t.Errorf("asked about %v", d.asked.GetAt().AsTime())
	}
	d.who = &writv1.WhoCouldWriteResponse{}
	writ(t, "audit", "list", "--resource", "x", "--at", "2026-03-14T03:12:00Z", "--utc").want(t, 0,
		"At 2026-03-14 03:12:00.000 UTC, who could write to x:\n\nnobody, as far as the log says\n", "")
}

func TestAuditBundles(t *testing.T) {
	d := auditors(t)
	path := filepath.Join(t.TempDir(), "audit.tar.gz")
	writ(t, "audit", "export", "-o", path).want(t, 0, fmt.Sprintf("exported %s: records 1 to 2, signed up to 2\n", path), "")
	if r := writ(t, "audit", "export", path); r.code == 0 || !strings.Contains(r.stderr, "exists") {
		t.Errorf("over a file: %+v", r)
	}
	if r := writ(t, "audit", "verify", path); r.code != 0 || !strings.Contains(r.stdout, "chain         unbroken") || !strings.Contains(r.stdout, "signed up to  record 2") {
		t.Errorf("verified: %+v", r)
	}
	if r := writ(t, "audit", "verify", path, "-o", "json"); field(t, r.stdout, "end.sequence") != "2" || field(t, r.stdout, "covered") != "2" {
		t.Errorf("as JSON: %+v", r)
	}
	if r := writ(t, "audit", "verify", path, path); r.code != 2 || !strings.Contains(r.stderr, "does not continue") {
		t.Errorf("twice the same: %+v", r)
	}
	broken := bytes.Clone(d.bundle)
	broken[len(broken)/2] ^= 1
	if err := os.WriteFile(path, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := writ(t, "audit", "verify", path); r.code != 2 {
		t.Errorf("a broken one: %+v", r)
	}
	writ(t, "audit", "prune", "--before", "2", "--reason", "old").want(t, 0, "pruned up to record 1\n", "")
}

// What the log is contradicted by stands where operators look.
func TestStatusShowsAlarmsOfTheAuditLog(t *testing.T) {
	c := newCluster(t)
	c.set(func() { c.status.AuditAlarms = []string{"node eu has signed head 7,\nand record 7 is missing"} })
	r := writ(t, "quorum", "status")
	for _, want := range []string{
		"audit log    CONTRADICTED by 1 signed heads: see docs/AUDIT.md", `audit log: node eu has signed head 7,`, "and record 7 is missing",
	} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("no word of %q: %+v", want, r)
		}
	}
	if strings.Contains(r.stdout, "7,\nand") {
		t.Errorf("it may break lines: %s", r.stdout)
	}
}

func TestAuditUsage(t *testing.T) {
	auditors(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"audit", "list", "--at", "2026-03-14 03:12"}, "--at"},
		{[]string{"audit", "list", "--resource", "x", "--at", "yesterday"}, "2026-11-21T03:12:00Z"},
		{[]string{"audit", "list", "--resource", "x", "--at", "2026-03-14 03:12", "--actor", "a"}, "--actor"},
		{[]string{"audit", "list", "--limit", "0"}, "--limit"},
		{[]string{"audit", "export"}, "FILE"},
		{[]string{"audit", "verify"}, "BUNDLE"},
		{[]string{"audit", "verify", "/nonexistent"}, "BUNDLE"},
		{[]string{"audit", "verify", "/dev/null", "--keys", "/dev/null"}, "--keys"},
		{[]string{"audit", "verify", "/dev/null", "--approvers", "/nonexistent"}, "--approvers"},
		{[]string{"audit", "verify", "/dev/null", "--approvers", "/dev/null"}, "nothing is here"},
		{[]string{"audit", "prune", "--reason", "x"}, "--before"},
		{[]string{"audit", "prune", "--before", "7"}, "--reason"},
	} {
		if r := writ(t, c.args...); r.code == 0 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v: %+v, want it to name %s", c.args, r, c.want)
		}
	}
}

func TestTimesThatClocksSkipOrShowTwice(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no zones here:", err)
	}
	for text, want := range map[string]string{
		"2026-11-21 03:12":     "2026-11-21T02:12:00Z",
		"2026-11-21 03:12:30":  "2026-11-21T02:12:30Z",
		"2026-11-21":           "2026-11-20T23:00:00Z",
		"2026-11-21T03:12:00Z": "2026-11-21T03:12:00Z",
		"2026-03-29 02:30":     "skipped",
		"2026-10-25 02:30":     "twice",
		"2026-10-25 03:30":     "2026-10-25T02:30:00Z",
		"3 o'clock":            "write it as",
	} {
		at, err := parseTime("--at", text, zone)
		got := at.AsTime().Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}
