//writ:core

package lease

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// What guards are told so that people can open them when there is no quorum any more, and what they tell when they meet one
// again.

// quorumFacts are what a guard keeps of its quorum.
type quorumFacts struct {
	incarnation string
	approvers   *writv1.ApproverSet
	encoded     []byte
	version     uint64
}

// SetQuorum says which history the table is of, and who may open guards by a certificate of break-glass; nil: nobody. The set
// is not changed afterwards.
func (t *Table) SetQuorum(incarnation string, approvers *writv1.ApproverSet) {
	q := &t.guards.quorum
	if q.incarnation = incarnation; q.approvers == approvers {
		return
	}
	q.approvers, q.encoded, q.version = approvers, nil, 0
	if approvers == nil {
		return
	}
	told := proto.CloneOf(approvers)
	told.Operations = 0 // it changes nothing of who may sign
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(told)
	if err != nil {
		panic(fmt.Sprintf("lease: approvers: %v", err))
	}
	q.encoded, q.version = encoded, approvers.Version
}

// Reported is what a guard did under a certificate of break-glass.
type Reported struct {
	Guard, GuardRegion string
	Certificate        string
	Group              string
	Resource           Resource
	// Region is the one that the certificate let write, under Token. After is the newest token that its plan knew of.
	Region       string
	Token, After fence.Token
	Admitted     uint64
	First, Last  time.Time
}

// TakeReported answers what guards have reported since the last call.
func (t *Table) TakeReported() []Reported {
	list := t.guards.reported
	t.guards.reported = nil
	return list
}

// reportOpenings puts on record what an enrolling guard did without a quorum.
func (t *Table) reportOpenings(g *guard, list []*writv1.GuardOpening) {
	for _, o := range list {
		r := Reported{
			Guard: g.rec.Name, GuardRegion: g.rec.Region, Certificate: o.GetCertificate(), Group: o.GetGroup(), Resource: Resource(o.GetResource()),
			Region: o.GetRegion(), Token: fence.Token(o.GetToken()), After: fence.Token(o.GetAfter()), Admitted: o.GetAdmitted(),
		}
		detail := map[string]string{
			"certificate": r.Certificate, "group": r.Group, "resource": string(r.Resource), "region": r.Region,
			"token": r.Token.Decimal(), "after": r.After.Decimal(), "admitted": fmt.Sprint(r.Admitted),
			"opened_at": o.GetOpenedAt().AsTime().Format(time.RFC3339Nano), "closed_at": o.GetClosedAt().AsTime().Format(time.RFC3339Nano),
		}
		if r.Admitted > 0 {
			r.First, r.Last = o.GetFirstAt().AsTime(), o.GetLastAt().AsTime()
			detail["first_at"], detail["last_at"] = r.First.Format(time.RFC3339Nano), r.Last.Format(time.RFC3339Nano)
		}
		t.note(Note{Actor: g.rec.Principal, Action: "guard.breakglass", Target: g.rec.Name, Reason: o.GetClosed(), Detail: detail})
		t.guards.reported = append(t.guards.reported, r)
	}
}

func checkOpenings(list []*writv1.GuardOpening) *Error {
	if len(list) > maxGuardOpenings {
		return Invalid("openings", fmt.Sprintf("has %d entries", len(list)), fmt.Sprintf("use at most %d", maxGuardOpenings))
	}
	for i, o := range list {
		for _, f := range []struct {
			name, text string
			most       int
		}{
			{"certificate", o.GetCertificate(), 128}, {"group", o.GetGroup(), MaxTenureGroupBytes}, {"resource", o.GetResource(), MaxResourceBytes},
			{"region", o.GetRegion(), MaxRegionBytes}, {"closed", o.GetClosed(), MaxReasonBytes},
		} {
			if err := checkText(fmt.Sprintf("openings[%d].%s", i, f.name), f.text, f.most); err != nil {
				return err
			}
		}
		if !fence.Token(o.GetToken()).Valid() || fence.Token(o.GetAfter()) > fence.Token(o.GetToken()) {
			return Invalid(fmt.Sprintf("openings[%d].token", i), fmt.Sprintf("is %d, after %d", o.GetToken(), o.GetAfter()), "tell what the certificate said")
		}
	}
	return nil
}

const maxGuardOpenings = 256
