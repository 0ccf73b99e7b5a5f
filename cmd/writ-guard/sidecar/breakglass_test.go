package sidecar

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/node"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// glassLab is a quorum of one node which two people may do without, and a guard of it.
type glassLab struct {
	*testing.T
	node   node.Config
	people []ssh.Signer
	guard  Config
	log    *lockedBuffer
	run    *node.Node
	side   *Sidecar
}

func newGlassLab(t *testing.T, file bool, slack time.Duration) *glassLab {
	t.Helper()
	l := &glassLab{T: t, log: &lockedBuffer{}}
	dir := t.TempDir()
	approvers, policy := filepath.Join(dir, "approvers.yaml"), filepath.Join(dir, "policy.yaml")
	text := "approvers:\n"
	for _, name := range []string{"ada", "bob"} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		l.must(err)
		signer, err := ssh.NewSignerFromKey(private)
		l.must(err)
		l.people = append(l.people, signer)
		text += fmt.Sprintf("  - name: %s\n    keys: [%q]\n", name, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	}
	l.must(os.WriteFile(approvers, []byte(text+"rule: {people: 2}\n"), 0o600))
	l.must(os.WriteFile(policy, []byte("grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read, force, admin, guard]}]\nresources: [{prefix: \"\", ttl_max: 1s}]\n"), 0o600))
	peer := freeport.Address(t)
	l.node = node.Config{
		Name: "n1", Region: "eu", Cluster: "test", DataDir: filepath.Join(dir, "n1"), Insecure: true, PolicyFile: policy, Approvers: approvers,
		API: node.Address{Listen: freeport.Address(t)}, HTTP: node.Address{Listen: freeport.Address(t)}, Peer: node.Address{Listen: peer},
		Bootstrap: node.Bootstrap{Members: map[string]string{"n1": "http://" + peer}},
		Heartbeat: pace.Heartbeat, Election: pace.Election, Lease: node.Lease{GuardLease: time.Second},
	}
	l.startNode()
	conn, err := grpc.NewClient(l.node.API.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	l.must(err)
	defer conn.Close()
	await(t, "the rule", func() bool {
		_, err := writv1.NewFenceServiceClient(conn).SetGuarding(t.Context(), &writv1.SetGuardingRequest{
			Rule: &writv1.GuardingRule{Prefix: "orders", Isolation: writv1.Isolation_ISOLATION_CLOSE},
		})
		return err == nil
	})
	l.guard = every(t, l.node.API.Listen, newStore(t, nil).URL)
	l.guard.Slack = slack
	if file {
		l.guard.BreakglassFile = filepath.Join(dir, "cert.json")
	}
	l.startGuard()
	t.Cleanup(func() { l.stopGuard() })
	awaitReady(t, l.guard)
	await(t, "a write", func() bool {
		status, _ := put(l.guard, "1.5")
		return status == http.StatusCreated
	})
	await(t, "the approvers", func() bool { return l.status().Known.ApproversVersion != 0 })
	return l
}

func (l *glassLab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *glassLab) startNode() {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), patience)
	defer cancel()
	n, err := node.Start(ctx, l.node, node.Options{Version: "test", Logger: testLogger("node")})
	l.must(err)
	l.run = n
	l.Cleanup(func() { _ = n.Stop(context.Background()) }) // it may have been stopped
}

func (l *glassLab) startGuard() {
	l.Helper()
	s, err := Start(l.guard, Options{Version: "test", Logger: logTo(l.log)})
	l.must(err)
	l.side = s
}

func (l *glassLab) stopGuard() {
	l.Helper()
	if err := l.side.Stop(context.Background()); err != nil && !errors.Is(err, guard.ErrNotDrained) {
		l.Errorf("stop: %v", err)
	}
}

// alone has the node stop, and waits until the guard refuses.
func (l *glassLab) alone() {
	l.Helper()
	l.must(l.run.Stop(context.Background()))
	await(l.T, "the end of the guard's lease", func() bool {
		status, _ := put(l.guard, "1.5")
		return status != http.StatusCreated
	})
}

func (l *glassLab) status() (d description) {
	l.Helper()
	_, body := get(l.T, l.guard, "/status")
	decodeJSON(l.T, body, &d)
	return d
}

// certificate is planned from what the guard says, for so long, and signed.
func (l *glassLab) certificate(valid time.Duration, signers ...ssh.Signer) []byte {
	l.Helper()
	d, created := l.status(), time.Now().UTC().Truncate(time.Second)
	token := uint64(d.Tokens[0].Token)
	doc, err := breakglass.Certificate{
		Format: breakglass.Format, Cluster: d.Known.Cluster, Incarnation: d.Known.Incarnation, Epoch: d.Known.Epoch, ID: "c1", Action: breakglass.Continue,
		Grants: []breakglass.Grant{{Group: "shop", Resource: d.Tokens[0].Resource, Region: "eu", Token: token, After: token}},
		Guards: []string{d.Name}, Attested: []breakglass.Attested{{Kind: breakglass.KindRegion, Name: "us", Statement: "flooded", By: "ada"}},
		ApproversVersion: d.Known.ApproversVersion, Requester: "ada", Reason: "a test", Created: created, Expires: created.Add(valid),
	}.Encode()
	l.must(err)
	file := breakglass.File{Document: string(doc)}
	for _, signer := range signers {
		armored, err := approval.Sign(signer, breakglass.Namespace, doc)
		l.must(err)
		file.Signatures = append(file.Signatures, armored)
	}
	raw, err := file.Encode()
	l.must(err)
	return raw
}

// post hands a certificate in.
func (l *glassLab) post(raw []byte) (status int, v certificateAnswer) {
	l.Helper()
	resp, err := http.Post("http://"+l.guard.Admin.Listen+"/breakglass", "application/json", bytes.NewReader(raw))
	l.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	l.must(err)
	decodeJSON(l.T, string(body), &v)
	return resp.StatusCode, v
}

// A certificate that is handed in opens the guard once it is alone, loudly; a restart goes on under it, and is ready for that;
// a quorum that comes back ends it.
func TestCertificateIsHandedIn(t *testing.T) {
	l := newGlassLab(t, false, 200*time.Millisecond)
	raw := l.certificate(time.Hour, l.people...)
	if status, v := l.post(raw); status != http.StatusConflict || v.Open || !strings.Contains(v.Error, "contact") {
		t.Errorf("with a quorum there: %d %+v", status, v)
	}
	if d := l.status(); d.BreakGlass != "" || len(d.Openings) != 0 {
		t.Errorf("with a quorum there: %+v", d)
	}
	l.alone()
	for name, bad := range map[string]struct {
		raw    []byte
		status int
		says   string
	}{
		"nothing":       {nil, http.StatusConflict, "no certificate"},
		"one signature": {l.certificate(time.Hour, l.people[0]), http.StatusConflict, "1 more person"},
		"too large":     {bytes.Repeat([]byte(" "), breakglass.MaxFile+1), http.StatusRequestEntityTooLarge, "cannot be read"},
	} {
		if status, v := l.post(bad.raw); status != bad.status || v.Open || v.Guard != "g1" || !strings.Contains(v.Error, bad.says) {
			t.Errorf("%s: %d %+v", name, status, v)
		}
	}
	await(t, "the certificate's time", func() bool {
		status, v := l.post(raw)
		if status == http.StatusOK && (!v.Open || v.Certificate != "c1" || len(v.Signers) != 2 || len(v.Resources) != 1 || v.Expires.IsZero()) {
			t.Fatalf("answered %+v", v)
		}
		return status == http.StatusOK
	})
	l.open()
	if !strings.Contains(l.log.String(), "BREAK-GLASS") {
		t.Error("the log does not say so")
	}
	l.stopGuard()
	l.startGuard()
	l.open()
	l.startNode()
	await(t, "the end of it", func() bool {
		d := l.status()
		return d.BreakGlass == "" && len(d.Openings) == 1 && strings.Contains(d.Openings[0].Closed, "met a live quorum") && d.Openings[0].Told
	})
}

// open wants the guard to say that it is open, and to be.
func (l *glassLab) open() {
	l.Helper()
	if status, body := put(l.guard, "1.5"); status != http.StatusCreated {
		l.Fatalf("a write under the certificate: %d %s", status, body)
	}
	if status, body := put(l.guard, "1.6"); status == http.StatusCreated {
		l.Errorf("a write under another token: %d %s", status, body)
	}
	if status, body := get(l.T, l.guard, "/readyz"); status != http.StatusOK {
		l.Errorf("readyz: %d %s", status, body)
	}
	d := l.status()
	if !d.Ready || d.NotReady != "" || !strings.Contains(d.BreakGlass, "1 resources are admitted without a quorum") || len(d.Openings) != 1 {
		l.Fatalf("status %+v", d)
	}
	o, token := d.Openings[0], fence.Token(1<<48|5)
	if o.Certificate != "c1" || o.Group != "shop" || o.Resource != "orders" || o.Region != "eu" || o.Token != token || o.Closed != "" || o.Admitted == 0 {
		l.Errorf("opening %+v", o)
	}
	if _, body := get(l.T, l.guard, "/metrics"); !strings.Contains(body, "writ_guard_breakglass 1\n") {
		l.Error("the metric does not say so")
	}
	if _, body := get(l.T, l.guard, "/status"); !strings.Contains(body, `"BREAK_GLASS": `) {
		l.Errorf("status %s", body)
	}
}

// A certificate that was there before the guard is known to be cut off is taken when it is.
func TestCertificateComesEarly(t *testing.T) {
	l := newGlassLab(t, true, 2500*time.Millisecond)
	l.must(os.WriteFile(l.guard.BreakglassFile, l.certificate(time.Hour, l.people...), 0o600))
	l.alone()
	await(t, "a write under the certificate", func() bool {
		status, _ := put(l.guard, "1.5")
		return status == http.StatusCreated
	})
	l.open()
}

// What is put into the file in the place of what was refused is taken at once.
func TestCertificateIsPutIntoTheFile(t *testing.T) {
	l := newGlassLab(t, true, 200*time.Millisecond)
	raw := l.certificate(time.Hour, l.people...)
	l.must(os.WriteFile(l.guard.BreakglassFile, l.certificate(time.Hour, l.people[0]), 0o600))
	l.alone()
	await(t, "the refusal", func() bool { return strings.Contains(l.log.String(), "1 more person") })
	l.must(os.WriteFile(l.guard.BreakglassFile+".new", raw, 0o600))
	l.must(os.Rename(l.guard.BreakglassFile+".new", l.guard.BreakglassFile))
	await(t, "a write under the certificate", func() bool {
		status, _ := put(l.guard, "1.5")
		return status == http.StatusCreated
	})
	l.open()
}

func TestFileThatCannotBeRead(t *testing.T) {
	l := newGlassLab(t, true, 200*time.Millisecond)
	l.must(os.Mkdir(l.guard.BreakglassFile, 0o700))
	await(t, "the complaint", func() bool { return strings.Contains(l.log.String(), "file for certificates cannot be read") })
}
