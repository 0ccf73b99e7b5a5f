package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "audit",
		Short: "See who could write and who approved it, and show it to others",
		Long: `Read the audit log: one chain of records, each written in the very transaction that did what it tells. Nodes sign what they
have seen of it. "export" writes a file that "verify" checks with no server.`,
	})
	cmd.AddCommand(a.auditListCommand(), a.auditExportCommand(), a.auditVerifyCommand(), a.auditPruneCommand())
	return cmd
}

// auditFlags are those of list.
type auditFlags struct {
	resource, actor, action, at, since, until string
	limit                                     int
	oldest, utc                               bool
}

func (a *app) auditListCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List audit records, or answer who could write at an instant",
		Long: `List audit records, the newest first. With --resource and --at it answers who could write to the resource then: which grants and
tenures were in force, who approved them, and which records say so.

Times are written as 2026-11-21T03:12:00Z, or as "2026-11-21 03:12" in the zone of this machine, with --utc in UTC.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.limit < 1:
				return lease.Invalid("--limit", fmt.Sprintf("is %d", f.limit), "use 1 or more")
			case f.at == "":
				return a.auditList(cmd.Context(), f)
			case f.resource == "":
				return lease.Invalid("--at", "asks who could write to nothing in particular", "give --resource too")
			}
			for _, name := range []string{"actor", "action", "since", "until", "limit", "oldest-first"} {
				if cmd.Flags().Changed(name) {
					return lease.Invalid("--"+name, "excludes --at", "choose one")
				}
			}
			return a.auditWho(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.resource, "resource", "", "only what is about this `name`; with an asterisk at the end, about all that begin so")
	flags.StringVar(&f.at, "at", "", "who could write at that `time`")
	flags.StringVar(&f.actor, "actor", "", "only what this `principal` did")
	flags.StringVar(&f.action, "action", "", "only this `action`, such as tenure.grant")
	flags.StringVar(&f.since, "since", "", "only from that `time` on")
	flags.StringVar(&f.until, "until", "", "only before that `time`")
	flags.IntVar(&f.limit, "limit", 100, "at most so many")
	flags.BoolVar(&f.oldest, "oldest-first", false, "begin with the oldest")
	flags.BoolVar(&f.utc, "utc", false, "times are in UTC, not in the zone of this machine")
	return cmd
}

func (f auditFlags) zone() *time.Location {
	if f.utc {
		return time.UTC
	}
	return time.Local
}

// timeLayouts are how people write an instant in their own zone.
var timeLayouts = []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"}

const timeFix = `write it as 2026-11-21T03:12:00Z, or as "2026-11-21 03:12"`

// parseTime reads an instant. One that the zone's clocks skip, or show twice, has to be written with its offset.
func parseTime(flag, text string, zone *time.Location) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return timestamppb.New(at), nil
	}
	for _, layout := range timeLayouts {
		at, err := time.ParseInLocation(layout, text, zone)
		if err != nil {
			continue
		}
		if at.Format(layout) != text {
			return nil, lease.Invalid(flag, fmt.Sprintf("is %q, which the clocks of %v skipped", text, zone), "write it with its offset, such as 2026-11-21T03:12:00+01:00")
		}
		for _, shift := range []time.Duration{-time.Hour, -30 * time.Minute, 30 * time.Minute, time.Hour} {
			if other := at.Add(shift); other.Format(layout) == text && layout != "2006-01-02" {
				return nil, lease.Invalid(flag, fmt.Sprintf("is %q, which the clocks of %v showed twice", text, zone),
					fmt.Sprintf("write %s or %s", at.Format(time.RFC3339), other.Format(time.RFC3339)))
			}
		}
		return timestamppb.New(at), nil
	}
	return nil, lease.Invalid(flag, fmt.Sprintf("is %q", text), timeFix)
}

func (a *app) auditList(ctx context.Context, f auditFlags) error {
	req := &writv1.ListAuditRequest{Target: f.resource, Action: f.action, Actor: f.actor, NewestFirst: !f.oldest}
	var err error
	if req.Since, err = parseTime("--since", f.since, f.zone()); err != nil {
		return err
	}
	if req.Until, err = parseTime("--until", f.until, f.zone()); err != nil {
		return err
	}
	all := &writv1.ListAuditResponse{}
	for {
		req.Limit = uint32(min(f.limit-len(all.GetRecords()), mostPerPage))
		var page *writv1.ListAuditResponse
		err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			page, err = writv1.NewAuditServiceClient(conn).ListAudit(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		if all.Head == 0 {
			all.Head, all.Heads = page.GetHead(), page.GetHeads()
		}
		all.Records = append(all.Records, page.GetRecords()...)
		all.More, all.Pruned = page.GetMore(), page.GetPruned()
		if !page.GetMore() || len(page.GetRecords()) == 0 || len(all.GetRecords()) >= f.limit {
			break
		}
		req.After = page.GetRecords()[len(page.GetRecords())-1].GetSequence()
	}
	if all.GetMore() {
		a.say("there are more than %d; see --limit", f.limit)
	}
	if all.GetPruned() > 0 {
		a.say("records up to %d have been pruned: they are in what was exported before", all.GetPruned())
	}
	for _, h := range all.GetHeads() {
		if h.GetAlarm() != "" {
			a.say("warning: node %s has signed record %d, and the log contradicts it: %s", oneLine(h.GetHead().GetNode()), h.GetHead().GetSequence(), oneLine(h.GetAlarm()))
		}
	}
	return a.print(all, func(w io.Writer) { a.printAudit(w, all.GetRecords(), f.zone()) })
}

func (a *app) printAudit(w io.Writer, records []*writv1.AuditRecord, zone *time.Location) {
	var rows [][]cell
	for _, r := range records {
		rows = append(rows, []cell{
			text(fmt.Sprint(r.GetSequence())), text(instantText(r.GetAt(), zone)), text(oneLine(r.GetAction())), text(oneLine(r.GetTarget())),
			text(oneLine(r.GetActor())), text(auditDetail(r)),
		})
	}
	a.columns(w, []string{"RECORD", "TIME", "ACTION", "TARGET", "ACTOR", "DETAIL"}, rows)
}

func instantText(at *timestamppb.Timestamp, zone *time.Location) string {
	if at == nil {
		return ""
	}
	return at.AsTime().In(zone).Format("2006-01-02 15:04:05.000 MST")
}

// longDetails are those that nobody wants in a table: -o json has them.
var longDetails = []string{"document", "signature", "set", "signed", "rule", "hash"}

// auditDetail is what a record says, in one line.
func auditDetail(r *writv1.AuditRecord) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.GetDetail())) {
		value := r.GetDetail()[name]
		if value == "" || slices.Contains(longDetails, name) {
			continue
		}
		if name == "token" || name == "old_token" {
			value = tokenForPeople(value)
		}
		parts = append(parts, name+"="+value)
	}
	if r.GetReason() != "" {
		parts = append(parts, "("+r.GetReason()+")")
	}
	return oneLine(strings.Join(parts, " "))
}

// tokenForPeople writes a decimal token as epoch.sequence; anything else as it is.
func tokenForPeople(decimal string) string {
	if token, err := fence.ParseToken(decimal); err == nil {
		return token.String()
	}
	return decimal
}

func (a *app) auditWho(ctx context.Context, f auditFlags) error {
	at, err := parseTime("--at", f.at, f.zone())
	if err != nil {
		return err
	}
	req := &writv1.WhoCouldWriteRequest{Resource: f.resource, At: at}
	var who *writv1.WhoCouldWriteResponse
	err = a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		who, err = writv1.NewAuditServiceClient(conn).WhoCouldWrite(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	return a.print(who, func(w io.Writer) { a.printWho(w, f, at, who) })
}

func (a *app) printWho(w io.Writer, f auditFlags, at *timestamppb.Timestamp, who *writv1.WhoCouldWriteResponse) {
	_, _ = fmt.Fprintf(w, "At %s, who could write to %s:\n\n", instantText(at, f.zone()), oneLine(f.resource)) // to memory, as below
	if len(who.GetWritable()) == 0 {
		_, _ = fmt.Fprintln(w, "nobody, as far as the log says")
	}
	for i, one := range who.GetWritable() {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		until := instantText(one.GetUntil(), f.zone())
		if until == "" {
			until = "now: it is in force"
		}
		approved := oneLine(strings.Join(one.GetApprovedBy(), ", "))
		if approved == "" && one.GetPromotion() != "" {
			approved = "nobody: nobody had to"
		}
		a.pairs(w,
			pair{"holder", text(oneLine(one.GetHolder()))},
			pair{"region", text(oneLine(one.GetRegion()))},
			pair{"token", text(bothTokens(one.GetToken(), fence.Token(one.GetToken()).String()))},
			pair{"from", text(instantText(one.GetFrom(), f.zone()))},
			pair{"until", text(until)},
			pair{"promotion", text(oneLine(one.GetPromotion()))},
			pair{"approved by", text(approved)},
		)
	}
	if who.GetCaveat() != "" {
		_, _ = fmt.Fprintf(w, "\nWhat this does not know: %s\n", oneLine(who.GetCaveat()))
	}
	if len(who.GetRecords()) > 0 {
		_, _ = fmt.Fprintln(w, "\nIt rests on:")
		a.printAudit(w, who.GetRecords(), f.zone())
	}
}

func (a *app) auditPruneCommand() *cobra.Command {
	req := &writv1.PruneAuditRequest{}
	cmd := &cobra.Command{
		Use:   "prune --before RECORD --reason TEXT",
		Short: "Forget old audit records, which a signed head has to cover",
		Long: `Forget the records before a sequence, for good. Export them first: afterwards nobody but who has the bundle can tell what they said.
A node must have signed a head that covers them; that head is kept, and so is what later records refer to. The chain goes on,
and what is exported from then on still verifies, also together with the bundle of before. Pruning is recorded itself.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case req.GetBefore() < 2:
				return lease.Invalid("--before", fmt.Sprintf("is %d", req.GetBefore()), "name the oldest record to keep")
			case req.GetReason() == "":
				return lease.Invalid("--reason", "is missing", "say why, for the log")
			}
			var resp *writv1.PruneAuditResponse
			err := a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewAuditServiceClient(conn).PruneAudit(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(resp, func(w io.Writer) { _, _ = fmt.Fprintf(w, "pruned up to record %d\n", resp.GetPruned()) })
		},
	}
	cmd.Flags().Uint64Var(&req.Before, "before", 0, "the oldest `record` to keep")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	return cmd
}

// receiveBundle reads an exported bundle.
func receiveBundle(req *writv1.ExportAuditRequest) receiver {
	return func(ctx context.Context, conn *grpc.ClientConn, w io.Writer) (size int64, err error) {
		stream, err := writv1.NewAuditServiceClient(conn).ExportAudit(ctx, req)
		if err != nil {
			return 0, err
		}
		return receive(stream, (*writv1.ExportAuditResponse).GetData, w)
	}
}
