package server

import (
	"bufio"
	"context"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// Auditor is what AuditService needs of the node. Every node reads; PruneAudit answers lease.ErrNotCoordinator on one that
// does not decide, and may be repeated.
type Auditor interface {
	ListAudit(ctx context.Context, query quorum.AuditQuery) (quorum.AuditPage, error)
	WhoCouldWrite(ctx context.Context, resource lease.Resource, at time.Time) (quorum.AuditAnswer, error)
	// ExportAudit writes a bundle of the records from one sequence to another, 0 for the first and the newest.
	ExportAudit(ctx context.Context, from, to uint64, w io.Writer) error
	PruneAudit(ctx context.Context, actor lease.Principal, before uint64, reason string) (pruned uint64, err error)
	// AuditAlarms says which signed heads contradict the audit log.
	AuditAlarms() []string
}

// auditService serves writv1.AuditService.
type auditService struct {
	writv1.UnimplementedAuditServiceServer
	quorum    Auditor
	forwarder *forwarder
}

// auditAlarms is how many signed heads contradict the log.
func auditAlarms(q Auditor) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "writ_server_audit_alarms",
		Help: "Signed heads that contradict the audit log as this node has it: the log, or what a node has seen, was changed.",
	}, func() float64 { return float64(len(q.AuditAlarms())) })
}

func auditRecord(r quorum.AuditRecord) *writv1.AuditRecord {
	return &writv1.AuditRecord{
		Sequence: r.Sequence, At: timestamppb.New(r.At), Actor: r.Actor, Action: r.Action, Target: r.Target, Reason: r.Reason,
		Detail: r.Detail, Stored: r.Stored,
	}
}

func auditRecords(records []quorum.AuditRecord) []*writv1.AuditRecord {
	out := make([]*writv1.AuditRecord, len(records))
	for i, r := range records {
		out[i] = auditRecord(r)
	}
	return out
}

// instant reads an optional time.
func instant(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, lease.Invalid(field, "is out of range", "use a time such as 2026-11-21T03:12:00Z")
	}
	return t.AsTime(), nil
}

func (s *auditService) ListAudit(ctx context.Context, req *writv1.ListAuditRequest) (*writv1.ListAuditResponse, error) {
	query := quorum.AuditQuery{
		Target: req.GetTarget(), Action: req.GetAction(), Actor: req.GetActor(), After: req.GetAfter(), Limit: int(req.GetLimit()),
		NewestFirst: req.GetNewestFirst(),
	}
	if query.Limit == 0 {
		query.Limit = defaultPageSize
	}
	var err error
	if query.Since, err = instant("since", req.GetSince()); err != nil {
		return nil, err
	}
	if query.Until, err = instant("until", req.GetUntil()); err != nil {
		return nil, err
	}
	page, err := s.quorum.ListAudit(ctx, query)
	if err != nil {
		return nil, err
	}
	resp := &writv1.ListAuditResponse{Records: auditRecords(page.Records), More: page.More, Pruned: page.Pruned, Head: page.Head}
	for _, h := range page.Heads {
		resp.Heads = append(resp.Heads, &writv1.AuditHeadStatus{Head: h.Head, Alarm: h.Alarm})
	}
	return resp, nil
}

func (s *auditService) WhoCouldWrite(ctx context.Context, req *writv1.WhoCouldWriteRequest) (*writv1.WhoCouldWriteResponse, error) {
	resource, err := lease.ParseResource(req.GetResource())
	if err != nil {
		return nil, err
	}
	at, err := instant("at", req.GetAt())
	if err != nil {
		return nil, err
	}
	answer, err := s.quorum.WhoCouldWrite(ctx, resource, at)
	if err != nil {
		return nil, err
	}
	resp := &writv1.WhoCouldWriteResponse{Records: auditRecords(answer.Records), Caveat: answer.Caveat()}
	for _, w := range answer.Writable {
		out := &writv1.Writable{
			Holder: w.Holder, Region: w.Region, Token: uint64(w.Token), From: timestamppb.New(w.From), ApprovedBy: w.ApprovedBy, Promotion: w.Promotion,
		}
		if !w.Until.IsZero() {
			out.Until = timestamppb.New(w.Until)
		}
		resp.Writable = append(resp.Writable, out)
	}
	return resp, nil
}

// exportChunkBytes is the size of the pieces that a bundle is sent in.
const exportChunkBytes = 256 << 10

// ExportAudit comes from the node that was asked.
func (s *auditService) ExportAudit(req *writv1.ExportAuditRequest, stream grpc.ServerStreamingServer[writv1.ExportAuditResponse]) error {
	out := bufio.NewWriterSize(bundleStream{stream}, exportChunkBytes)
	if err := s.quorum.ExportAudit(stream.Context(), req.GetFrom(), req.GetTo(), out); err != nil {
		return err
	}
	return out.Flush()
}

// bundleStream sends what is written to it.
type bundleStream struct {
	stream grpc.ServerStreamingServer[writv1.ExportAuditResponse]
}

func (b bundleStream) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); sent += exportChunkBytes {
		if err := b.stream.Send(&writv1.ExportAuditResponse{Data: p[sent:min(sent+exportChunkBytes, len(p))]}); err != nil {
			return sent, err
		}
	}
	return len(p), nil
}

// PruneAudit goes to the coordinator. Doing it twice does nothing more.
func (s *auditService) PruneAudit(ctx context.Context, req *writv1.PruneAuditRequest) (*writv1.PruneAuditResponse, error) {
	if err := checkText("reason", req.GetReason(), lease.MaxReasonBytes); err != nil {
		return nil, err
	}
	actor := callerOf(ctx).principal
	return decide(ctx, s.forwarder, manner{}, func(ctx context.Context) (*writv1.PruneAuditResponse, error) {
		pruned, err := s.quorum.PruneAudit(ctx, actor, req.GetBefore(), req.GetReason())
		if err != nil {
			return nil, err
		}
		return &writv1.PruneAuditResponse{Pruned: pruned}, nil
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.PruneAuditResponse, error) {
		return l.audit.PruneAudit(ctx, req, opts...)
	})
}
