//writ:core

package region

import (
	"cmp"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// Contradicted says that a guard has met the quorum which people had opened without one. Where the quorum has fenced or granted
// since what their certificate knew of, two regions may have written.
type Contradicted struct{ lease.Reported }

func (Contradicted) machineEvent() {}

// Approvers are the people who may approve; nil: there are none. They are replaced, never changed.
func (x *Machine) Approvers() *writv1.ApproverSet { return x.approvers }

func inConflict(g *group) bool { return g.rec.State == writv1.GroupState_GROUP_STATE_CONFLICT }

// endsConflict says whether a promotion is one with which people name the primary.
func endsConflict(rec *writv1.Promotion) bool {
	return rec.Mode == writv1.PromotionMode_PROMOTION_MODE_RECOVER
}

// contradicted puts a group into CONFLICT if the certificate's side was not the only one. The region that has the tenure goes
// on: every guard compares its token. Which of the two is right, people say.
func (x *Machine) contradicted(m lease.Moment, r Contradicted) {
	for _, name := range x.names {
		g := x.groups[name]
		if resourceOf(g.rec.Spec) != r.Resource || g.rec.State == writv1.GroupState_GROUP_STATE_REMOVING {
			continue
		}
		t := x.tenures.Tenure(r.Resource)
		newest := t.Token
		if t.Fencing != 0 && t.Fencing.Epoch() == r.After.Epoch() {
			newest = t.Fencing
		}
		if newest > r.After && newest != r.Token {
			x.conflict(m, g, r, newest)
		}
		return
	}
}

func (x *Machine) conflict(m lease.Moment, g *group, r Contradicted, newest fence.Token) {
	other := cmp.Or(g.rec.Primary, g.rec.LastPrimary)
	what := fmt.Sprintf("certificate %s at guard %s", r.Certificate, r.Guard)
	for _, known := range g.rec.Tails {
		if len(known.Entries) > 0 && known.Entries[0] == what {
			return // it is told again
		}
	}
	wrote := fmt.Sprintf("%d writes were admitted", r.Admitted)
	if r.Admitted > 0 {
		wrote += fmt.Sprintf(", from %s to %s by the guard's clock", r.First.UTC().Format(time.RFC3339Nano), r.Last.UTC().Format(time.RFC3339Nano))
	}
	tails := []*writv1.Tail{{From: r.Region, To: other, Token: uint64(r.Token), Entries: []string{what, wrote}}}
	if v := x.view(g, r.Region); v != nil {
		tails[0].LastOfFrom = v.report.GetPosition()
	}
	if other != "" && other != r.Region && len(g.rec.Tails) == 0 {
		second := &writv1.Tail{From: other, To: r.Region, Token: uint64(newest), Entries: []string{fmt.Sprintf("what the quorum let %s write under %v", other, newest)}}
		if v := x.view(g, other); v != nil {
			second.LastOfFrom = v.report.GetPosition()
		}
		tails = append(tails, second)
	}
	x.changeGroup(g, func(rec *writv1.Group) {
		rec.State, rec.Tails, rec.Since = writv1.GroupState_GROUP_STATE_CONFLICT, append(rec.Tails[:len(rec.Tails):len(rec.Tails)], tails...), timestamppb.New(m.Wall)
	})
	x.forgetEvidence(m, g)
	x.wake(m.Now)
	x.note(lease.Note{
		Actor: "quorum", Action: "group.conflict", Target: g.name, Reason: "a guard was opened by a certificate, and the quorum went on as well",
		Detail: map[string]string{
			"certificate": r.Certificate, "guard": r.Guard, "region": r.Region, "token": r.Token.Decimal(), "after": r.After.Decimal(),
			"other": other, "other_token": newest.Decimal(), "admitted": fmt.Sprint(r.Admitted),
		},
	})
}
