package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) guardRemoveCommand() *cobra.Command {
	var attest bool
	var reason string
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a guard off the list",
		Long: `Take a guard off the list. One that may still be admitting is not taken off, unless somebody answers with --attest that it
admits nothing any more: grants then rely on that, and it stands in the audit log. Where the tenure of a failover group relies on
the guard, one person is not enough: writ guard attest.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &writv1.RemoveGuardRequest{Name: args[0], Attest: attest, Reason: reason}
			if attest && reason == "" {
				return lease.Invalid("--reason", "is missing", "say who answers for it, and why; it stands in the audit log")
			}
			var resp *writv1.RemoveGuardResponse
			err := a.once(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewFenceServiceClient(conn).RemoveGuard(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(resp, func(w io.Writer) { _, _ = fmt.Fprintln(w, "removed", args[0]) })
		},
	}
	cmd.Flags().BoolVar(&attest, "attest", false, "answer for it that it admits nothing any more")
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	return cmd
}

type protectFlags struct {
	isolation, reason string
	exact             bool
	allowUnproven     bool
	drain             time.Duration
}

// isolations are the names of what guards do without contact.
var isolations = map[string]writv1.Isolation{"close": writv1.Isolation_ISOLATION_CLOSE, "open": writv1.Isolation_ISOLATION_OPEN}

func (a *app) protectCommand() *cobra.Command {
	var f protectFlags
	cmd := &cobra.Command{
		Use:   "protect PREFIX --reason REASON",
		Short: "Have what begins with a prefix guarded, or change how",
		Long: `Have every resource whose name begins with a prefix guarded; "" is everything. From then on a grant waits until each guard
that covers the resource has been proved to refuse older tokens.

--isolation says what a guard does that has had no contact for its guard lease: "close" refuses writes, so that a region can be
fenced that nobody reaches; "open" goes on comparing tokens, and grants wait for such a guard, unless --allow-unproven lets them
be made without a proof, and marked so.`,
		Args: arguments("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			rule, err := f.rule(args[0])
			if err != nil {
				return err
			}
			return a.setGuarding(cmd.Context(), &writv1.SetGuardingRequest{Rule: rule, Reason: f.reason})
		},
	}
	cmd.Flags().StringVar(&f.isolation, "isolation", "close", "what a guard does without contact: close or open")
	cmd.Flags().BoolVar(&f.allowUnproven, "allow-unproven", false, "with open: grant although a guard out of contact may admit older tokens")
	cmd.Flags().BoolVar(&f.exact, "exact", false, exactUsage)
	cmd.Flags().DurationVar(&f.drain, "drain", 10*time.Second, "how long older writes may take to finish before they are broken off")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it stands in the audit log")
	_ = cmd.RegisterFlagCompletionFunc("isolation", // the flag exists
		cobra.FixedCompletions([]string{"close", "open"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// rule checks what can be checked here.
func (f *protectFlags) rule(prefix string) (*writv1.GuardingRule, error) {
	isolation, known := isolations[f.isolation]
	switch {
	case !known:
		return nil, lease.Invalid("--isolation", fmt.Sprintf("is %q", f.isolation), "use close or open")
	case f.allowUnproven && isolation != writv1.Isolation_ISOLATION_OPEN:
		return nil, lease.Invalid("--allow-unproven", "is given with --isolation close", "leave it out, or use --isolation open")
	case f.drain < time.Millisecond:
		return nil, lease.Invalid("--drain", fmt.Sprintf("is %v", f.drain), "use 1ms or more")
	case f.reason == "":
		return nil, lease.Invalid("--reason", "is missing", "say why; it stands in the audit log")
	}
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	return &writv1.GuardingRule{Prefix: prefix, Isolation: isolation, Exact: f.exact, AllowUnproven: f.allowUnproven, DrainMs: f.drain.Milliseconds()}, nil
}

// checkPrefix refuses the form in which guards say what they cover.
func checkPrefix(prefix string) error {
	if bare, wild := strings.CutSuffix(prefix, "*"); wild {
		return lease.Invalid("PREFIX", fmt.Sprintf("is %q", prefix), fmt.Sprintf("write the prefix as it is, %q", bare))
	}
	return nil
}

func (a *app) unprotectCommand() *cobra.Command {
	var reason string
	var exact bool
	cmd := &cobra.Command{
		Use:   "unprotect PREFIX",
		Short: "Remove the rule of a prefix",
		Long: `Remove the rule of a prefix. What it was about goes by the rule of the next shorter prefix then, or is not guarded any more:
grants wait for no guard, while guards go on refusing what is older than their floors.`,
		Args: arguments("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPrefix(args[0]); err != nil {
				return err
			}
			return a.setGuarding(cmd.Context(), &writv1.SetGuardingRequest{Rule: &writv1.GuardingRule{Prefix: args[0], Exact: exact}, Remove: true, Reason: reason})
		},
	}
	cmd.Flags().BoolVar(&exact, "exact", false, exactUsage)
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	return cmd
}

const exactUsage = "the rule is for the one resource of that name, as that which comes with a failover group"

// setGuarding changes one rule and shows them all.
func (a *app) setGuarding(ctx context.Context, req *writv1.SetGuardingRequest) error {
	var resp *writv1.SetGuardingResponse
	err := a.once(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = writv1.NewFenceServiceClient(conn).SetGuarding(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	return a.print(resp, func(w io.Writer) { a.printRules(w, resp.GetGuarding()) })
}

func (a *app) rulesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rules", Short: "Show what is guarded, and how", Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var resp *writv1.GetGuardingResponse
			err := a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewFenceServiceClient(conn).GetGuarding(ctx, &writv1.GetGuardingRequest{})
				return err
			})
			if err != nil {
				return err
			}
			return a.print(resp, func(w io.Writer) { a.printRules(w, resp.GetGuarding()) })
		},
	}
}

func (a *app) printRules(w io.Writer, record *writv1.GuardingRecord) {
	var rows [][]cell
	for _, rule := range record.GetRules() {
		isolation, unproven, drain := text("close"), text("no"), 10*time.Second
		if rule.GetIsolation() == writv1.Isolation_ISOLATION_OPEN {
			isolation = cell{"open", weak}
		}
		if rule.GetAllowUnproven() {
			unproven = cell{"allowed", weak}
		}
		if rule.GetDrainMs() > 0 {
			drain = time.Duration(rule.GetDrainMs()) * time.Millisecond
		}
		prefix := strconv.QuoteToGraphic(rule.GetPrefix())
		if rule.GetExact() {
			prefix += " alone"
		}
		rows = append(rows, []cell{text(prefix), isolation, unproven, text(drain.String())})
	}
	if len(rows) == 0 {
		_, _ = fmt.Fprintln(w, "nothing is guarded")
		return
	}
	a.columns(w, []string{"PREFIX", "ISOLATION", "UNPROVEN GRANTS", "DRAIN"}, rows)
}
