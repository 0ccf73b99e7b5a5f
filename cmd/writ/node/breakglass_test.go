package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// glassLab is a quorum of three regions with a guard in the third, and two people who may open it.
type glassLab struct {
	*testCluster
	guard  *guard.Guard
	people []ssh.Signer
}

// newGlassLab starts one. The guard asks those nodes.
func newGlassLab(t *testing.T, asks ...int) *glassLab {
	t.Helper()
	// Nobody renews here: a lease is not to run out, which retires its token, before a busy machine has used it.
	lab := &glassLab{testCluster: newClusterTTL(t, 3, 5*time.Second)}
	text := "approvers:\n"
	for _, name := range []string{"ada", "bob"} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		signer, err := ssh.NewSignerFromKey(private)
		must(t, err)
		lab.people = append(lab.people, signer)
		text += fmt.Sprintf("  - name: %s\n    keys: [%q]\n", name, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	}
	approvers, policy := filepath.Join(lab.dir, "approvers.yaml"), filepath.Join(lab.dir, "guards.yaml")
	must(t, os.WriteFile(approvers, []byte(text+"rule: {people: 2}\n"), 0o600))
	must(t, os.WriteFile(policy, []byte(fmt.Sprintf(
		"grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read, force, guard, admin]}]\nresources: [{prefix: \"\", ttl_max: %v}]\n", lab.ttl)), 0o600))
	for i := range lab.configs {
		lab.configs[i].Approvers, lab.configs[i].PolicyFile, lab.configs[i].Lease.GuardLease = approvers, policy, time.Second
	}
	lab.start(lab.all()...)
	lab.ready()
	lab.leases(2)
	_, err := writv1.NewFenceServiceClient(lab.conns[lab.configs[2].API.Listen]).SetGuarding(t.Context(), &writv1.SetGuardingRequest{
		Rule: &writv1.GuardingRule{Prefix: "orders", Isolation: writv1.Isolation_ISOLATION_CLOSE},
	})
	must(t, err)
	var endpoints []string
	for _, i := range asks {
		endpoints = append(endpoints, lab.configs[i].API.Listen)
	}
	lab.guard, err = guard.New(guard.Config{
		Name: "g-n3", Region: "r-n3", Covers: []string{"orders"}, Store: filepath.Join(lab.dir, "floors"),
		Endpoints: endpoints, Insecure: true, Slack: 100 * time.Millisecond,
	})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := lab.guard.Close(ctx); err != nil && !errors.Is(err, guard.ErrNotDrained) {
			t.Error(err)
		}
	})
	return lab
}

// write asks the guard to admit one.
func (l *glassLab) write(token fence.Token) error {
	a, err := l.guard.Admit(l.t.Context(), fence.Write{Resource: "orders", Token: token})
	if err == nil {
		a.Done(fence.Finished)
	}
	return err
}

// certificate is planned from what the guard knows, and signed by both people.
func (l *glassLab) certificate(action string, token, after fence.Token) []byte {
	l.t.Helper()
	known, created := l.guard.Status().Quorum, time.Now().UTC().Truncate(time.Second)
	doc, err := breakglass.Certificate{
		Format: breakglass.Format, Cluster: known.Cluster, Incarnation: known.Incarnation, Epoch: uint32(known.Epoch), ID: "c-" + action, Action: action,
		Grants: []breakglass.Grant{{Resource: "orders", Region: "r-n3", Token: uint64(token), After: uint64(after)}},
		Guards: []string{"g-n3"}, Attested: []breakglass.Attested{{Kind: breakglass.KindRegion, Name: "r-n1", Statement: "burnt down", By: "ada"}},
		ApproversVersion: known.ApproversVersion, Requester: "ada", Reason: "rehearsal", Created: created, Expires: created.Add(time.Hour),
	}.Encode()
	must(l.t, err)
	file := breakglass.File{Document: string(doc)}
	for _, signer := range l.people {
		armored, err := approval.Sign(signer, breakglass.Namespace, doc)
		must(l.t, err)
		file.Signatures = append(file.Signatures, armored)
	}
	raw, err := file.Encode()
	must(l.t, err)
	return raw
}

// open has the guard go on as soon as it takes the certificate.
func (l *glassLab) open(raw []byte) {
	l.t.Helper()
	eventually(l.t, func() string {
		if _, err := l.guard.BreakGlass(l.t.Context(), raw); err != nil {
			return err.Error()
		}
		return ""
	})
}

// closed waits until the guard has met the quorum, and until it has told what it did. Between the two there may be a recovery,
// of a quorum that did not know of the certificate: it waits half a minute for leases of before.
func (l *glassLab) closed() {
	l.t.Helper()
	for _, done := range []func(gate.Opening) bool{
		func(o gate.Opening) bool { return o.Closed != "" }, func(o gate.Opening) bool { return o.Told },
	} {
		eventually(l.t, func() string {
			for _, o := range l.guard.Status().Openings {
				if !done(o) {
					return fmt.Sprintf("the guard is open, or has not told: %+v", o)
				}
			}
			return ""
		})
	}
}

// admits waits until the guard lets a token of orders through, or that of another grant if the lease has run out meanwhile.
func (l *glassLab) admits(node int, token fence.Token) fence.Token {
	l.t.Helper()
	eventually(l.t, func() string {
		err := l.write(token)
		if errors.Is(err, fence.ErrStale) {
			token = l.acquire(node, "orders")
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
	return token
}

// Two of three regions are gone for good: people let the third one's guard go on, the quorum is rebuilt from the one store that
// is left, and tokens still rise. Once with the certificate at hand, and once without it, when nothing but the guard's memory
// says how high the epoch is.
func TestBreakGlassRehearsal(t *testing.T) {
	for _, test := range []struct {
		action string
		told   bool
	}{{breakglass.Continue, true}, {breakglass.Advance, true}, {breakglass.Advance, false}} {
		t.Run(fmt.Sprintf("%s told %v", test.action, test.told), func(t *testing.T) {
			lab := newGlassLab(t, 2, 0)
			held := lab.acquire(2, "orders")
			eventually(t, func() string {
				if err := lab.write(held); err != nil {
					return err.Error()
				}
				if lab.guard.Status().Quorum.ApproversVersion == 0 {
					return "the guard does not know the approvers"
				}
				return ""
			})
			raw := lab.certificate(breakglass.Continue, held, held)
			under := held
			if test.action == breakglass.Advance {
				under = fence.Token(uint64(held.Epoch()+1)<<48 | breakglass.FirstSequence)
				raw = lab.certificate(breakglass.Advance, under, held)
			}
			if _, err := lab.guard.BreakGlass(t.Context(), raw); !errors.Is(err, guard.ErrCertificate) {
				t.Fatalf("with a quorum there, the certificate is taken: %v", err)
			}

			lab.stop(0, 1)
			must(t, errors.Join(os.RemoveAll(lab.configs[0].DataDir), os.RemoveAll(lab.configs[1].DataDir)))
			eventually(t, func() string {
				if lab.write(held) == nil {
					return "the guard goes on without a quorum"
				}
				return ""
			})
			lab.open(raw)
			if err := lab.write(under); err != nil {
				t.Fatalf("under the certificate: %v", err)
			}

			lab.stop(2)
			lab.configs[2].Bootstrap.Members = map[string]string{"n3": lab.configs[2].Bootstrap.Members["n3"]}
			restore := Restore{FromData: lab.configs[2].DataDir}
			if test.told {
				restore.Certificate = filepath.Join(lab.dir, "cert.json")
				must(t, os.WriteFile(restore.Certificate, raw, 0o600))
			}
			lab.restore(restore, 2)
			if err := lab.write(under); err != nil {
				t.Fatalf("while the quorum is rebuilt: %v", err)
			}
			lab.start(2)
			lab.closed()
			lab.highest["orders"] = under
			again := lab.acquire(2, "orders")
			if again.Epoch() <= under.Epoch() {
				t.Errorf("token %v after %v", again, under)
			}
			if err := lab.write(under); !errors.Is(err, fence.ErrStale) {
				t.Errorf("under what the certificate allowed: %v", err)
			}
			lab.admits(2, again)
		})
	}
}

// The people were wrong: the other two regions were only cut off, have a quorum, and grant. Guard and quorum write under
// different tokens until they meet; then the guard closes at once, tells what it did, and takes the quorum's token alone.
func TestBreakGlassMistake(t *testing.T) {
	lab := newGlassLab(t, 2) // the guard knows no way but its own region's node
	held := lab.acquire(2, "orders")
	eventually(t, func() string {
		if err := lab.write(held); err != nil {
			return err.Error()
		}
		if lab.guard.Status().Quorum.ApproversVersion == 0 {
			return "the guard does not know the approvers"
		}
		return ""
	})
	raw := lab.certificate(breakglass.Continue, held, held)
	lab.stop(2)
	lab.open(raw)
	other := lab.acquire(0, "orders") // the quorum has waited for the guard's lease and W
	if err := lab.write(held); err != nil {
		t.Fatalf("under the certificate: %v", err)
	}
	if err := lab.write(other); err == nil {
		t.Error("the guard takes a token that it does not know")
	}

	lab.start(2)
	lab.closed()
	if err := lab.write(held); err == nil {
		t.Error("the guard goes on under the certificate beside a quorum")
	}
	again := lab.acquire(0, "orders")
	again = lab.admits(0, again)
	for _, stale := range []fence.Token{held, other} {
		if err := lab.write(stale); !errors.Is(err, fence.ErrStale) {
			t.Errorf("%v after %v: %v", stale, again, err)
		}
	}
	if list := lab.guard.Status().Openings; len(list) != 1 || list[0].Admitted == 0 || !strings.Contains(list[0].Closed, "met a live quorum") {
		t.Errorf("the guard remembers %+v", list)
	}
	if _, err := lab.guard.BreakGlass(t.Context(), raw); !errors.Is(err, guard.ErrCertificate) {
		t.Errorf("the certificate opens once more: %v", err)
	}
}

func TestRestoreRefusesForeignCertificate(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	c.stop(0)
	doc, err := breakglass.Certificate{
		Format: breakglass.Format, Cluster: "other", Incarnation: "i", Epoch: 7, ID: "c", Action: breakglass.Continue,
		Grants: []breakglass.Grant{{Resource: "orders", Region: "eu", Token: 7<<48 | 1, After: 7<<48 | 1}}, Guards: []string{"g"},
		ApproversVersion: 1, Requester: "ada", Reason: "test", Created: time.Unix(1_800_000_000, 0), Expires: time.Unix(1_800_003_600, 0),
	}.Encode()
	must(t, err)
	raw, err := breakglass.File{Document: string(doc)}.Encode()
	must(t, err)
	path := filepath.Join(c.dir, "cert.json")
	must(t, os.WriteFile(path, raw, 0o600))
	_, err = Restore{FromData: c.configs[0].DataDir, Certificate: path}.Run(c.configs[0])
	if err == nil {
		t.Fatal("taken")
	}
	checkWords(t, err.Error(), "--certificate", `"other"`)
}
