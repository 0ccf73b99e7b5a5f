package gate_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence/gate"
)

// openGlass makes a guard that has lost its quorum and takes a certificate for "bill", which is yet to become durable.
func openGlass(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, nil, gate.State{})
	r.step(gate.Connected{})
	r.hear(&writv1.GuardResponse{Id: r.sent(isEnrol).GetId(), Say: &writv1.GuardResponse_Enrolled{Enrolled: &writv1.GuardEnrolled{
		Lease: durationpb.New(leaseG), Base: uint64(tok(1)), Floors: []*writv1.GuardFloor{{Resource: "bill", Token: uint64(tok(7))}}, Rules: rules(1, closing("bill")),
		Issuer: "quorum", Incarnation: "i1", Epoch: 1,
	}}})
	r.store()
	r.step(gate.Disconnected{})
	r.pass(2*leaseG + slackW)
	r.store()
	wall := time.Unix(1_800_000_000, 0)
	err := r.gate.BreakGlass(r.now, wall, gate.Certificate{
		ID: "c1", Cluster: "quorum", Incarnation: "i1", Epoch: 1, Guards: []string{"g1"}, Created: wall, Expires: wall.Add(time.Hour),
		Grants: []gate.CertificateGrant{{Resource: "bill", Region: "eu", Token: tok(7), After: tok(7)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.take(r.gate.Take())
	return r
}

// Nobody is told that a certificate is in force before it admits the first write.
func TestOpeningIsToldWhenItIsDurable(t *testing.T) {
	r := openGlass(t)
	if list := r.gate.Status().Openings; len(list) != 0 || r.gate.InForce("c1") {
		t.Errorf("not durable yet, and told: %+v", list)
	}
	if err := r.admitNow("bill", tok(7)); err == nil {
		t.Fatal("a write was admitted before the certificate was durable")
	}
	r.store()
	if list := r.gate.Status().Openings; len(list) != 1 || list[0].Closed != "" || !r.gate.InForce("c1") {
		t.Errorf("durable, and told: %+v", list)
	}
	if err := r.admitNow("bill", tok(7)); err != nil {
		t.Errorf("under the certificate: %v", err)
	}
}

// A writ for a newer token shows that a quorum has granted it: what the certificate let go is broken off there and then, not
// when something else happens to this guard.
func TestANewerWritEndsWhatACertificateLetGo(t *testing.T) {
	r := openGlass(t)
	r.store()
	under, a, err := r.admit("bill", tok(7))
	if a != gate.Go {
		t.Fatal(err)
	}
	if _, a, _ := r.admit("bill", tok(8)); a != gate.Refuse {
		t.Error("a write goes on without contact")
	}
	if !slices.Contains(r.cut, under) {
		t.Error("what is under way goes on")
	}
	r.store()
	if list := r.gate.Openings(); len(list) != 1 || list[0].Closed == "" {
		t.Errorf("the opening is %+v", list)
	}
}
