package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) promoteCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "promote",
		Short: "Make another region of a failover group primary",
		Long: `Make another region of a failover group primary: plan it, have it signed by the people whom the group's rule asks for, and
execute it.

  writ promote plan orders --to us --mode switchover -o plan.json
  writ promote approve plan.json --key ~/.ssh/id_ed25519        (each approver)
  writ promote execute plan.json

What is to be signed is one file; ssh-keygen -Y sign -n writ-approval@v1 signs it as well, for approve --signature.`,
	})
	cmd.AddCommand(a.planCommand(), a.approveCommand(), a.withdrawCommand(), a.executeCommand(), a.abortCommand(), a.resumeCommand(),
		a.explainCommand(), a.ackCommand(), a.reinstateCommand(), a.attestCommand(), a.promotionsCommand(), a.promotionCommand(), a.operationsCommand(),
		a.documentCommand())
	return cmd
}

type planFlags struct {
	to, mode, lossCap, reason, out, token string
	validFor                              time.Duration
}

func (a *app) planCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan GROUP --to REGION --mode MODE",
		Short: "Freeze a promotion, for people to sign; nothing else changes",
		Long: `Freeze a promotion: from, to, mode, the token that the group has now, what is known of both sides, and until when it may be
signed and executed. Nothing else changes.

switchover  the present primary stops writing and is drained first; nothing is lost
failover    the present primary is not asked; it is fenced
failback    a switchover to the region that was primary before
recover     nobody is primary: the quorum was rebuilt, and people say who shall be`,
		Args: arguments("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(args[0])
			if err != nil {
				return err
			}
			p, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.Plan, req)
			if err != nil {
				return err
			}
			if err := a.saveDocument(p.GetOperation(), f.out); err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) { a.printPlan(w, p) })
		},
	}
	cmd.Flags().StringVar(&f.to, "to", "", "the `region` that is to be primary; default: the eligible one with the highest priority")
	cmd.Flags().StringVar(&f.mode, "mode", "", "switchover, failover, failback or recover")
	cmd.Flags().StringVar(&f.lossCap, "loss-cap", "", "what may be lost without asking again, such as 16MiB, 30s or both; default: the group's rpo")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it is signed, too")
	cmd.Flags().DurationVar(&f.validFor, "valid-for", 0, "how long it may be signed and executed; default: the rule's")
	tokenFlag(cmd, &f.token, "only if this is the group's `token`")
	outFile(cmd, &f.out)
	_ = cmd.RegisterFlagCompletionFunc("mode", // the flag exists
		cobra.FixedCompletions([]string{"switchover", "failover", "failback", "recover"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// modeOf reads a mode. There is none by default: a switchover must not become a failover by leaving something out.
func modeOf(name string) (writv1.PromotionMode, error) {
	number, choice := enumNamed(writv1.PromotionMode(0).Descriptor(), name)
	switch {
	case name == "":
		return 0, lease.Invalid("--mode", "is missing", "use one of "+choice)
	case number == 0:
		return 0, lease.Invalid("--mode", fmt.Sprintf("is %q", name), "use one of "+choice)
	}
	return writv1.PromotionMode(number), nil
}

func (f *planFlags) request(group string) (*writv1.PlanRequest, error) {
	mode, err := modeOf(f.mode)
	if err != nil {
		return nil, err
	}
	req := &writv1.PlanRequest{Group: group, To: f.to, Mode: mode, Reason: f.reason, RequestId: rand.Text()}
	if req.LossCap, err = parseLoss("--loss-cap", f.lossCap); err != nil {
		return nil, err
	}
	if f.validFor < 0 {
		return nil, lease.Invalid("--valid-for", fmt.Sprintf("is %v", f.validFor), "use a positive duration, such as 30m")
	}
	if f.validFor > 0 {
		req.ValidFor = durationpb.New(f.validFor)
	}
	if f.token != "" {
		token, err := parseToken(f.token)
		if err != nil {
			return nil, err
		}
		req.ExpectedToken = uint64(token)
	}
	return req, nil
}

func (a *app) abortCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "abort ID",
		Short: "Cancel a promotion that has not begun to fence, or roll it back",
		Long: `Cancel a promotion that has not begun to fence; one that has is rolled back: the region that was primary gets a newer token and
is asked to write again, also if the other one has been granted by then. Once the other one is being verified, a new plan is the
way back.`,
		Args: arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			p, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.Abort, &writv1.AbortRequest{Id: id, Reason: reason})
			return a.shown(p, err)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	return cmd
}

// shown prints the promotion that a call answered.
func (a *app) shown(p *writv1.Promotion, err error) error {
	if err != nil {
		return err
	}
	return a.print(p, func(w io.Writer) { a.printPromotion(w, p) })
}

func (a *app) resumeCommand() *cobra.Command {
	req := &writv1.ResumeRequest{}
	cmd := &cobra.Command{
		Use:   "resume ID",
		Short: "Try again what failed: a check, a hook, a drain",
		Long: `Try again what failed. --skip-hook goes on as if the hook that failed had succeeded, which somebody has seen to by hand then;
verify cannot be skipped.`,
		Args: arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Id, err = idOf(args[0]); err != nil {
				return err
			}
			if req.GetSkipHook() && req.GetReason() == "" {
				return lease.Invalid("--reason", "is missing", "say who did by hand what the hook should have done; it stands in the audit log")
			}
			p, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.Resume, req)
			return a.shown(p, err)
		},
	}
	cmd.Flags().BoolVar(&req.SkipHook, "skip-hook", false, "go on without the hook that failed")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; it stands in the audit log")
	return cmd
}

func (a *app) ackCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ack ID", Short: "Note that you have taken the matter in hand", Args: arguments("ID"),
		Long: `Note on the timeline of a promotion that a person has taken the matter in hand. It stops nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			p, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.Acknowledge, &writv1.AcknowledgeRequest{Id: id})
			return a.shown(p, err)
		},
	}
}

func (a *app) reinstateCommand() *cobra.Command {
	var disposition, reason, out string
	cmd := &cobra.Command{
		Use:   "reinstate ID --disposition WHAT",
		Short: "Say what became of what a promotion lost, so that the old primary may come back",
		Long: `Say what became of the writes that a promotion lost, which has to be approved. When that is executed, the region that was
demoted is reinstated and may be a target again.

replayed   they were written again, on the new side
accepted   the loss is accepted, and the tail is kept
discarded  they are thrown away`,
		Args: arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			number, choice := enumNamed(writv1.Disposition(0).Descriptor(), disposition)
			if number == 0 {
				return lease.Invalid("--disposition", fmt.Sprintf("is %q", disposition), "use one of "+choice)
			}
			req := &writv1.ReinstateRequest{Id: id, Disposition: writv1.Disposition(number), Reason: reason}
			op, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.Reinstate, req)
			return a.proposed(op, err, out)
		},
	}
	cmd.Flags().StringVar(&disposition, "disposition", "", "replayed, accepted or discarded")
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is signed, too")
	outFile(cmd, &out)
	_ = cmd.RegisterFlagCompletionFunc("disposition", // the flag exists
		cobra.FixedCompletions([]string{"replayed", "accepted", "discarded"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// proposed prints an operation that has to be approved.
func (a *app) proposed(op *writv1.Operation, err error, out string) error {
	if err != nil {
		return err
	}
	if err := a.saveDocument(op, out); err != nil {
		return err
	}
	return a.print(op, func(w io.Writer) { a.printOperation(w, op) })
}

func (a *app) attestCommand() *cobra.Command {
	var reason, out string
	cmd := &cobra.Command{
		Use:   "attest ID GUARD --reason REASON",
		Short: "Have people answer for a guard that cannot prove itself that it refuses",
		Long: `Have people answer for a guard that a promotion awaits and that cannot prove itself that it refuses: that it admits nothing
any more. It has to be approved, and holds for this promotion.`,
		Args: arguments("ID", "GUARD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			if reason == "" {
				return lease.Invalid("--reason", "is missing", "say how it is known that the guard admits nothing; it is signed, too")
			}
			op, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.AttestGuard, &writv1.AttestGuardRequest{Id: id, Guard: args[1], Reason: reason})
			return a.proposed(op, err, out)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "how it is known; it is signed, too")
	outFile(cmd, &out)
	return cmd
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain GROUP", Short: "Name the rule that applies to a group at the moment", Args: arguments("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.Explain, &writv1.ExplainRequest{Group: args[0]})
			if err != nil {
				return err
			}
			return a.print(resp, func(w io.Writer) { a.printExplain(w, resp) })
		},
	}
}

func (a *app) printExplain(w io.Writer, resp *writv1.ExplainResponse) {
	lines := []pair{{"rule", text(oneLine(resp.GetRule()))}, {"says", text(oneLine(resp.GetText()))}}
	for _, b := range resp.GetBlocks() {
		lines = append(lines, pair{"in the way", cell{oneLine(b), weak}})
	}
	a.pairs(w, lines...)
	if len(resp.GetEvidence()) > 0 {
		_, _ = fmt.Fprintln(w)
		a.printEvidence(w, resp.GetEvidence())
	}
}

func (a *app) printEvidence(w io.Writer, evidence []*writv1.Evidence) {
	var rows [][]cell
	for _, e := range evidence {
		rows = append(rows, []cell{text(oneLine(e.GetObserver())), text(oneLine(e.GetAbout())), text(oneLine(e.GetWhat())), text(a.ago(e.GetSince()))})
	}
	a.columns(w, []string{"OBSERVER", "ABOUT", "SAYS", "SINCE"}, rows)
}

func (a *app) promotionsCommand() *cobra.Command {
	req := &writv1.ListPromotionsRequest{}
	cmd := &cobra.Command{
		Use: "list [GROUP]", Short: "List promotions, the newest first", Args: arguments("[GROUP]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Group = strings.Join(args, "")
			list, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.ListPromotions, req)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { a.printPromotions(w, list.GetPromotions()) })
		},
	}
	cmd.Flags().BoolVar(&req.Open, "open", false, "only those that have not ended")
	cmd.Flags().Uint32Var(&req.Limit, "limit", 100, "at most so many")
	return cmd
}

func (a *app) operationsCommand() *cobra.Command {
	req := &writv1.ListOperationsRequest{}
	cmd := &cobra.Command{
		Use: "operations [GROUP]", Short: "List what people have to agree on, the newest first", Args: arguments("[GROUP]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Group = strings.Join(args, "")
			list, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.ListOperations, req)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { a.printOperations(w, list.GetOperations()) })
		},
	}
	cmd.Flags().BoolVar(&req.Open, "open", false, "only those that wait for signatures or execution")
	cmd.Flags().Uint32Var(&req.Limit, "limit", 100, "at most so many")
	return cmd
}

func (a *app) promotionCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a promotion, or another operation", Args: arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			show := func(ctx context.Context) (proto.Message, func(io.Writer), error) {
				return a.promotionOrOperation(ctx, id)
			}
			if follow {
				return a.again(cmd.Context(), statusEvery, show)
			}
			data, table, err := show(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(data, table)
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "again every 2 s, until Ctrl-C")
	return cmd
}

// promotionOrOperation shows whichever has the id.
func (a *app) promotionOrOperation(ctx context.Context, id string) (proto.Message, func(io.Writer), error) {
	op, err := a.operation(ctx, id)
	switch {
	case err != nil:
		return nil, nil, err
	case op.GetKind() != writv1.OperationKind_OPERATION_KIND_PROMOTION:
		return op, func(w io.Writer) { a.printOperation(w, op) }, nil
	}
	p, err := a.promotion(ctx, id)
	return p, func(w io.Writer) { a.printPromotion(w, p) }, err
}

func (a *app) operation(ctx context.Context, id string) (*writv1.Operation, error) {
	return askRegions(ctx, a.each, writv1.RegionServiceClient.GetOperation, &writv1.GetOperationRequest{Id: id})
}

func (a *app) promotion(ctx context.Context, id string) (*writv1.Promotion, error) {
	return askRegions(ctx, a.each, writv1.RegionServiceClient.GetPromotion, &writv1.GetPromotionRequest{Id: id})
}
