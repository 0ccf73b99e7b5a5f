package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

func (a *app) groupCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "group",
		Short: "Failover groups: which regions there are, and which one is primary",
		Long: `Failover groups: which regions there are, which one is primary, what stands before its storage, how much may be lost, and who
has to agree. A change that loosens a safety rule has to be approved first, by the rule that the group has.`,
	})
	cmd.AddCommand(a.groupApplyCommand(), a.groupListCommand(), a.groupGetCommand(), a.groupStatusCommand(), a.groupRemoveCommand())
	return cmd
}

type applyFlags struct {
	files  []string
	dryRun bool
	reason string
}

func (a *app) groupApplyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create groups, or change them",
		Long: `Create the groups of YAML files, one a document, or change them to be so. "-" reads standard input. What loosens a safety
rule answers an operation that has to be approved and executed ("writ promote approve", "writ promote execute"); the exit code
is 6 then. What is applied again changes nothing.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.applyGroups(cmd.Context(), f) },
	}
	cmd.Flags().StringSliceVarP(&f.files, "file", "f", nil, "YAML `file`; may be given several times")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing, and show what would happen")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it stands in the audit log")
	return cmd
}

// readFile reads what a flag names; "-" is standard input.
func (a *app) readFile(flag, path string) ([]byte, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(a.stdin, region.MaxFileBytes+1))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, lease.Invalid(flag, "cannot be read: "+err.Error(), "name a file that is there")
	}
	return data, nil
}

// fileError puts a file's name before what is wrong in it.
func fileError(path string, err error) error {
	e := (*region.FileError)(nil)
	if !errors.As(err, &e) {
		return lease.Invalid(path, err.Error(), "correct it")
	}
	problem := fmt.Sprintf("line %d: %s", e.Line, strings.TrimSpace(e.Field+" "+e.Problem))
	return lease.Invalid(path, problem, e.Fix)
}

// applied is what came of one group.
type applied struct {
	*writv1.ApplyGroupResponse
	name, outcome string
}

// MarshalJSON uses the field names of the API.
func (r applied) MarshalJSON() ([]byte, error) {
	return with{r.ApplyGroupResponse, "outcome", r.outcome}.MarshalJSON()
}

func (a *app) applyGroups(ctx context.Context, f applyFlags) error {
	if len(f.files) == 0 {
		return lease.Invalid("--file", "is missing", "name a YAML file of groups, or - for standard input")
	}
	var specs []*writv1.GroupSpec
	for _, path := range f.files {
		data, err := a.readFile("--file", path)
		if err != nil {
			return err
		}
		some, err := region.ParseGroups(data)
		if err != nil {
			return fileError(path, err)
		}
		specs = append(specs, some...)
	}
	var done []applied
	var pending []string
	for _, spec := range specs {
		req := &writv1.ApplyGroupRequest{Spec: spec, Reason: f.reason, DryRun: f.dryRun}
		by := a.once
		if f.dryRun {
			by = a.each
		}
		resp, err := askRegions(ctx, by, writv1.RegionServiceClient.ApplyGroup, req)
		if err != nil {
			return errors.Join(a.printApplied(done), fmt.Errorf("group %s: %w", spec.GetName(), err))
		}
		done = append(done, applied{resp, spec.GetName(), outcomeOf(resp, f.dryRun)})
		if id := resp.GetOperation().GetId(); id != "" {
			pending = append(pending, id)
		}
	}
	if err := a.printApplied(done); err != nil || len(pending) == 0 || f.dryRun {
		return err
	}
	e := lease.Errorf(lease.ReasonPending, "has to be approved before it happens: %s", strings.Join(pending, ", "))
	e.Fix = "have it signed with writ promote approve ID, then writ promote execute ID"
	return e
}

func outcomeOf(resp *writv1.ApplyGroupResponse, dryRun bool) string {
	switch {
	case resp.GetOperation() != nil || (dryRun && loosens(resp.GetChanges())):
		return "to be approved"
	case len(resp.GetChanges()) == 0:
		return "unchanged"
	case dryRun:
		return "would be applied"
	}
	return "applied"
}

// loosens reports whether a change is marked as one that loosens a rule.
func loosens(changes []string) bool {
	for _, c := range changes {
		if strings.Contains(c, "loosens") {
			return true
		}
	}
	return false
}

func (a *app) printApplied(done []applied) error {
	if len(done) == 0 {
		return nil
	}
	return a.print(done, func(w io.Writer) {
		var rows [][]cell
		for _, r := range done {
			rows = append(rows, []cell{text(r.name), text(r.outcome), text(r.GetOperation().GetId()), text(fmt.Sprint(r.GetGroup().GetVersion()))})
		}
		a.columns(w, []string{"GROUP", "OUTCOME", "OPERATION", "VERSION"}, rows)
		for _, r := range done {
			for _, change := range r.GetChanges() {
				_, _ = fmt.Fprintf(w, "%s: %s\n", r.name, oneLine(change))
			}
		}
	})
}

func (a *app) groupListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the groups", Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.ListGroups, &writv1.ListGroupsRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { a.printGroups(w, list.GetGroups()) })
		},
	}
}

func (a *app) getGroup(ctx context.Context, name string) (*writv1.Group, error) {
	return askRegions(ctx, a.each, writv1.RegionServiceClient.GetGroup, &writv1.GetGroupRequest{Name: name})
}

func (a *app) groupGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show what a group is told to be", Args: arguments("NAME"),
		Long: `Show what a group is told to be. "writ group status" shows how its regions are.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := a.getGroup(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(g, func(w io.Writer) { a.printGroupSpec(w, g) })
		},
	}
}

func (a *app) groupStatusCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "status NAME", Short: "Show how a group and its regions are", Args: arguments("NAME"),
		Long: `Show how a group and its regions are: what their agents said last, and how long ago. Unknown is a region of which nothing
was heard, or not recently; it says nothing of whether it works.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			show := func(ctx context.Context) (proto.Message, func(io.Writer), error) {
				g, err := a.getGroup(ctx, args[0])
				return g, func(w io.Writer) { a.printGroup(w, g) }, err
			}
			if follow {
				return a.again(cmd.Context(), statusEvery, show)
			}
			g, table, err := show(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(g, table)
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "again every 2 s, until Ctrl-C")
	return cmd
}

// again shows something time after time, and goes on where nobody answers: that is when somebody watches.
func (a *app) again(ctx context.Context, every time.Duration, show func(context.Context) (proto.Message, func(io.Writer), error)) error {
	const clear = "\x1b[H\x1b[2J"
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		data, table, err := show(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, lease.ErrNotFound), errors.Is(err, lease.ErrDenied), errors.Is(err, lease.ErrInvalid):
			return err
		case err != nil:
			a.say("%s", oneLine(err.Error()))
		default:
			var page strings.Builder
			if a.colours() {
				page.WriteString(clear) // the page before
			}
			table(&page)
			if err := a.printNext(data, page.String()); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (a *app) groupRemoveCommand() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NAME --reason REASON",
		Short: "Forget a group; its tenure ends and is fenced",
		Long: `Forget a group. Its tenure ends, and guards refuse whoever wrote under it. It has to be approved like a change that loosens a
rule; the exit code is 6 until then.

On a terminal the name has to be typed; elsewhere --yes has to be given.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return lease.Invalid("--reason", "is missing", "say why; it stands in the audit log")
			}
			if err := a.confirm(cmd.Context(), "Nobody may write under the tenure of "+args[0]+" any more.", args[0], yes); err != nil {
				return err
			}
			resp, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.RemoveGroup, &writv1.RemoveGroupRequest{Name: args[0], Reason: reason})
			if err != nil {
				return err
			}
			id := resp.GetOperation().GetId()
			if id == "" {
				return a.print(resp, func(w io.Writer) { _, _ = fmt.Fprintln(w, "removed", args[0]) })
			}
			if err := a.print(resp, func(w io.Writer) { a.printOperation(w, resp.GetOperation()) }); err != nil {
				return err
			}
			e := lease.Errorf(lease.ReasonPending, "has to be approved before it happens: %s", id)
			e.Fix = "have it signed with writ promote approve " + id + ", then writ promote execute " + id
			return e
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	yesFlag(cmd, &yes)
	return cmd
}
