package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) executeCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "execute FILE|ID",
		Short: "Begin a promotion whose signatures are in, or do another operation that has been approved",
		Long: `Begin a promotion whose signatures are in, and follow it; every state and what it waits for is told on standard error. It goes
on by itself: Ctrl-C only ends the following. Other operations happen at once.

Exit code 0: done, or serving with a tail to settle; 2: it ended another way; 6: signatures are missing, or it stands still
until somebody resumes or aborts it; 7: it has expired.`,
		Args: arguments("FILE|ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			return a.execute(cmd.Context(), id, wait)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "follow a promotion to its end")
	return cmd
}

func (a *app) execute(ctx context.Context, id string, wait bool) error {
	op, err := a.operation(ctx, id)
	if err != nil {
		return err
	}
	if op.GetKind() != writv1.OperationKind_OPERATION_KIND_PROMOTION {
		op, err := askRegions(ctx, a.each, writv1.RegionServiceClient.ExecuteOperation, &writv1.ExecuteOperationRequest{Id: id})
		if err != nil {
			return err
		}
		return a.print(op, func(w io.Writer) { a.printOperation(w, op) })
	}
	p, err := askRegions(ctx, a.each, writv1.RegionServiceClient.Execute, &writv1.ExecuteRequest{Id: id})
	if err != nil || !wait {
		return a.shown(p, err)
	}
	p, err = a.followPromotion(ctx, p)
	if ctx.Err() != nil {
		a.say("promotion %s goes on by itself; follow it with: writ promote get %s --watch", id, id)
		return &exitError{code: lease.ExitPending}
	}
	return errors.Join(a.shown(p, nil), err)
}

// document answers what people sign, as it is.
func (a *app) documentCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "document ID", Short: "Print what has to be signed, exactly as it is", Args: arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idOf(args[0])
			if err != nil {
				return err
			}
			op, err := a.operation(cmd.Context(), id)
			if err != nil {
				return err
			}
			if out != "" {
				return a.saveDocument(op, out)
			}
			_, err = a.stdout.Write(op.GetDocument())
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write it to this `file`")
	return cmd
}

const (
	// followWait is how long a call waits for something new: countdowns are to be seen to count.
	followWait = time.Second
	// followTell is how often waits are told again while nothing else happens.
	followTell = 5 * time.Second
)

// followPromotion tells how a promotion goes on, and answers it when it has come to a rest, with what that means. Where nobody
// answers it goes on asking: the promotion does not depend on it. Each look at it is handed to seen.
func (a *app) followPromotion(ctx context.Context, p *writv1.Promotion, seen ...func(*writv1.Promotion)) (*writv1.Promotion, error) {
	var teller teller
	for {
		for _, look := range seen {
			look(p)
		}
		if line := teller.line(p, a.now()); line != "" {
			a.say("%s", line)
		}
		if rests, err := restOf(p); rests {
			return p, err
		}
		req := &writv1.GetPromotionRequest{Id: p.GetId(), AfterRevision: p.GetRevision(), Wait: durationpb.New(followWait)}
		next, err := askRegions(ctx, a.each, writv1.RegionServiceClient.GetPromotion, req)
		switch {
		case ctx.Err() != nil:
			return p, ctx.Err()
		case err == nil:
			p = next
		case lease.ExitCode(err) == lease.ExitUnavailable:
			a.say("%s; promotion %s goes on by itself", oneLine(err.Error()), p.GetId())
		default:
			return p, err
		}
	}
}

// served are the states in which the new primary serves, and nothing but settling the tail is left.
var served = []writv1.PromotionState{
	writv1.PromotionState_PROMOTION_STATE_DEGRADED, writv1.PromotionState_PROMOTION_STATE_RECONCILED, writv1.PromotionState_PROMOTION_STATE_DONE,
}

// failed are the ends that are not what was wanted.
var failed = []writv1.PromotionState{
	writv1.PromotionState_PROMOTION_STATE_CANCELLED, writv1.PromotionState_PROMOTION_STATE_SUPERSEDED,
	writv1.PromotionState_PROMOTION_STATE_VOID, writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK,
}

// restOf reports whether a promotion does not go on by itself, and what that means to whoever executed it.
func restOf(p *writv1.Promotion) (rests bool, err error) {
	reason := ""
	if p.GetReason() != "" {
		reason = ": " + oneLine(p.GetReason())
	}
	switch state := p.GetState(); {
	case p.GetStuck():
		e := lease.Errorf(lease.ReasonPending, "promotion %s stands still in %s%s", p.GetId(), enumText(state), reason)
		e.Fix = fmt.Sprintf("see to it, then writ promote resume %s, or writ promote abort %s", p.GetId(), p.GetId())
		return true, e
	case slices.Contains(served, state):
		return true, nil
	case slices.Contains(failed, state):
		return true, lease.Errorf(lease.ReasonConflict, "promotion %s was not carried through, it is %s%s", p.GetId(), enumText(state), reason)
	case state == writv1.PromotionState_PROMOTION_STATE_EXPIRED:
		return true, lease.Errorf(lease.ReasonExpired, "promotion %s has expired%s", p.GetId(), reason)
	}
	return false, nil
}

// teller decides what is worth a line.
type teller struct {
	said string // the line before, without countdowns
	at   time.Time
}

// line is what there is to tell, "" for nothing new.
func (t *teller) line(p *writv1.Promotion, now time.Time) string {
	what := []string{enumText(p.GetState())}
	if p.GetShifted() > 0 {
		what = append(what, shiftedText(p))
	}
	if p.GetReason() != "" {
		what = append(what, oneLine(p.GetReason()))
	}
	plain, full := slices.Clone(what), slices.Clone(what)
	counting := false
	for _, w := range p.GetWaits() {
		plain, full = append(plain, w.GetWhat()), append(full, "waits for "+waitText(w))
		counting = counting || w.GetLeft() != nil
	}
	said := strings.Join(plain, "; ")
	if said == t.said && (!counting || now.Sub(t.at) < followTell) {
		return ""
	}
	t.said, t.at = said, now
	return fmt.Sprintf("%s: %s", p.GetId(), strings.Join(full, "; "))
}
