package gate_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence/gate"
)

// Nobody is told that a certificate is in force before it admits the first write.
func TestOpeningIsToldWhenItIsDurable(t *testing.T) {
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
