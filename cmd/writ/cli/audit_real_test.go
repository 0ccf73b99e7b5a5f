package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/region/approval"
)

// asData runs a command with -o json and reads what it answers.
func (l *live) asData(into proto.Message, args ...string) {
	l.Helper()
	r := l.must(0, "", append(args, "-o", "json")...)
	if err := protojson.Unmarshal([]byte(r.stdout), into); err != nil {
		l.Fatalf("%v: %s: %v", args, r.stdout, err)
	}
}

// records answers the audit log, or those of one action and target.
func (l *live) records(args ...string) []*writv1.AuditRecord {
	l.Helper()
	list := &writv1.ListAuditResponse{}
	l.asData(list, append([]string{"audit", "list", "--oldest-first", "--limit", "1000"}, args...)...)
	return list.GetRecords()
}

// who asks who could write to the group's resource.
func (l *live) who(at time.Time) *writv1.WhoCouldWriteResponse {
	l.Helper()
	who := &writv1.WhoCouldWriteResponse{}
	l.asData(who, "audit", "list", "--resource", "orders", "--at", at.UTC().Format(time.RFC3339Nano))
	return who
}

// covered waits until a node has signed everything up to a record.
func (l *live) covered(sequence uint64) {
	l.Helper()
	deadline := time.Now().Add(proctest.Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		list := &writv1.ListAuditResponse{}
		l.asData(list, "audit", "list", "--limit", "1")
		for _, h := range list.GetHeads() {
			if h.GetAlarm() != "" {
				l.Fatalf("%s: %s", h.GetHead().GetNode(), h.GetAlarm())
			}
			if h.GetHead().GetSequence() >= sequence {
				return
			}
		}
		if time.Now().After(deadline) {
			l.Fatalf("nobody signs record %d: %v", sequence, list.GetHeads())
		}
		<-tick.C
	}
}

// handOver establishes the group in eu and has it handed over to us, with the signatures of ann and bob; it answers the token
// of before.
func (l *live) handOver() (before uint64) {
	l.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	l.Cleanup(func() { cancel(); agents.Wait() })
	groups := fmt.Sprintf(`name: orders
regions:
  - {name: eu, role: primary, priority: 10, agent: %[1]q, guards: [g-eu], writers: [%[1]q]}
  - {name: us, role: standby, priority: 5, agent: %[1]q, guards: [g-us]}
rpo: {time: 5s}
hooks: [{kind: drain}, {kind: promote}, {kind: shift}, {kind: verify}, {kind: undrain, optional: true}]
`, l.principal)
	if err := os.WriteFile("orders.yaml", []byte(groups), 0o600); err != nil {
		l.Fatal(err)
	}
	l.must(0, "applied", "group", "apply", "-f", "orders.yaml")
	eu, us := l.guard("g-eu", "eu"), l.guard("g-us", "us")
	l.agent(ctx, "eu", eu, &agents)
	l.agent(ctx, "us", us, &agents)
	group := l.until("eu is primary, and both agents are heard", func(g *writv1.Group) bool {
		heard := 0
		for _, r := range g.GetRegions() {
			if r.GetHealth() == writv1.Health_HEALTH_OK && len(r.GetGuards()) == 1 {
				heard++
			}
		}
		return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY && g.GetPrimary() == "eu" && heard == 2
	})
	l.must(0, "wrote plan.json", "promote", "plan", "orders", "--to", "us", "--mode", "switchover", "--reason", "maintenance in eu", "-o", "plan.json")
	for _, person := range []string{"ann", "bob"} {
		l.must(0, person, "promote", "approve", "plan.json", "--key", filepath.Join(l.dir, "approvers", person), "--yes", "--digest", l.digest("plan.json"))
	}
	l.must(0, "done", "promote", "execute", "plan.json")
	return group.GetToken()
}

// one finds the only record of an action.
func one(t testing.TB, records []*writv1.AuditRecord, what string, is func(*writv1.AuditRecord) bool) *writv1.AuditRecord {
	t.Helper()
	var found []*writv1.AuditRecord
	for _, r := range records {
		if is(r) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d records: %s: %v", len(found), what, records)
	}
	return found[0]
}

// A whole promotion, as an auditor finds it afterwards: in the log, in a bundle, and with stock ssh-keygen.
func TestAuditOfARealPromotion(t *testing.T) {
	l := goLive(t)
	t.Chdir(t.TempDir())
	old := l.handOver()
	id, err := idOf("plan.json")
	if err != nil {
		t.Fatal(err)
	}
	all := l.records()
	granted := one(t, all, "tenure.grant by the promotion", func(r *writv1.AuditRecord) bool {
		return r.GetAction() == audit.ActionTenureGrant && r.GetDetail()["promotion"] == id
	})
	fenced := one(t, all, "tenure.fence by the promotion", func(r *writv1.AuditRecord) bool {
		return r.GetAction() == audit.ActionTenureFence && r.GetDetail()["promotion"] == id
	})
	l.whoCouldWrite(all, old, id, fenced, granted)

	last := all[len(all)-1].GetSequence()
	l.covered(last)
	l.must(0, "exported audit.tar.gz", "audit", "export", "-o", "audit.tar.gz")
	verified := l.must(0, "unbroken", "audit", "verify", "audit.tar.gz").stdout
	for _, want := range []string{
		"signatures    2 by approvers, all right", "executed      1 operations",
		"executed promotion " + id + ", approved by ann, bob",
	} {
		if !strings.Contains(verified, want) {
			t.Errorf("no word of %q: %s", want, verified)
		}
	}
	if strings.Contains(verified, "not checked") {
		t.Errorf("something was not checked: %s", verified)
	}
	bundle := l.unpack("audit.tar.gz")
	plan, err := os.ReadFile("plan.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bundle["documents/"+id+".json"], plan) {
		t.Error("the document in the bundle is another one than what was signed")
	}
	l.trusts()
	l.stockVerify(id)
	l.tampered(bundle, id)
	l.pruned(granted)
}

// whoCouldWrite asks before, during and after.
func (l *live) whoCouldWrite(all []*writv1.AuditRecord, old uint64, id string, fenced, granted *writv1.AuditRecord) {
	l.Helper()
	first := one(l.T, all, "the first tenure", func(r *writv1.AuditRecord) bool {
		return r.GetAction() == audit.ActionTenureGrant && r.GetDetail()["region"] == "eu"
	})
	fencedAt, grantedAt := fenced.GetAt().AsTime(), granted.GetAt().AsTime()
	for name, c := range map[string]struct {
		at       time.Time
		region   string
		token    string
		approved []string
	}{
		"before there was a group": {at: first.GetAt().AsTime().Add(-time.Nanosecond)},
		"when it was established":  {at: first.GetAt().AsTime(), region: "eu", token: fence.Token(old).Decimal()},
		"before":                   {at: fencedAt.Add(-time.Nanosecond), region: "eu", token: fence.Token(old).Decimal()},
		"when it was fenced":       {at: fencedAt},
		"during":                   {at: grantedAt.Add(-time.Nanosecond)},
		"when it was granted":      {at: grantedAt, region: "us", token: granted.GetDetail()["token"], approved: []string{"ann", "bob"}},
		"after":                    {at: time.Now().Add(time.Hour), region: "us", token: granted.GetDetail()["token"], approved: []string{"ann", "bob"}},
	} {
		who := l.who(c.at)
		switch {
		case c.region == "" && len(who.GetWritable()) == 0:
			continue
		case c.region == "" || len(who.GetWritable()) != 1:
			l.Errorf("%s, at %v: %v, want %q", name, c.at, who, c.region)
			continue
		}
		w := who.GetWritable()[0]
		if w.GetRegion() != c.region || fence.Token(w.GetToken()).Decimal() != c.token || !slices.Equal(w.GetApprovedBy(), c.approved) {
			l.Errorf("%s: %v, want %+v", name, w, c)
		}
		if (w.GetPromotion() == id) != (c.approved != nil) {
			l.Errorf("%s: by promotion %q", name, w.GetPromotion())
		}
	}
}

// unpack reads a bundle, and lays it out in the directory "bundle".
func (l *live) unpack(path string) map[string][]byte {
	l.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		l.Fatal(err)
	}
	zipped, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		l.Fatal(err)
	}
	files := map[string][]byte{}
	for in := tar.NewReader(zipped); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			l.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(in); err != nil {
			l.Fatal(err)
		}
		name := filepath.Join("bundle", filepath.FromSlash(h.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, files[h.Name], 0o600)); err != nil {
			l.Fatal(err)
		}
	}
}

// trusts verifies with what an auditor knows: the nodes' keys, and the approvers that the quorum was founded with.
func (l *live) trusts() {
	l.Helper()
	founded := filepath.Join(l.dir, "approvers.yaml")
	status, keys := l.http(http.MethodGet, "/.well-known/jwks.json", "")
	if err := os.WriteFile("keys.json", keys, 0o600); err != nil || status != http.StatusOK {
		l.Fatalf("%d, %v", status, err)
	}
	said := l.must(0, "which are those that were given", "audit", "verify", "--approvers", founded, "--keys", "keys.json", "audit.tar.gz").stdout
	for _, person := range []string{"ann", "bob"} {
		raw, err := os.ReadFile(filepath.Join(l.dir, "approvers", person+".pub"))
		if err != nil {
			l.Fatal(err)
		}
		public, _, _, _, err := ssh.ParseAuthorizedKey(raw)
		if err != nil {
			l.Fatal(err)
		}
		if want := "approver " + person + ": ssh-ed25519 " + ssh.FingerprintSHA256(public); !strings.Contains(said, want) {
			l.Errorf("no word of %q: %s", want, said)
		}
	}
	_, mallory := sshKey(l.T, "mallory")
	file, err := os.ReadFile(founded)
	if err != nil {
		l.Fatal(err)
	}
	ann, err := os.ReadFile(filepath.Join(l.dir, "approvers", "ann.pub"))
	if err != nil {
		l.Fatal(err)
	}
	key := strings.Join(strings.Fields(string(ann))[:2], " ")
	other := strings.Replace(string(file), key, strings.Join(strings.Fields(mallory)[:2], " "), 1)
	if other == string(file) {
		l.Fatalf("ann's key is not in %s", file)
	}
	if err := os.WriteFile("other.yaml", []byte(other), 0o600); err != nil {
		l.Fatal(err)
	}
	l.must(2, `"ann" has other keys`, "audit", "verify", "--approvers", "other.yaml", "audit.tar.gz")
	stranger, err := fence.GenerateSigner()
	if err != nil {
		l.Fatal(err)
	}
	set, err := fence.NewKeySet(stranger.Public())
	if err != nil {
		l.Fatal(err)
	}
	jwks, err := set.MarshalJWKS()
	if err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile("stranger.json", jwks, 0o600); err != nil {
		l.Fatal(err)
	}
	l.must(2, "no head on the chain is signed with a key that is trusted", "audit", "verify", "--keys", "stranger.json", "audit.tar.gz")
}

// stockVerify has ssh-keygen judge what the bundle holds.
func (l *live) stockVerify(id string) {
	l.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		l.Log("no ssh-keygen here")
		return
	}
	verify := func(person, signature, document string) error {
		cmd := exec.CommandContext(l.Context(), "ssh-keygen", "-Y", "verify", "-f", "bundle/allowed_signers", "-n", approval.Namespace, "-I", person,
			"-s", "bundle/signatures/"+id+"."+signature+".sig")
		cmd.Stdin = strings.NewReader(document)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	document, err := os.ReadFile("bundle/documents/" + id + ".json")
	if err != nil {
		l.Fatal(err)
	}
	for _, person := range []string{"ann", "bob"} {
		if err := verify(person, person, string(document)); err != nil {
			l.Errorf("%s: %v", person, err)
		}
	}
	if verify("ann", "bob", string(document)) == nil {
		l.Error("bob's signature passes for ann's")
	}
	if verify("ann", "ann", strings.Replace(string(document), `"us"`, `"ap"`, 1)) == nil {
		l.Error("a changed document passes")
	}
}

// tampered changes one record after the other, and expects it to be named.
func (l *live) tampered(bundle map[string][]byte, id string) {
	l.Helper()
	lines := bytes.Split(bytes.TrimSuffix(bundle["records.jsonl"], []byte("\n")), []byte("\n"))
	for i := range lines {
		r, err := audit.Parse(lines[i])
		if err != nil {
			l.Fatal(err)
		}
		// Who wrote to the disks of the quorum put another actor in, or removed a record: each time with the file packed anew.
		changed := slices.Clone(lines)
		changed[i] = bytes.Replace(lines[i], []byte(`"actor":"`), []byte(`"actor":"x`), 1)
		named := fmt.Sprint("record ", r.Sequence)
		if i+1 < len(lines) {
			named = fmt.Sprint("record ", r.Sequence+1) // whose hash is of what stood there; the message has both
		}
		l.refused(bundle, changed, named, fmt.Sprintf("another actor in record %d", r.Sequence))
		if i+1 < len(lines) {
			l.refused(bundle, slices.Delete(slices.Clone(lines), i, i+1), fmt.Sprint("record ", r.Sequence), fmt.Sprintf("without record %d", r.Sequence))
		}
	}
	// A forger who recalculates all hashes has to answer for the signed heads, and for people's signatures.
	forged, at := l.rechained(lines, func(r *audit.Record) bool {
		if r.Action != audit.ActionTenureGrant || r.Detail["promotion"] != id {
			return false
		}
		r.Detail["region"] = "ap"
		return true
	})
	l.refused(bundle, forged, "has been changed", fmt.Sprintf("with the hashes right, and another region in record %d", at))
	forged, at = l.rechained(lines, func(r *audit.Record) bool {
		if r.Action != audit.ActionApprove || r.Detail["approver"] != "bob" {
			return false
		}
		r.Detail["approver"] = "cy"
		return true
	})
	l.refused(bundle, forged, fmt.Sprint("record ", at), "with the hashes right, and another approver")
}

// rechained changes a record and all hashes behind it.
func (l *live) rechained(lines [][]byte, change func(*audit.Record) bool) (forged [][]byte, at uint64) {
	l.Helper()
	var head audit.Head
	for _, line := range lines {
		r, err := audit.Parse(line)
		if err != nil {
			l.Fatal(err)
		}
		if change(&r) {
			at = r.Sequence
		}
		stored, next, err := audit.Append(head, r)
		if err != nil {
			l.Fatal(err)
		}
		forged, head = append(forged, stored), next
	}
	if at == 0 {
		l.Fatal("there is nothing to forge")
	}
	return forged, at
}

// refused packs a bundle with other records, and expects that it does not verify.
func (l *live) refused(bundle map[string][]byte, records [][]byte, named, what string) {
	l.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	names := []string{"manifest.json", "heads.json", "jwks.json", "context.jsonl", "records.jsonl"}
	for name := range bundle {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		data := bundle[name]
		if name == "records.jsonl" {
			data = append(bytes.Join(records, []byte("\n")), '\n')
		}
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
			l.Fatal(err)
		}
		if _, err := files.Write(data); err != nil {
			l.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), zipped.Close(), os.WriteFile("forged.tar.gz", out.Bytes(), 0o600)); err != nil {
		l.Fatal(err)
	}
	if r := l.writ("audit", "verify", "forged.tar.gz"); r.code != 2 || !strings.Contains(r.stderr, named) {
		l.Errorf("%s: %+v, want it to name %q", what, r, named)
	}
}

// pruned forgets what was before the new tenure, and expects that who could write is known still.
func (l *live) pruned(granted *writv1.AuditRecord) {
	l.Helper()
	keep := granted.GetSequence() + 1
	l.must(0, fmt.Sprintf("pruned up to record %d", keep-1), "audit", "prune", "--before", fmt.Sprint(keep), "--reason", "kept for a year, exported")
	if rest := l.records(); rest[0].GetSequence() != keep || rest[len(rest)-1].GetAction() != audit.ActionPrune {
		l.Errorf("behind the cut: %v", rest)
	}
	who := l.who(time.Now().Add(time.Hour))
	if w := who.GetWritable(); len(w) != 1 || w[0].GetRegion() != "us" || strings.Join(w[0].GetApprovedBy(), " ") != "ann bob" ||
		!strings.Contains(who.GetCaveat(), "have been pruned") {
		l.Errorf("behind the cut: %v", who)
	}
	l.must(0, "exported rest.tar.gz", "audit", "export", "-o", "rest.tar.gz")
	l.must(0, "unbroken", "audit", "verify", "rest.tar.gz")
	if r := l.writ("audit", "verify", "audit.tar.gz", "rest.tar.gz"); r.code != 2 || !strings.Contains(r.stderr, "does not continue") {
		l.Errorf("the bundles overlap: %+v", r)
	}
}
