package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

type verifyFlags struct {
	name, resource string
	zombie         bool
	// token of the canaries; 0: an old one. quiet: what nodes do not answer is not told.
	token uint64
	quiet bool
}

func (a *app) guardVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [NAME]",
		Short: "See that guards are in contact, and that they refuse old tokens",
		Long: `See that guards are enrolled, have a guard lease, and have no alarms. With --zombie every node sends a canary with an old
token through each guard that is connected to it, the way that writes take but not on to the storage: a guard that does not
refuse it, or that is connected to no node, is not in order.

Exit code 0: all are in order; 2: some are not, or there is none; 5: nobody could be asked.`,
		Args: arguments("[NAME]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.name = strings.Join(args, "")
			return a.verifyGuards(cmd.Context(), f)
		},
	}
	cmd.Flags().BoolVar(&f.zombie, "zombie", false, "send a canary with an old token through each")
	cmd.Flags().StringVar(&f.resource, "resource", "", "only guards that cover this `name`, which the canary pretends to write")
	return cmd
}

// guardCheck is what is found out of one guard.
type guardCheck struct {
	guard    string
	problems []string
	verdict  *writv1.GuardVerdict // nil without a canary
}

// MarshalJSON uses the field names of the API.
func (c *guardCheck) MarshalJSON() ([]byte, error) {
	out := struct {
		Guard    string          `json:"guard"`
		OK       bool            `json:"ok"`
		Problems []string        `json:"problems,omitempty"`
		Verdict  json.RawMessage `json:"verdict,omitempty"`
	}{Guard: c.guard, OK: len(c.problems) == 0, Problems: c.problems}
	if c.verdict != nil {
		var err error
		if out.Verdict, err = marshal(c.verdict); err != nil {
			return nil, err
		}
	}
	return json.Marshal(out)
}

func (a *app) verifyGuards(ctx context.Context, f verifyFlags) error {
	list, err := a.guards(ctx, &writv1.ListGuardsRequest{Resource: f.resource})
	if err != nil {
		return err
	}
	checks := make(map[string]*guardCheck)
	for _, g := range list.GetGuards() {
		if f.name == "" || f.name == g.GetName() {
			checks[g.GetName()] = &guardCheck{guard: g.GetName(), problems: problemsOf(g)}
		}
	}
	if f.zombie {
		verdicts, err := a.canaries(ctx, f)
		if err != nil {
			return err
		}
		judgeGuards(checks, verdicts)
	}
	return a.printChecks(f, slices.SortedFunc(maps.Values(checks), func(x, y *guardCheck) int { return cmp.Compare(x.guard, y.guard) }))
}

// problemsOf is what the coordinator knows to be wrong with a guard.
func problemsOf(g *writv1.Guard) (problems []string) {
	switch {
	case g.GetState() != writv1.GuardState_GUARD_STATE_ENROLLED && g.GetNeverLapses():
		problems = append(problems, "it is out, and its storage goes on by itself: raises wait for it")
	case g.GetState() != writv1.GuardState_GUARD_STATE_ENROLLED:
		problems = append(problems, "it is out")
	case g.GetLeaseLeft().AsDuration() <= 0:
		problems = append(problems, "its guard lease is over")
	}
	if n := len(g.GetAlarms()); n > 0 {
		problems = append(problems, fmt.Sprintf("it has alarms: %d", n))
	}
	if g.GetWarning() != "" {
		problems = append(problems, oneLine(g.GetWarning()))
	}
	return problems
}

// judgeGuards adds what became of canaries. Where a guard was asked more than once, every canary must have been refused.
func judgeGuards(checks map[string]*guardCheck, verdicts []*writv1.GuardVerdict) {
	for _, v := range verdicts {
		c := checks[v.GetGuard()]
		if c == nil {
			c = &guardCheck{guard: v.GetGuard(), problems: []string{"it is connected, but not enrolled"}}
			checks[v.GetGuard()] = c
		}
		if c.verdict == nil || c.verdict.GetRefused() {
			c.verdict = v
		}
	}
	for _, c := range checks {
		switch {
		case c.verdict == nil:
			c.problems = append(c.problems, "it is connected to no node that answers")
		case !c.verdict.GetRefused():
			c.problems = append(c.problems, "it did not refuse: "+oneLine(c.verdict.GetDetail()))
		}
	}
}

// canaries has every node send canaries to the guards that are connected to it.
func (a *app) canaries(ctx context.Context, f verifyFlags) ([]*writv1.GuardVerdict, error) {
	st, err := a.status(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	creds, err := transport(cfg)
	if err != nil {
		return nil, err
	}
	type answer struct {
		node     string
		verdicts []*writv1.GuardVerdict
		err      error
	}
	answers := make([]answer, len(st.GetNodes()))
	var all sync.WaitGroup
	for i, n := range st.GetNodes() {
		answers[i].node = n.GetName()
		all.Go(func() {
			answers[i].err = ask(ctx, n.GetApiAddress(), creds, a.timeout, func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := writv1.NewFenceServiceClient(conn).VerifyGuards(ctx, &writv1.VerifyGuardsRequest{Name: f.name, Resource: f.resource, Token: f.token})
				answers[i].verdicts = resp.GetVerdicts()
				return err
			})
		})
	}
	all.Wait()
	var verdicts []*writv1.GuardVerdict
	silent := 0
	for _, r := range answers {
		switch {
		case r.err == nil:
			verdicts = append(verdicts, r.verdicts...)
		case errors.Is(r.err, lease.ErrDenied), errors.Is(r.err, lease.ErrInvalid), ctx.Err() != nil:
			return nil, r.err
		default:
			if silent++; f.quiet {
				continue
			}
			a.say("node %s could not be asked: %s", r.node, oneLine(trouble(r.err)))
		}
	}
	if silent == len(answers) {
		return nil, lease.Errorf(lease.ReasonNoQuorum, "none of %d nodes could be asked to send a canary", silent)
	}
	return verdicts, nil
}

// printChecks prints, and fails unless all is in order.
func (a *app) printChecks(f verifyFlags, checks []*guardCheck) error {
	var wrong []string
	for _, c := range checks {
		if len(c.problems) > 0 {
			wrong = append(wrong, oneLine(c.guard))
		}
	}
	err := a.print(map[string]any{"checks": append([]*guardCheck{}, checks...)}, func(w io.Writer) {
		var rows [][]cell
		for _, c := range checks {
			state := cell{"in order", good}
			if len(c.problems) > 0 {
				state = cell{strings.Join(c.problems, "; "), bad}
			}
			row := []cell{text(oneLine(c.guard)), state}
			if f.zombie {
				row = append(row, canaryCells(c.verdict)...)
			}
			rows = append(rows, row)
		}
		heading := []string{"NAME", "STATE"}
		if f.zombie {
			heading = append(heading, "RESOURCE", "TOKEN", "CANARY")
		}
		a.columns(w, heading, rows)
	})
	switch {
	case err != nil:
		return err
	case len(checks) == 0 && f.name != "":
		return lease.Errorf(lease.ReasonNotGuarded, "no guard %s is enrolled%s", oneLine(f.name), covering(f))
	case len(checks) == 0:
		return lease.Errorf(lease.ReasonNotGuarded, "no guard is enrolled%s", covering(f))
	case len(wrong) > 0:
		return lease.Errorf(lease.ReasonNotGuarded, "%d of %d guards are not in order: %s", len(wrong), len(checks), strings.Join(wrong, ", "))
	}
	return nil
}

func covering(f verifyFlags) string {
	if f.resource == "" {
		return ""
	}
	return " that covers " + oneLine(f.resource)
}

// canaryCells show a canary, if there was one.
func canaryCells(v *writv1.GuardVerdict) []cell {
	if v == nil {
		return []cell{{}, {}, {"not sent", bad}}
	}
	token := ""
	if v.GetToken() != 0 {
		token = fence.Token(v.GetToken()).String()
	}
	state := cell{"refused", good}
	if !v.GetRefused() {
		state = cell{"not refused", bad}
	}
	return []cell{text(oneLine(v.GetResource())), text(token), state}
}
