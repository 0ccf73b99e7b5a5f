package lease

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// What table scenarios say of guards and of tenures.

// guarding reads a command of a guard or of who looks after guards.
func (d *tableDriver) guarding(name string, plain []string) (string, Command) {
	admin := Caller{Principal: "admin"}
	switch name {
	case "rule":
		rule := &writv1.GuardingRule{Prefix: plain[0], Isolation: writv1.Isolation_ISOLATION_CLOSE}
		if plain[1] == "open" {
			rule.Isolation = writv1.Isolation_ISOLATION_OPEN
		}
		return "admin", SetGuarding{Caller: admin, Rule: rule, Remove: plain[1] == "none"}
	case "unguard":
		return "admin", RemoveGuard{Caller: admin, Name: plain[0], Attest: len(plain) == 1, Reason: "it is gone"}
	case "ack":
		ref := d.ref(plain[1])
		return plain[0], d.guardCall(plain[0], &writv1.GuardRequest{Ask: &writv1.GuardRequest_Acks{Acks: &writv1.GuardAcks{
			Acks: []*writv1.GuardAck{{Resource: string(ref.Resource), Token: uint64(ref.Token), Proof: writv1.GuardProof_GUARD_PROOF_ACKED}}}}})
	}
	switch plain[1] {
	case "contact":
		return plain[0], d.guardCall(plain[0], &writv1.GuardRequest{Ask: &writv1.GuardRequest_Contact{
			Contact: &writv1.GuardContact{RulesVersion: d.rules.GetVersion()}}})
	case "leave":
		return plain[0], d.guardCall(plain[0], &writv1.GuardRequest{Ask: &writv1.GuardRequest_Leave{Leave: &writv1.GuardLeave{}}})
	}
	return plain[0], d.guardCall(plain[0], &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{
		Covers: strings.Split(plain[1], ","), Store: plain[0], Slack: durationpb.New(2 * time.Second),
		NeverLapses: slices.Contains(plain[2:], "never-lapses")}}})
}

func (d *tableDriver) guardCall(name string, req *writv1.GuardRequest) GuardCall {
	req.Guard, req.Session = name, name
	return GuardCall{Caller: Caller{Principal: "guards"}, Request: req}
}

// tenure does what a failover group does.
func (d *tableDriver) tenure(name string, plain []string) {
	m, resource := Moment{Now: d.now, Wall: time.UnixMilli(int64(d.now) / 1e6)}, Resource(plain[0])
	said := "done"
	switch name {
	case "claim":
		if err := d.table.ClaimTenure(m, resource, plain[1]); err != nil {
			said = err.Error()
		}
	case "fence":
		said = fmt.Sprintf("fences to %v", d.table.FenceTenure(m, resource))
	case "attest":
		said = fmt.Sprintf("attested: %t", d.table.AttestTenure(m, resource, plain[1]))
	case "answer":
		by := Attestation{Guard: plain[0], Session: plain[1], Operation: "pay-1.1", Actor: "ops", Reason: "it burnt"}
		said = fmt.Sprintf("off the list: %t", d.table.AttestGuard(m, by))
	case "covering":
		g, ok := d.table.CoveringGuard(plain[0])
		said = fmt.Sprintf("on the list: %t, out %t, covers %v", ok, g.Out, g.Tenures)
	case "promote":
		token, ok := d.table.GrantTenure(m, resource, plain[1])
		if said = "not granted"; ok {
			said = fmt.Sprintf("granted under %v", token)
		}
	case "drop":
		d.table.DropTenure(m, resource)
	case "tenure":
		said = d.tellTenure(d.table.Tenure(resource))
	case "guards":
		said = tellTenureGuards(d.table.TenureGuards(resource))
	}
	replies, notes := d.table.TakeLate()
	d.store()
	for _, n := range notes {
		fmt.Fprintf(&d.out, "noted %s of %s", n.Action, n.Target)
		for _, key := range slices.Sorted(maps.Keys(n.Detail)) {
			fmt.Fprintf(&d.out, " %s=%q", key, n.Detail[key])
		}
		d.out.WriteString("\n")
	}
	for _, r := range replies {
		fmt.Fprintf(&d.out, "%s: %s\n", d.calls[r.ID], d.tell(r))
		delete(d.calls, r.ID)
	}
	fmt.Fprintf(&d.out, "%s\n", said)
}

func (d *tableDriver) tellTenure(t Tenure) string {
	if t.Group == "" {
		return "no tenure"
	}
	s := fmt.Sprintf("of group %s, token %v", t.Group, t.Token)
	if t.Held {
		s += ", held by " + t.Region
	}
	if t.Fencing != 0 {
		s += fmt.Sprintf(", fencing to %v", t.Fencing)
	}
	for _, w := range t.Awaits {
		lapses := "never"
		if w.Lapses != clock.Never {
			lapses = w.Lapses.Sub(d.now).String()
		}
		s += fmt.Sprintf(", awaits %s (lapses: %s)", w.Guard, lapses)
	}
	if len(t.Proofs) > 0 {
		s += ", proofs " + proofText(t.Proofs)
	}
	if t.Ready() {
		s += ", ready"
	}
	return s
}

func tellTenureGuards(guards []TenureGuard) string {
	var texts []string
	for _, g := range guards {
		texts = append(texts, fmt.Sprintf("%s: out %t, proved %t, fenceable %t", g.Name, g.Out, g.Proved, g.Fenceable))
	}
	return strings.Join(texts, "\n")
}

func (d *tableDriver) storeGuards() {
	if rules := d.table.DirtyGuards(func(c GuardChange) {
		if d.guards[c.Name] = c.Record; c.Record == nil {
			delete(d.guards, c.Name)
		}
	}); rules != nil {
		d.rules = proto.CloneOf(rules)
		var texts []string
		for _, r := range rules.Rules {
			texts = append(texts, fmt.Sprintf("%q %v", r.Prefix, r.Isolation))
		}
		fmt.Fprintf(&d.out, "stored rules %d: %s\n", rules.Version, strings.Join(texts, ", "))
	}
}

func (d *tableDriver) loadGuards() {
	var records []*writv1.GuardRecord
	for _, name := range slices.Sorted(maps.Keys(d.guards)) {
		records = append(records, d.guards[name])
	}
	d.table.LoadGuards(Moment{Now: d.now}, records, d.rules)
}
