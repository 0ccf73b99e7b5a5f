package audit_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/region/approval"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// story is a log in the making.
type story struct {
	t       testing.TB
	records [][]byte
	heads   []audit.Head
	at      time.Time
	keys    map[string]ssh.Signer
	docs    map[string][]byte
	set     *writv1.ApproverSet
	signers []*fence.Signer
	signed  []string
	// requester is who proposes; empty: people do.
	requester string
}

func newStory(t testing.TB) *story {
	return &story{t: t, heads: []audit.Head{{}}, at: noon, keys: map[string]ssh.Signer{}, docs: map[string][]byte{}}
}

func (s *story) head() audit.Head { return s.heads[len(s.heads)-1] }

func (s *story) add(action, target string, detail map[string]string) uint64 {
	s.t.Helper()
	s.at = s.at.Add(time.Second)
	stored, next, err := audit.Append(s.head(), audit.Record{At: s.at, Actor: "spiffe://test/sre", Action: action, Target: target, Detail: detail})
	if err != nil {
		s.t.Fatal(err)
	}
	s.records, s.heads = append(s.records, stored), append(s.heads, next)
	return next.Sequence
}

func (s *story) key(name string) ssh.Signer {
	s.t.Helper()
	if s.keys[name] == nil {
		seed := make([]byte, ed25519.SeedSize)
		copy(seed, name)
		signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
		if err != nil {
			s.t.Fatal(err)
		}
		s.keys[name] = signer
	}
	return s.keys[name]
}

// approvers puts a set in force, the first one or with the signatures of the first two people of the present one; revoke names
// people whose keys are revoked in it.
func (s *story) approvers(people []string, revoke ...string) {
	s.t.Helper()
	next := s.setOf(people, revoke...)
	if s.set == nil {
		s.change(next, "")
		return
	}
	id := fmt.Sprint("approvers-1.", next.Version)
	s.proposeSet(id, next)
	s.approve(id, s.set.Approvers[0].Name)
	s.approve(id, s.set.Approvers[1].Name)
	s.execute(id)
	s.change(next, id)
}

// setOf is the next version of the set.
func (s *story) setOf(people []string, revoke ...string) *writv1.ApproverSet {
	s.t.Helper()
	next := &writv1.ApproverSet{Version: s.set.GetVersion() + 1, Rule: &writv1.ApprovalRule{People: 2}}
	for _, name := range people {
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.key(name).PublicKey())))
		k := &writv1.ApproverKey{PublicKey: line}
		for _, r := range revoke {
			k.Revoked = k.Revoked || r == name
		}
		next.Approvers = append(next.Approvers, &writv1.Approver{Name: name, Keys: []*writv1.ApproverKey{k}})
	}
	return next
}

// change records that a set is in force.
func (s *story) change(next *writv1.ApproverSet, operation string) uint64 {
	s.t.Helper()
	s.set = next
	set, err := protojson.Marshal(next)
	if err != nil {
		s.t.Fatal(err)
	}
	detail := map[string]string{"set": string(set), "version": fmt.Sprint(next.GetVersion())}
	if operation != "" {
		detail["operation"] = operation
	}
	return s.add("approvers.change", "approvers", detail)
}

func (s *story) propose(id string) uint64 {
	s.t.Helper()
	return s.proposeAs(id, approval.KindPromotion, json.RawMessage(`{"to":"us"}`))
}

func (s *story) proposeSet(id string, next *writv1.ApproverSet) uint64 {
	s.t.Helper()
	set, err := approval.Message(next)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.proposeAs(id, approval.KindApproversChange, json.RawMessage(`{"set":`+string(set)+`}`))
}

func (s *story) proposeAs(id, kind string, body json.RawMessage) uint64 {
	s.t.Helper()
	group, _, _ := strings.Cut(id, "-1.")
	doc, err := approval.Document{
		Format: approval.Format, Cluster: "test", Incarnation: "i1", Epoch: 1, ID: id, Kind: kind, Group: group,
		Requester: cmp.Or(s.requester, "spiffe://test/sre"), Created: s.at, Expires: s.at.Add(time.Hour), PolicyVersion: s.set.GetVersion(), Body: body,
	}.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	s.docs[id] = doc
	return s.add("operation.propose", id, map[string]string{
		"document": string(doc), "digest": approval.Digest(doc), "kind": kind, "group": group,
	})
}

func (s *story) signature(id, name, namespace string) string {
	s.t.Helper()
	armored, err := approval.Sign(s.key(name), namespace, s.docs[id])
	if err != nil {
		s.t.Fatal(err)
	}
	return armored
}

func (s *story) approve(id, name string) uint64 {
	s.t.Helper()
	return s.approveAs(id, name, s.signature(id, name, approval.Namespace))
}

func (s *story) approveAs(id, name, armored string) uint64 {
	return s.add("operation.approve", id, map[string]string{
		"approver": name, "key": ssh.FingerprintSHA256(s.key(name).PublicKey()), "signature": armored, "digest": approval.Digest(s.docs[id]),
	})
}

func (s *story) execute(id string) uint64 { return s.executeBy(id, `{"people":2}`) }

func (s *story) executeBy(id, rule string) uint64 {
	return s.add("operation.execute", id, map[string]string{"digest": approval.Digest(s.docs[id]), "rule": rule})
}

func (s *story) executeOnEvidence(id string) uint64 {
	return s.add("operation.execute", id, map[string]string{"digest": approval.Digest(s.docs[id]), "automatic": "true"})
}

// group records that a group has a spec, of which more than its name may be said; operation is that which changed it.
func (s *story) group(name, more, operation string) uint64 {
	detail := map[string]string{"spec": specOf(name, more)}
	if operation != "" {
		detail["operation"] = operation
	}
	return s.add("group.apply", name, detail)
}

func specOf(name, more string) string {
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`{"name":%q%s}`, name, more)
}

// agree has a spec signed by two people, and answers the operation that was executed.
func (s *story) agree(id, name, more string) string {
	s.proposeAs(id, approval.KindGroupChange, json.RawMessage(`{"action":"apply","spec":`+specOf(name, more)+`}`))
	s.approve(id, "ann")
	s.approve(id, "bob")
	s.execute(id)
	return id
}

const (
	freeSwitchover  = `"approvals":{"switchover":{"none":true}}`
	failoverByThree = `"approvals":{"failover":{"people":3}}`
	freeFailover    = `"approvals":{"failover":{"none":true}}`
	euToUs          = `"automatic":[{"from":"eu","to":"us"}]`
	failover        = `{"automatic":false,"from":"eu","mode":"failover","to":"us"}`
	onEvidence      = `{"automatic":true,"from":"eu","mode":"failover","to":"us"}`
)

func (s *story) proposeOnEvidence(id string) {
	s.requester = "quorum"
	s.proposeAs(id, approval.KindPromotion, json.RawMessage(onEvidence))
	s.requester = ""
}

// sign has a node sign a head.
func (s *story) sign(node string, head audit.Head, incarnation string) *fence.Signer {
	s.t.Helper()
	signer, err := fence.GenerateSigner()
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := audit.SignedHead{Node: node, Cluster: "test", Incarnation: incarnation, Head: head, At: s.at}.Sign(signer)
	if err != nil {
		s.t.Fatal(err)
	}
	s.signed, s.signers = append(s.signed, signed), append(s.signers, signer)
	return signer
}

// source is a bundle's, from a record on.
func (s *story) source(from uint64) audit.Source {
	s.t.Helper()
	var public []ed25519.PublicKey
	for _, signer := range s.signers {
		public = append(public, signer.Public())
	}
	set, err := fence.NewKeySet(public...)
	if err != nil {
		s.t.Fatal(err)
	}
	jwks, err := set.MarshalJWKS()
	if err != nil {
		s.t.Fatal(err)
	}
	carry := &audit.Carry{}
	for _, stored := range s.records[:from-1] {
		r, err := audit.Parse(stored)
		if err != nil {
			s.t.Fatal(err)
		}
		carry.Add(r, stored)
	}
	return audit.Source{
		Cluster: "test", Incarnation: "i1", Exported: s.at, Start: s.heads[from-1], Context: carry.Records(), Heads: s.signed, Keys: jwks,
		Records: func(yield func([]byte) bool) {
			for _, stored := range s.records[from-1:] {
				if !yield(stored) {
					return
				}
			}
		},
	}
}

func export(t testing.TB, src audit.Source) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := audit.Export(&out, src); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// promotion is a whole one, with two signatures, seen by two nodes.
func promotion(t testing.TB) *story {
	s := newStory(t)
	s.approvers([]string{"ann", "bob", "cy"})
	s.propose("orders-db-1.1")
	s.approve("orders-db-1.1", "ann")
	s.approve("orders-db-1.1", "bob")
	s.sign("n1", s.head(), "i1")
	s.execute("orders-db-1.1")
	s.add("tenure.fence", "orders-db", map[string]string{"token": "281474976710664", "old_token": "281474976710663"})
	s.add("tenure.grant", "orders-db", map[string]string{"token": "281474976710664", "region": "us", "promotion": "orders-db-1.1", "proofs": "g1=acked"})
	s.sign("n2", s.head(), "i1")
	return s
}

func TestABundleOfAPromotionVerifies(t *testing.T) {
	s := promotion(t)
	report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(1))))
	if err != nil {
		t.Fatal(err)
	}
	if report.Records != 7 || report.Covered != 7 || report.Signatures != 2 || len(report.Unchecked) != 0 || !report.End.Is(s.head()) {
		t.Errorf("found %+v", report)
	}
	if len(report.Operations) != 1 || strings.Join(report.Operations[0].Approvers, " ") != "ann bob" || report.Operations[0].Unchecked != "" {
		t.Errorf("operations: %+v", report.Operations)
	}
	for _, h := range report.Heads {
		if h.State != audit.HeadOnChain || h.Trusted {
			t.Errorf("head %+v", h)
		}
	}
	trusted, err := fence.NewKeySet(s.signers[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	var each []uint64
	verifier := audit.Verifier{Trusted: trusted, Each: func(r audit.Record) { each = append(each, r.Sequence) }}
	report, err = verifier.Verify(bytes.NewReader(export(t, s.source(1))))
	if !slices.Equal(each, []uint64{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("the records were %v", each)
	}
	if err != nil || report.Covered != 4 || len(report.Unchecked) != 1 {
		t.Errorf("with the keys of n1 only: %+v, %v", report, err)
	}
}

// Wherever the chain is cut, the two bundles verify, and one continues the other.
func TestPartsOfALogVerify(t *testing.T) {
	s := promotion(t)
	for from := uint64(1); from <= 8; from++ {
		report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(from))))
		if err != nil {
			t.Errorf("from record %d: %v", from, err)
		}
		if !report.Start.Is(s.heads[from-1]) || report.Records != 8-from {
			t.Errorf("from record %d: %+v", from, report)
		}
		for _, o := range report.Operations {
			if strings.Join(o.Approvers, " ") != "ann bob" || o.Unchecked != "" {
				t.Errorf("from record %d: %+v", from, o)
			}
		}
	}
}

// What only a forger with the quorum's own disks could write is found, and the record named.
func TestWhatMustNotHaveHappenedIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(s *story) uint64 // the bad record
		want string
	}{
		"one signature": {func(s *story) uint64 { s.propose("p-1.1"); s.approve("p-1.1", "ann"); return s.execute("p-1.1") }, "without what its rule asks for"},
		"one person twice": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "ann")
			return s.execute("p-1.1")
		}, "without what its rule asks for"},
		"withdrawn": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			s.add("operation.withdraw", "p-1.1", map[string]string{"approver": "bob"})
			return s.execute("p-1.1")
		}, "without what its rule asks for"},
		"revoked before": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			s.approvers([]string{"ann", "bob", "cy"}, "bob")
			return s.execute("p-1.1")
		}, "without what its rule asks for"},
		"executed twice": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			s.execute("p-1.1")
			return s.execute("p-1.1")
		}, "not open"},
		"expired": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			s.at = s.at.Add(time.Hour)
			return s.execute("p-1.1")
		}, "expired"},
		"signed too late": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.at = s.at.Add(time.Hour)
			return s.approve("p-1.1", "ann")
		}, "expired"},
		"a stranger's key": {func(s *story) uint64 { s.propose("p-1.1"); return s.approve("p-1.1", "eve") }, "no approver has"},
		"another's key": {func(s *story) uint64 {
			s.propose("p-1.1")
			return s.approveAs("p-1.1", "ann", s.signature("p-1.1", "bob", approval.Namespace))
		}, "ann signed"},
		"another's key, and no word of it": {func(s *story) uint64 {
			s.propose("p-1.1")
			return s.add("operation.approve", "p-1.1", map[string]string{"approver": "ann", "signature": s.signature("p-1.1", "bob", approval.Namespace)})
		}, "ann signed"},
		"another namespace": {func(s *story) uint64 {
			s.propose("p-1.1")
			return s.approveAs("p-1.1", "ann", s.signature("p-1.1", "ann", "git"))
		}, "git"},
		"another document": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.at = s.at.Add(time.Second)
			s.propose("p-1.2")
			return s.approveAs("p-1.1", "ann", s.signature("p-1.2", "ann", approval.Namespace))
		}, "not over this document"},
		"another digest": {func(s *story) uint64 {
			s.propose("p-1.1")
			return s.add("operation.execute", "p-1.1", map[string]string{"digest": "00"})
		}, "digest"},
		"nobody proposed it": {func(s *story) uint64 { s.docs["p-1.1"] = []byte("{}"); return s.approve("p-1.1", "ann") }, "not open"},
		"proposed twice":     {func(s *story) uint64 { s.propose("p-1.1"); return s.propose("p-1.1") }, "second time"},
		"older approvers": {func(s *story) uint64 {
			s.set.Version = 0
			s.approvers([]string{"ann", "eve"})
			return s.head().Sequence
		}, "takes the place"},
		"a digest of another document": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.add("operation.cancel", "p-1.1", nil)
			return s.add("operation.propose", "p-1.1", map[string]string{"document": string(s.docs["p-1.1"]), "digest": approval.Digest([]byte("{}"))})
		}, "the digest of its document"},
		"no document": {func(s *story) uint64 { return s.add("operation.propose", "p-1.1", nil) }, "document"},
		"a manual failover on evidence": {func(s *story) uint64 {
			s.group("p", euToUs, s.agree("p-1.1", "p", euToUs))
			s.proposeAs("p-1.2", approval.KindPromotion, json.RawMessage(failover))
			return s.executeOnEvidence("p-1.2")
		}, "not that of an automatic promotion"},
		"people's evidence": {func(s *story) uint64 {
			s.group("p", euToUs, s.agree("p-1.1", "p", euToUs))
			s.proposeAs("p-1.2", approval.KindPromotion, json.RawMessage(onEvidence))
			return s.executeOnEvidence("p-1.2")
		}, "not that of an automatic promotion"},
		"a settlement on evidence": {func(s *story) uint64 {
			s.requester = "quorum"
			s.proposeAs("p-1.1", approval.KindSettlement, json.RawMessage(onEvidence))
			return s.executeOnEvidence("p-1.1")
		}, "not that of an automatic promotion"},
		"on evidence where nothing is automatic": {func(s *story) uint64 {
			s.group("p", "", "")
			s.proposeOnEvidence("p-1.1")
			return s.executeOnEvidence("p-1.1")
		}, "nothing is automatic"},
		"no rule": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			return s.executeBy("p-1.1", "")
		}, "which rule"},
		"a failover by nobody": {func(s *story) uint64 {
			s.group("p", freeSwitchover, s.agree("p-1.1", "p", freeSwitchover))
			s.proposeAs("p-1.2", approval.KindPromotion, json.RawMessage(failover))
			return s.executeBy("p-1.2", `{"none":true}`)
		}, "another rule"},
		"a settlement by nobody": {func(s *story) uint64 {
			s.group("p", freeSwitchover, s.agree("p-1.1", "p", freeSwitchover))
			s.proposeAs("p-1.2", approval.KindSettlement, json.RawMessage(`{"mode":"switchover"}`))
			return s.executeBy("p-1.2", `{"none":true}`)
		}, "another rule"},
		"a loosened rule, by the one for changes": {func(s *story) uint64 {
			s.group("p", failoverByThree, "")
			s.proposeAs("p-1.1", approval.KindGroupChange, json.RawMessage(`{"action":"apply","spec":`+specOf("p", "")+`}`))
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			return s.execute("p-1.1")
		}, "another rule"},
		"a removal, by the rule for changes": {func(s *story) uint64 {
			s.group("p", failoverByThree, "")
			s.proposeAs("p-1.1", approval.KindGroupChange, json.RawMessage(`{"action":"remove"}`))
			s.approve("p-1.1", "ann")
			s.approve("p-1.1", "bob")
			return s.execute("p-1.1")
		}, "another rule"},
		"a guard given up by nobody": {func(s *story) uint64 {
			s.proposeAs("-1.1", approval.KindAttestation, json.RawMessage(`{"guard":"g1"}`))
			return s.executeBy("-1.1", `{"none":true}`)
		}, "not possible here"},
		"a rule for one person": {func(s *story) uint64 {
			s.propose("p-1.1")
			s.approve("p-1.1", "ann")
			return s.executeBy("p-1.1", `{"people":1}`)
		}, "another rule"},
		"a rule that asks for nothing": {func(s *story) uint64 { s.propose("p-1.1"); return s.executeBy("p-1.1", "{}") }, "another rule"},
		"a group that nobody signed":   {func(s *story) uint64 { return s.group("p", freeSwitchover, "") }, "needs signatures"},
		"a direction that nobody signed": {func(s *story) uint64 {
			s.group("p", "", "")
			return s.group("p", euToUs, "")
		}, "needs signatures"},
		"another spec than was signed": {func(s *story) uint64 {
			return s.group("p", freeFailover, s.agree("p-1.1", "p", freeSwitchover))
		}, "not that in the document"},
		"a spec by another operation": {func(s *story) uint64 {
			s.group("p", freeSwitchover, s.agree("p-1.1", "p", freeSwitchover))
			return s.group("p", freeFailover, "p-1.1")
		}, "not executed right before"},
		"a drill of what is real": {func(s *story) uint64 { return s.group("p", `"drill_of":"q","resource":"q"`, "") }, "its resource"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.approvers([]string{"ann", "bob", "cy"})
			want := c.tell(s)
			_, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(1))))
			var bad *audit.BundleError
			if !errors.As(err, &bad) || !errors.Is(err, audit.ErrBroken) || bad.Sequence != want || !strings.Contains(bad.Problem, c.want) {
				t.Errorf("found %v, want record %d: %s", err, want, c.want)
			}
		})
	}
}

// Nobody has to sign switchovers of a group that says so, drills, and what is automatic; wherever the chain is cut, that is known.
func TestWhatNeedsNobodyVerifies(t *testing.T) {
	s := newStory(t)
	s.approvers([]string{"ann", "bob", "cy"})
	s.group("p", "", "")
	loose := freeSwitchover + "," + euToUs
	s.group("p", loose, s.agree("p-1.1", "p", loose))
	s.proposeAs("p-1.2", approval.KindPromotion, json.RawMessage(`{"mode":"switchover"}`))
	s.executeBy("p-1.2", `{"none":true}`)
	s.proposeOnEvidence("p-1.3")
	s.executeOnEvidence("p-1.3")
	s.group("p-drill", `"drill_of":"p","resource":"drill/p",`+freeFailover, "")
	s.proposeAs("p-drill-1.1", approval.KindPromotion, json.RawMessage(failover))
	s.executeBy("p-drill-1.1", `{"none":true}`)
	s.group("p", failoverByThree, "") // to ask for more needs nobody
	s.proposeAs("p-1.5", approval.KindGroupChange, json.RawMessage(`{"action":"apply","spec":`+specOf("p", "")+`}`))
	for _, name := range []string{"ann", "bob", "cy"} {
		s.approve("p-1.5", name)
	}
	s.executeBy("p-1.5", `{"people":3,"valid_for":"3600s"}`)
	s.group("p", "", "p-1.5")
	s.proposeAs("p-1.4", approval.KindGroupChange, json.RawMessage(`{"action":"remove"}`))
	s.approve("p-1.4", "ann")
	s.approve("p-1.4", "bob")
	s.execute("p-1.4")
	s.add("group.remove", "p", map[string]string{"operation": "p-1.4"})
	s.add("group.removed", "p", nil)
	for from := range len(s.records) + 1 {
		report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(uint64(from+1)))))
		if err != nil {
			t.Errorf("behind record %d: %v", from, err)
			continue
		}
		for _, o := range report.Operations {
			if o.Unchecked != "" {
				t.Errorf("behind record %d: %+v", from, o)
			}
		}
		for _, u := range report.Unchecked {
			if !strings.Contains(u, "does not vouch") && !strings.Contains(u, "not covered") {
				t.Errorf("behind record %d: %s", from, u)
			}
		}
	}
}

func TestHeadsThatAreNotOnTheChain(t *testing.T) {
	other := newStory(t)
	other.add("grant", "x", nil)
	other.add("grant", "x", nil)
	rebuild := func(s *story) {
		s.add("quorum.foreign-state", "test", nil)
		s.add("quorum.raise-epoch", "test", map[string]string{"from": "1", "to": "2", "incarnation": "i1"})
	}
	for name, c := range map[string]struct {
		tell func(s *story)
		want string // the problem; empty: none
	}{
		"the log was changed":           {func(s *story) { s.sign("n1", other.heads[2], "i1") }, "the log has been changed"},
		"another history":               {func(s *story) { s.sign("n1", other.heads[2], "i0") }, "no rebuild is recorded"},
		"a history that has ended":      {func(s *story) { rebuild(s); s.sign("n1", other.heads[2], "i0") }, ""},
		"not the one that has ended":    {func(s *story) { rebuild(s); s.sign("n1", other.heads[2], "i1") }, "the log has been changed"},
		"signed later":                  {func(s *story) { s.sign("n1", audit.Head{Sequence: 99, Hash: other.heads[2].Hash}, "i1") }, ""},
		"of a key that nobody tells of": {func(s *story) { s.sign("n1", s.head(), "i1"); s.signers = nil }, "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.add("grant", "a", nil)
			s.add("grant", "b", nil)
			c.tell(s)
			report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(1))))
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q; %+v", err, c.want, report.Heads)
			}
			if strings.HasPrefix(name, "a history") && (len(report.Forks) != 1 || report.Heads[0].State != audit.HeadForked) {
				t.Errorf("the fork is not reported: %+v", report)
			}
		})
	}
}

// member is a file of a bundle.
type member struct {
	name string
	data []byte
}

func members(t testing.TB, bundle []byte) (all []member) {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(bundle))
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(zipped); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, member{h.Name, data})
	}
}

func pack(t testing.TB, all []member) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	for _, m := range all {
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// harmless are the parts of a manifest and of the context that nothing else says.
var harmless = map[string]bool{"manifest.json": true, "jwks.json": true}

// Every change of a byte in what a bundle shows is found.
func TestEveryChangeOfABundleIsFound(t *testing.T) {
	bundle := export(t, promotion(t).source(1))
	all := members(t, bundle)
	if _, err := audit.VerifyBundle(bytes.NewReader(pack(t, all))); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		changed := make([]member, len(all))
		copy(changed, all)
		i := rapid.IntRange(0, len(all)-1).Draw(t, "member")
		switch rapid.SampledFrom([]string{"flip", "drop", "cut", "grow", "swap", "repeat"}).Draw(t, "change") {
		case "flip":
			if len(all[i].data) == 0 || harmless[all[i].name] {
				t.Skip("nothing to flip")
			}
			data := bytes.Clone(all[i].data)
			data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			changed[i].data = data
		case "drop":
			changed = append(changed[:i:i], changed[i+1:]...)
		case "cut":
			if len(all[i].data) == 0 || (all[i].name != "records.jsonl" && harmless[all[i].name]) {
				t.Skip("nothing to cut")
			}
			changed[i].data = all[i].data[:rapid.IntRange(0, len(all[i].data)-1).Draw(t, "to")]
		case "grow":
			changed[i].data = append(bytes.Clone(all[i].data), '{')
		case "swap":
			j := rapid.IntRange(0, len(all)-1).Draw(t, "with")
			if i == j || (i > 4 && j > 4) {
				t.Skip("order does not count there")
			}
			changed[i], changed[j] = changed[j], changed[i]
		case "repeat":
			changed = append(changed, changed[i])
		}
		if _, err := audit.VerifyBundle(bytes.NewReader(packRapid(t, changed))); !errors.Is(err, audit.ErrBroken) {
			t.Fatalf("not found: %v", err)
		}
	})
}

func packRapid(t *rapid.T, all []member) []byte {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	for _, m := range all {
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A changed byte of the file itself is found, or makes no difference to what is in it.
func TestEveryByteOfABundleCounts(t *testing.T) {
	bundle := export(t, promotion(t).source(1))
	want := fmt.Sprint(members(t, bundle))
	for i := range bundle {
		changed := bytes.Clone(bundle)
		changed[i] ^= 0x10
		if _, err := audit.VerifyBundle(bytes.NewReader(changed)); err == nil && fmt.Sprint(members(t, changed)) != want {
			t.Fatalf("changed at %d, it verifies", i)
		}
	}
	for _, cut := range []int{0, 1, 10, len(bundle) / 2, len(bundle) - 1} {
		if _, err := audit.VerifyBundle(bytes.NewReader(bundle[:cut])); !errors.Is(err, audit.ErrBroken) {
			t.Errorf("cut off behind %d bytes: %v", cut, err)
		}
	}
	if _, err := audit.VerifyBundle(bytes.NewReader(append(bundle, 0))); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("with something behind it: %v", err)
	}
}

// Whoever forges a whole chain, with all its hashes, is found by a node's signature.
func TestAForgedChainIsFoundByItsHeads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStory(t)
		n := rapid.IntRange(2, 8).Draw(rt, "records")
		for i := range n {
			s.add("grant", fmt.Sprint("x", i), nil)
		}
		s.sign("n1", s.heads[rapid.IntRange(1, n).Draw(rt, "signed")], "i1")
		signedAt := uint64(0)
		for i, h := range s.heads {
			if i > 0 {
				if report, err := audit.VerifyBundle(bytes.NewReader(export(t, s.source(1)))); err == nil {
					signedAt = report.Covered
				}
			}
			_ = h
		}
		forged := newStory(t)
		at := rapid.IntRange(0, n-1).Draw(rt, "at")
		for i := range n {
			name := fmt.Sprint("x", i)
			if i == at {
				name = "forged"
			}
			forged.add("grant", name, nil)
		}
		forged.signed, forged.signers = s.signed, s.signers
		_, err := audit.VerifyBundle(bytes.NewReader(export(t, forged.source(1))))
		if covered := uint64(at+1) <= signedAt; covered != (err != nil) {
			rt.Fatalf("record %d forged, %d signed: %v", at+1, signedAt, err)
		}
	})
}

// Stock OpenSSH accepts what a bundle holds.
func TestOpenSSHVerifiesWhatABundleHolds(t *testing.T) {
	tool, err := exec.LookPath("ssh-keygen")
	switch {
	case err != nil && os.Getenv("WRIT_CI") == "1":
		t.Fatal("no ssh-keygen: install the package openssh-client")
	case err != nil:
		t.Skip("no ssh-keygen here")
	}
	s := promotion(t)
	s.at = time.Now().Add(-time.Hour)
	s.approvers([]string{"ann", "bob", "cy"}, "bob") // bob's signature was good when it was made
	dir := t.TempDir()
	for _, m := range members(t, export(t, s.source(1))) {
		path := filepath.Join(dir, filepath.FromSlash(m.name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, m.data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(name string, more ...string) error {
		document, err := os.Open(filepath.Join(dir, "documents", "orders-db-1.1.json"))
		if err != nil {
			t.Fatal(err)
		}
		defer document.Close()
		args := append([]string{
			"-Y", "verify", "-f", filepath.Join(dir, "allowed_signers"), "-n", approval.Namespace, "-I", name,
			"-s", filepath.Join(dir, "signatures", "orders-db-1.1."+name+".sig"),
		}, more...)
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Stdin = document
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := verify("ann"); err != nil {
		t.Errorf("ann: %v", err)
	}
	if err := verify("bob"); err == nil {
		t.Error("bob's key is revoked, and counts")
	}
	if err := verify("bob", "-Overify-time="+noon.Add(10*time.Second).Format("20060102150405Z")); err != nil {
		t.Errorf("bob, when he signed: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "documents", "orders-db-1.1.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify("ann"); err == nil {
		t.Error("a changed document verifies")
	}
}

func FuzzVerifyBundle(f *testing.F) {
	s := promotion(f)
	f.Add(export(f, s.source(1)))
	f.Add(export(f, s.source(5)))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := audit.VerifyBundle(bytes.NewReader(data)); err != nil && !errors.Is(err, audit.ErrBroken) {
			t.Errorf("%v is no ErrBroken", err)
		}
	})
}

// The records of a bundle as they come, without the packing that a fuzzer does not get through.
func FuzzVerifyRecords(f *testing.F) {
	s := promotion(f)
	all := members(f, export(f, s.source(5)))
	for _, m := range all {
		f.Add(m.name, m.data)
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		changed := make([]member, len(all))
		copy(changed, all)
		same := true
		for i := range changed {
			if changed[i].name == name {
				same = bytes.Equal(changed[i].data, data)
				changed[i].data = data
			}
		}
		_, err := audit.VerifyBundle(bytes.NewReader(pack(t, changed)))
		if err != nil && (same || !errors.Is(err, audit.ErrBroken)) {
			t.Errorf("%s: %v", name, err)
		}
	})
}

// A bomb is refused before it goes off.
func TestBombsAreRefused(t *testing.T) {
	const huge = 8 << 20 // above every limit of a part that comes first
	good := members(t, export(t, promotion(t).source(1)))
	for name, bomb := range map[string]func(all []member) []member{
		"an endless line":     func(all []member) []member { all[4].data = bytes.Repeat([]byte{'0'}, huge); return all },
		"a huge manifest":     func(all []member) []member { all[0].data = bytes.Repeat([]byte{' '}, huge); return all },
		"huge heads":          func(all []member) []member { all[1].data = bytes.Repeat([]byte{' '}, huge); return all },
		"huge keys":           func(all []member) []member { all[2].data = bytes.Repeat([]byte{' '}, huge); return all },
		"a file of its own":   func(all []member) []member { return append(all, member{"../../etc/passwd", nil}) },
		"something behind it": func(all []member) []member { return append(all, member{"allowed_signers", make([]byte, huge)}) },
	} {
		t.Run(name, func(t *testing.T) {
			all := make([]member, len(good))
			copy(all, good)
			if _, err := audit.VerifyBundle(bytes.NewReader(pack(t, bomb(all)))); !errors.Is(err, audit.ErrBroken) {
				t.Errorf("%v", err)
			}
		})
	}
}
