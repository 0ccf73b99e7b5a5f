package audit_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
)

// What a bundle rests on is shown, and held against what an auditor knows.
func TestTheFirstApproversAreThoseThatAreKnown(t *testing.T) {
	s := promotion(t)
	known := proto.CloneOf(s.set)
	s.approvers([]string{"ann", "bob", "cy"}, "cy")
	report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(1))))
	if err != nil {
		t.Fatal(err)
	}
	first, last := report.FirstApprovers, report.LastApprovers
	if first == nil || first.Sequence != 1 || first.Version != 1 || len(first.People) != 3 || last.Version != 2 || !last.People[2].Keys[0].Revoked {
		t.Fatalf("approvers %+v, at last %+v", first, last)
	}
	if k := first.People[0].Keys[0]; k.Fingerprint != ssh.FingerprintSHA256(s.key("ann").PublicKey()) || k.Type != "ssh-ed25519" || k.Revoked {
		t.Errorf("ann's key is %+v", k)
	}
	for name, c := range map[string]struct {
		change func(*writv1.ApproverSet)
		want   string // empty: it is the same
	}{
		"the same": {func(*writv1.ApproverSet) {}, ""},
		"of another version, in another order, with comments": {func(set *writv1.ApproverSet) {
			set.Version = 7
			slices.Reverse(set.Approvers)
			set.Approvers[0].Keys[0].PublicKey += " laptop"
		}, ""},
		"one more":       {func(set *writv1.ApproverSet) { set.Approvers = set.Approvers[:2] }, `"cy" is not among the given ones`},
		"one less":       {func(set *writv1.ApproverSet) { set.Approvers = append(set.Approvers, &writv1.Approver{Name: "dan"}) }, `"dan" is missing`},
		"another key":    {func(set *writv1.ApproverSet) { set.Approvers[1].Keys = set.Approvers[2].Keys }, `"bob" has other keys`},
		"revoked":        {func(set *writv1.ApproverSet) { set.Approvers[1].Keys[0].Revoked = true }, `"bob" has other keys`},
		"other roles":    {func(set *writv1.ApproverSet) { set.Approvers[1].Roles = []string{"dba"} }, `"bob" has other roles`},
		"another rule":   {func(set *writv1.ApproverSet) { set.Rule.People = 3 }, "the rule"},
		"those of later": {func(set *writv1.ApproverSet) { proto.Reset(set); proto.Merge(set, s.set) }, `"cy" has other keys`},
	} {
		t.Run(name, func(t *testing.T) {
			given := proto.CloneOf(known)
			c.change(given)
			_, err := audit.Verifier{Approvers: given}.Verify(bytes.NewReader(export(t, s.source(1))))
			if (c.want == "") != (err == nil) || (err != nil && (!errors.Is(err, audit.ErrBroken) || !strings.Contains(err.Error(), c.want))) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	// Behind a cut the oldest set that is carried counts.
	report, err = audit.Verifier{Approvers: s.set}.Verify(bytes.NewReader(export(t, s.source(uint64(len(s.records)+1)))))
	if err == nil || !report.FirstApprovers.Context || report.FirstApprovers.Version != 1 {
		t.Errorf("behind everything: %+v, %v", report.FirstApprovers, err)
	}
	if _, err = (audit.Verifier{Approvers: known}).Verify(bytes.NewReader(export(t, s.source(uint64(len(s.records)+1))))); err != nil {
		t.Errorf("behind everything: %v", err)
	}
	none := newStory(t)
	none.add("grant", "x", nil)
	if _, err = (audit.Verifier{Approvers: known}).Verify(bytes.NewReader(export(t, none.source(1)))); err == nil || !strings.Contains(err.Error(), "no approvers") {
		t.Errorf("without any: %v", err)
	}
}

// Keys that are given as trusted have to have signed something.
func TestTrustedKeysHaveToHaveSigned(t *testing.T) {
	s := promotion(t)
	stranger, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		signer *fence.Signer
		ok     bool
	}{{s.signers[0], true}, {s.signers[1], true}, {stranger, false}} {
		keys, err := fence.NewKeySet(c.signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		_, err = audit.Verifier{Trusted: keys}.Verify(bytes.NewReader(export(t, s.source(1))))
		if c.ok != (err == nil) || (err != nil && !strings.Contains(err.Error(), "no head on the chain is signed with a key that is trusted")) {
			t.Errorf("with the key of the stranger %v: %v", !c.ok, err)
		}
	}
}

// The approvers that are in force have to be those that were signed, by the rule of those before them.
func TestApproversChangeOnlyAsTheySigned(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(s *story) uint64 // the bad record; 0: none
		want string
	}{
		"as signed": {func(s *story) uint64 {
			s.approvers([]string{"ann", "cy"})
			s.approvers([]string{"ann", "cy", "dan"})
			return 0
		}, ""},
		"another set": {func(s *story) uint64 {
			next := s.setOf([]string{"ann", "cy"})
			s.proposeSet("approvers-1.2", next)
			s.approve("approvers-1.2", "ann")
			s.approve("approvers-1.2", "bob")
			s.execute("approvers-1.2")
			return s.change(s.setOf([]string{"ann", "eve"}), "approvers-1.2")
		}, "not those in the document"},
		"another rule in it": {func(s *story) uint64 {
			next := s.setOf([]string{"ann", "cy", "dan"})
			s.proposeSet("approvers-1.2", next)
			s.approve("approvers-1.2", "ann")
			s.approve("approvers-1.2", "bob")
			s.execute("approvers-1.2")
			next.Rule = &writv1.ApprovalRule{People: 3}
			return s.change(next, "approvers-1.2")
		}, "not those in the document"},
		"nobody asked":         {func(s *story) uint64 { return s.change(s.setOf([]string{"ann", "eve"}), "") }, "not executed right before"},
		"not executed":         {func(s *story) uint64 { return s.change(s.setOf([]string{"ann", "eve"}), "approvers-1.2") }, "not executed right before"},
		"by another operation": {func(s *story) uint64 { return s.executedSet("approvers-1.3", "people") }, "not executed right before"},
		"and nothing came":     {func(s *story) uint64 { s.executedSet("", "people"); return s.propose("p-1.1") }, "the approvers have not changed"},
		"by a rule of its own": {func(s *story) uint64 { return s.executedSet("", "none") }, "another rule"},
		"with one signature":   {func(s *story) uint64 { return s.executedSet("", "one") }, "without what its rule asks for"},
		"twice by an operation": {func(s *story) uint64 {
			s.approvers([]string{"ann", "cy"})
			return s.change(s.setOf([]string{"ann", "eve"}), "approvers-1.2")
		}, "not executed right before"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.approvers([]string{"ann", "bob", "cy"})
			want := c.tell(s)
			_, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(1))))
			if want == 0 && err == nil {
				return
			}
			var bad *audit.BundleError
			if !errors.As(err, &bad) || bad.Sequence != want || !strings.Contains(bad.Problem, c.want) {
				t.Errorf("found %v, want record %d: %s", err, want, c.want)
			}
		})
	}
}

// executedSet has a change of the approvers executed; then tells of it as that of another operation, if one is named.
func (s *story) executedSet(named, how string) uint64 {
	s.t.Helper()
	next := s.setOf([]string{"ann", "cy"})
	s.proposeSet("approvers-1.2", next)
	s.approve("approvers-1.2", "ann")
	if how == "people" {
		s.approve("approvers-1.2", "bob")
	}
	rule := map[string]string{"none": `{"none":true}`}[how]
	if rule == "" {
		rule = `{"people":2}`
	}
	at := s.add("operation.execute", "approvers-1.2", map[string]string{"rule": rule})
	if named != "" {
		return s.change(next, named)
	}
	return at
}

// The approvers change while an operation is open: wherever the chain is cut, each signature is judged by those of its time, and
// who approved the tenure in force is known.
func TestWhoApprovedIsKnownBehindEveryCut(t *testing.T) {
	s := newStory(t)
	s.approvers([]string{"ann", "bob", "cy"})
	s.propose("orders-db-1.1")
	s.approve("orders-db-1.1", "ann")
	s.approve("orders-db-1.1", "bob")
	s.propose("orders-db-1.2")
	s.approve("orders-db-1.2", "cy")
	s.execute("orders-db-1.1")
	s.add("tenure.fence", "orders-db", map[string]string{"token": token1})
	s.add("tenure.grant", "orders-db", map[string]string{"token": token1, "region": "us", "promotion": "orders-db-1.1"})
	granted := s.at
	s.approvers([]string{"ann", "dan"}) // bob and cy may approve nothing any more
	s.add("operation.cancel", "orders-db-1.2", nil)
	s.add("grant", "other", map[string]string{"token": token1})
	s.add("end", "other", map[string]string{"token": token1})
	for cut := range len(s.records) + 1 {
		report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(uint64(cut+1)))))
		if err != nil {
			t.Errorf("cut behind %d: %v", cut, err)
		}
		signatures := 0
		for _, stored := range s.records[cut:] {
			signatures += bytes.Count(stored, []byte(`"action":"operation.approve"`))
		}
		if report.Signatures != signatures { // what is only context counts in the bundle that has it
			t.Errorf("cut behind %d: %d signatures, want %d", cut, report.Signatures, signatures)
		}
		for _, o := range report.Operations {
			if o.Unchecked != "" || o.Sequence <= uint64(cut) {
				t.Errorf("cut behind %d: %+v", cut, o)
			}
		}
		for _, u := range report.Unchecked {
			if !strings.Contains(u, "does not vouch") && !strings.Contains(u, "not covered") {
				t.Errorf("cut behind %d: %s", cut, u)
			}
		}
		got := s.whoBehind(cut, granted.Add(time.Hour))
		if len(got.Writable) != 1 || strings.Join(got.Writable[0].ApprovedBy, " ") != "ann bob" {
			t.Errorf("cut behind %d: %+v", cut, got.Writable)
		}
	}
	// What is not needed any more is not carried.
	if n := len(s.source(uint64(len(s.records) + 1)).Context); n != 7 { // two sets, a document, two signatures, an execution, a tenure
		t.Errorf("%d records are carried", n)
	}
}

func (s *story) whoBehind(cut int, at time.Time) audit.Answer {
	s.t.Helper()
	var all []audit.Record
	for _, stored := range append(slices.Clone(s.source(uint64(cut+1)).Context), s.records[cut:]...) {
		r, err := audit.Parse(stored)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, r)
	}
	return audit.Who("orders-db", at, uint64(cut), slices.Values(all))
}

// A promotion that no tenure rests on any more is forgotten, however many there were.
func TestOldPromotionsAreNotCarried(t *testing.T) {
	s := newStory(t)
	s.approvers([]string{"ann", "bob"})
	for _, id := range []string{"orders-db-1.1", "orders-db-1.2", "orders-db-1.3"} {
		s.propose(id)
		s.approve(id, "ann")
		s.approve(id, "bob")
		s.execute(id)
		s.add("tenure.fence", "orders-db", map[string]string{"token": token2})
		s.add("tenure.grant", "orders-db", map[string]string{"token": token2, "promotion": id})
	}
	var targets []string
	for _, stored := range s.source(uint64(len(s.records) + 1)).Context {
		r, err := audit.Parse(stored)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, r.Target)
	}
	if got := strings.Join(targets, " "); got != "approvers orders-db-1.3 orders-db-1.3 orders-db-1.3 orders-db-1.3 orders-db" {
		t.Errorf("carried: %s", got)
	}
}
