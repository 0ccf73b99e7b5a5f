package guard_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// people are two approvers, one of whom has two keys.
type people struct {
	ada, adasOther, bob, stranger ssh.Signer
	set                           []byte
}

func newPeople(t *testing.T) people {
	t.Helper()
	key := func() ssh.Signer {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	p := people{ada: key(), adasOther: key(), bob: key(), stranger: key()}
	public := func(s ssh.Signer) *writv1.ApproverKey {
		return &writv1.ApproverKey{PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))}
	}
	set, err := proto.Marshal(&writv1.ApproverSet{Version: 3, Rule: &writv1.ApprovalRule{People: 2}, Approvers: []*writv1.Approver{
		{Name: "ada", Keys: []*writv1.ApproverKey{public(p.ada), public(p.adasOther)}}, {Name: "bob", Keys: []*writv1.ApproverKey{public(p.bob)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.set = set
	return p
}

// glass is a certificate that lets g1 go on under tok(7), from now on.
func glass(now time.Time) breakglass.Certificate {
	created := now.UTC().Truncate(time.Second)
	return breakglass.Certificate{
		Format: breakglass.Format, Cluster: issuer, Incarnation: "i1", Epoch: 1, ID: "c1", Action: breakglass.Continue,
		Grants: []breakglass.Grant{{Group: "orders", Resource: "orders", Region: "eu", Token: uint64(tok(7)), After: uint64(tok(7))}},
		Guards: []string{"g1"}, Attested: []breakglass.Attested{{Kind: breakglass.KindRegion, Name: "us", Statement: "flooded", By: "ada"}},
		ApproversVersion: 3, Requester: "ada", Reason: "both other regions are gone", Created: created, Expires: created.Add(time.Hour),
	}
}

func signed(t *testing.T, c breakglass.Certificate, namespace string, signers ...ssh.Signer) []byte {
	t.Helper()
	doc, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := breakglass.File{Document: string(doc)}
	for _, s := range signers {
		armored, err := approval.Sign(s, namespace, doc)
		if err != nil {
			t.Fatal(err)
		}
		file.Signatures = append(file.Signatures, armored)
	}
	raw, err := file.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// isolated is a guard with floor tok(7) for orders whose quorum is gone, and which is known to be alone.
func (r *rig) isolated(p people) {
	r.Helper()
	r.quorum.approvers = p.set
	r.quorum.floors["orders"] = tok(7)
	r.ready()
	r.admit("orders", tok(7)).Done(fence.Finished)
	r.network.stopAll()
	r.pass(guardLease)
	r.refuse(fence.Write{Resource: "orders", Token: tok(7)}, fence.ErrUnavailable, fence.Isolated)
}

func TestCertificateOpensWhatItNames(t *testing.T) {
	p := newPeople(t)
	simulate(t, func(r *rig) {
		t := r.T
		r.isolated(p)
		raw := signed(t, glass(r.clock.Wall()), breakglass.Namespace, p.ada, p.bob)
		if _, err := r.guard.BreakGlass(t.Context(), raw); !errors.Is(err, guard.ErrCertificate) || !strings.Contains(err.Error(), "contact") {
			t.Fatalf("taken before W has passed: %v", err)
		}
		r.pass(slack)
		opened, err := r.guard.BreakGlass(t.Context(), raw)
		if err != nil || len(opened.Signers) != 2 || len(opened.Resources) != 1 {
			t.Fatalf("%+v, %v", opened, err)
		}
		r.admit("orders", tok(7)).Done(fence.Finished)
		for _, other := range []fence.Write{{Resource: "orders", Token: tok(8)}, {Resource: "billing/x", Token: tok(7)}} {
			r.refuse(other, fence.ErrUnavailable, fence.Isolated)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(6)}, fence.ErrUnavailable)
		if token, ok := r.guard.Grant("orders"); !ok || token != tok(7) {
			t.Errorf("stamps %v, %v", token, ok)
		}
		r.pass(2 * time.Second) // what was admitted is noted at leisure

		// A restart goes on under it at once, and the same file again is no error.
		r.kill()
		r.start()
		r.admit("orders", tok(7)).Done(fence.Finished)
		if _, err := r.guard.BreakGlass(t.Context(), raw); err != nil {
			t.Errorf("again: %v", err)
		}
		if !strings.Contains(r.log.String(), "BREAK-GLASS") {
			t.Error("it is not told loudly")
		}
		r.pass(2 * time.Second)

		// A live quorum ends it, and is told.
		r.quorum.mu.Lock()
		r.quorum.out, r.quorum.floors["orders"] = true, tok(9)
		before := len(r.quorum.enrols)
		r.quorum.mu.Unlock()
		r.startNodes()
		r.pass(10 * time.Second)
		r.refuse(fence.Write{Resource: "orders", Token: tok(7)}, fence.ErrStale)
		r.quorum.mu.Lock()
		enrols := r.quorum.enrols[before:]
		r.quorum.mu.Unlock()
		told := enrols[len(enrols)-1].GetOpenings()
		if len(told) != 1 || told[0].GetCertificate() != "c1" || told[0].GetAdmitted() != 2 || told[0].GetToken() != uint64(tok(7)) || told[0].GetClosed() == "" {
			t.Errorf("the quorum is told %v", told)
		}
		r.network.stopAll()
		r.pass(guardLease + slack)
		if _, err := r.guard.BreakGlass(t.Context(), raw); err == nil || !strings.Contains(err.Error(), "used up") {
			t.Errorf("the same certificate once more: %v", err)
		}
	})
}

// Whoever shows a newer writ shows that a quorum has granted it. No time passes here until what goes on is broken off.
func TestANewerWritEndsWhatACertificateLetGo(t *testing.T) {
	p := newPeople(t)
	simulate(t, func(r *rig) {
		t := r.T
		s := newSigner(t)
		r.quorum.publish(s.Public())
		r.isolated(p)
		r.pass(slack)
		if _, err := r.guard.BreakGlass(t.Context(), signed(t, glass(r.clock.Wall()), breakglass.Namespace, p.ada, p.bob)); err != nil {
			t.Fatal(err)
		}
		under := r.admit("orders", tok(7))
		r.refuse(fence.Write{Resource: "orders", Writ: sign(t, s, "orders", tok(8))}, fence.ErrUnavailable, fence.Isolated)
		if !isClosed(under.Cut()) {
			t.Error("what is under way goes on")
		}
		under.Done(fence.Broken)
	})
}

func TestCertificateExpires(t *testing.T) {
	p := newPeople(t)
	simulate(t, func(r *rig) {
		t := r.T
		r.isolated(p)
		r.pass(slack)
		if _, err := r.guard.BreakGlass(t.Context(), signed(t, glass(r.clock.Wall()), breakglass.Namespace, p.ada, p.bob)); err != nil {
			t.Fatal(err)
		}
		under := r.admit("orders", tok(7))
		r.pass(time.Hour)
		if !isClosed(under.Cut()) {
			t.Error("what is under way goes on")
		}
		under.Done(fence.Broken)
		r.refuse(fence.Write{Resource: "orders", Token: tok(7)}, fence.ErrUnavailable, fence.Isolated)
		r.kill()
		r.start()
		r.refuse(fence.Write{Resource: "orders", Token: tok(7)}, fence.ErrUnavailable, fence.NotSeeded)
	})
}

func TestCertificateIsRefused(t *testing.T) {
	p := newPeople(t)
	for _, test := range []struct {
		name   string
		change func(*breakglass.Certificate)
		sign   []ssh.Signer
		ns     string
		edit   func([]byte) []byte
		says   string
	}{
		{name: "wrong namespace", ns: approval.Namespace, says: "was made for"},
		{name: "another cluster", change: func(c *breakglass.Certificate) { c.Cluster = "other" }, says: `for the quorum "other"`},
		{name: "another incarnation", change: func(c *breakglass.Certificate) { c.Incarnation = "i2" }, says: "incarnation i2"},
		{name: "expired", change: func(c *breakglass.Certificate) {
			c.Created, c.Expires = c.Created.Add(-2*time.Hour), c.Created.Add(-time.Second)
		}, says: "expired"},
		{name: "one signature", sign: []ssh.Signer{p.bob}, says: "1 more person"},
		{name: "one person twice", sign: []ssh.Signer{p.ada, p.adasOther}, says: "1 more person"},
		{name: "unsigned", sign: []ssh.Signer{}, says: "2 more people"},
		{name: "stranger", sign: []ssh.Signer{p.ada, p.stranger}, says: "no approver has"},
		{name: "other guard", change: func(c *breakglass.Certificate) { c.Guards = []string{"g2"} }, says: `does not name guard "g1"`},
		{name: "older token", change: func(c *breakglass.Certificate) {
			c.Grants[0].Token, c.Grants[0].After = uint64(tok(6)), uint64(tok(6))
		}, says: "has seen 1.7"},
		{name: "other approvers", change: func(c *breakglass.Certificate) { c.ApproversVersion = 2 }, says: "version 3 is known"},
		{name: "not covered", change: func(c *breakglass.Certificate) { c.Grants[0].Resource = "elsewhere" }, says: "no resource that this guard covers"},
		{name: "open anyhow", change: func(c *breakglass.Certificate) { c.Grants[0].Resource = "open/x" }, says: "without a quorum"},
		{name: "edited after signing", edit: func(raw []byte) []byte {
			return []byte(strings.Replace(string(raw), "flooded", "blooded", 1))
		}, says: "not over this document"},
		{name: "no certificate", edit: func([]byte) []byte { return []byte("{}") }, says: "document"},
	} {
		t.Run(test.name, func(t *testing.T) {
			simulate(t, func(r *rig) {
				t := r.T
				r.isolated(p)
				r.pass(slack)
				c := glass(r.clock.Wall())
				if test.change != nil {
					test.change(&c)
				}
				if test.sign == nil {
					test.sign = []ssh.Signer{p.ada, p.bob}
				}
				if test.ns == "" {
					test.ns = breakglass.Namespace
				}
				raw := signed(t, c, test.ns, test.sign...)
				if test.edit != nil {
					raw = test.edit(raw)
				}
				_, err := r.guard.BreakGlass(t.Context(), raw)
				if !errors.Is(err, guard.ErrCertificate) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%v, want one that says %q", err, test.says)
				}
				r.refuse(fence.Write{Resource: "orders", Token: tok(7)}, fence.ErrUnavailable, fence.Isolated)
			})
		})
	}
	t.Run("never told who may sign", func(t *testing.T) {
		simulate(t, func(r *rig) {
			t := r.T
			r.isolated(people{})
			r.pass(slack)
			_, err := r.guard.BreakGlass(t.Context(), signed(t, glass(r.clock.Wall()), breakglass.Namespace, p.ada, p.bob))
			if !errors.Is(err, guard.ErrCertificate) || !strings.Contains(err.Error(), "never told") {
				t.Error(err)
			}
		})
	})
}

// A certificate that moves the guard ahead makes it a witness of the newer epoch.
func TestCertificateAdvances(t *testing.T) {
	p := newPeople(t)
	simulate(t, func(r *rig) {
		t := r.T
		r.isolated(p)
		r.pass(slack)
		next := fence.Token(2<<48 | breakglass.FirstSequence)
		c := glass(r.clock.Wall())
		c.Action, c.Grants[0].Token = breakglass.Advance, uint64(next)
		if _, err := r.guard.BreakGlass(t.Context(), signed(t, c, breakglass.Namespace, p.ada, p.bob)); err != nil {
			t.Fatal(err)
		}
		r.admit("orders", next).Done(fence.Finished)
		r.refuse(fence.Write{Resource: "orders", Token: tok(7)}, fence.ErrUnavailable, fence.Isolated)
		r.startNodes()
		r.pass(10 * time.Second)
		r.quorum.mu.Lock()
		defer r.quorum.mu.Unlock()
		if last := r.quorum.enrols[len(r.quorum.enrols)-1]; last.GetWitnessed() != uint64(next) {
			t.Errorf("the guard remembers %v", fence.Token(last.GetWitnessed()))
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	doc, err := glass(time.Unix(1_800_000_000, 0)).Encode()
	if err != nil {
		f.Fatal(err)
	}
	file, err := json.Marshal(breakglass.File{Document: string(doc), Signatures: []string{"x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, raw []byte) {
		parsed, c, err := breakglass.ParseFile(raw)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil || string(again) != parsed.Document {
			t.Errorf("%q is taken, and written as %q, %v", parsed.Document, again, err)
		}
	})
}
