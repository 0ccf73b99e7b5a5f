package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// live is a real quorum of three nodes in a process of its own, in the environment.
type live struct {
	*testing.T
	dir       string
	web       string // HTTP of the first node
	principal string
	page      strings.Builder // what a terminal would have shown
	docs, bin string          // of runbooks: where they stand, and where the command is
}

func goLive(t *testing.T) *live {
	t.Helper()
	l := &live{T: t, dir: t.TempDir()}
	p := launch(t, nil, "dev", "--dir", l.dir, "--base-port", "0")
	for p.stdout.Scan() {
		line := p.stdout.Text()
		if _, address, ok := strings.Cut(line, "HTTP "); ok && l.web == "" {
			l.web = strings.TrimSpace(address)
		}
		if strings.Contains(line, "source ") {
			break
		}
	}
	t.Cleanup(func() { _ = p.signal(syscall.SIGTERM) }) // launch waits for it
	env, err := os.ReadFile(filepath.Join(l.dir, "env"))
	if err != nil {
		t.Fatalf("%v; it said %s", err, p.stderr)
	}
	for line := range strings.Lines(string(env)) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		t.Setenv(name, strings.Trim(value, "'"))
	}
	raw, err := os.ReadFile(os.Getenv("WRIT_CERT"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	l.principal = cert.URIs[0].String()
	return l
}

// writ runs a command as somebody at a terminal would.
func (l *live) writ(args ...string) result {
	l.Helper()
	signals := make(chan os.Signal, signalsKept)
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		l.Fatal(err)
	}
	defer stdin.Close()
	var stdout, stderr, both strings.Builder
	a := &app{stdin: stdin, stdout: io.MultiWriter(&stdout, &both), stderr: io.MultiWriter(&stderr, &both), now: time.Now, signals: signals}
	ctx, cancel := context.WithTimeout(l.Context(), proctest.Patience)
	defer cancel()
	code := a.run(ctx, "test", args, nil, nil)
	l.show("writ", args, both.String(), code)
	return result{code, stdout.String(), stderr.String()}
}

// show notes what a terminal would have shown.
func (l *live) show(name string, args []string, said string, code int) {
	line := "$ " + name
	for _, arg := range args {
		if strings.Contains(arg, " ") {
			arg = "'" + arg + "'"
		}
		line += " " + arg
	}
	page := line + "\n" + said
	if code != 0 {
		page += fmt.Sprintf("$ echo $?\n%d\n", code)
	}
	l.page.WriteString(temporary.ReplaceAllString(strings.ReplaceAll(page, l.dir+"/", ""), "") + "\n")
}

// temporary are directories of the test, which nobody has to read.
var temporary = regexp.MustCompile(regexp.QuoteMeta(os.TempDir()) + `/Test[^ ]*/`)

// must runs a command that has to end with that code, and whose words have to hold some.
func (l *live) must(code int, words string, args ...string) result {
	l.Helper()
	r := l.writ(args...)
	if r.code != code || !strings.Contains(r.stdout+r.stderr, words) {
		l.Fatalf("writ %s: code %d, want %d and %q\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), r.code, code, words, r.stdout, r.stderr)
	}
	return r
}

// guard starts a guard of the group's resource.
func (l *live) guard(name, region string) *guard.Guard {
	l.Helper()
	g, err := guard.New(guard.Config{
		Name: name, Region: region, Form: "test", Covers: []string{"orders"}, Store: filepath.Join(l.TempDir(), "floors"), Slack: 50 * time.Millisecond,
		Endpoints: strings.Split(os.Getenv("WRIT_ENDPOINTS"), ","), CAFile: os.Getenv("WRIT_CA"), CertFile: os.Getenv("WRIT_CERT"), KeyFile: os.Getenv("WRIT_KEY"),
	})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), proctest.Patience)
		defer cancel()
		_ = g.Close(ctx)
	})
	return g
}

// agent speaks for a region: it is well, and every hook succeeds at once, except for what verify finds at the guard.
func (l *live) agent(ctx context.Context, region string, before *guard.Guard, done *sync.WaitGroup) {
	cfg := lease.Config{CAFile: os.Getenv("WRIT_CA"), CertFile: os.Getenv("WRIT_CERT"), KeyFile: os.Getenv("WRIT_KEY"), Insecure: os.Getenv("WRIT_INSECURE") == "true"}
	creds, err := transport(cfg)
	if err != nil {
		l.Fatal(err)
	}
	conn, err := grpc.NewClient(strings.Split(os.Getenv("WRIT_ENDPOINTS"), ",")[0], grpc.WithTransportCredentials(creds))
	if err != nil {
		l.Fatal(err)
	}
	headroom, writable := uint32(900), region == "eu"
	position := &writv1.Position{Log: "1", Bytes: 1000, Text: "0/3E8"}
	report := &writv1.GroupReport{Group: "orders", Health: writv1.Health_HEALTH_OK, Headroom: &headroom, Writable: &writable, Position: position, ConfigDigest: "same"}
	if region != "eu" {
		report.Upstream, report.Lag = position, durationpb.New(0)
	}
	for kind := range writv1.HookKind_name {
		if kind != 0 {
			report.Hooks = append(report.Hooks, writv1.HookKind(kind))
		}
	}
	done.Go(func() {
		defer conn.Close()
		req := &writv1.AgentPollRequest{Agent: "agent-" + region, Region: region, Session: "s1", Reports: []*writv1.GroupReport{report}}
		for ctx.Err() == nil {
			req.Wait = durationpb.New(200 * time.Millisecond)
			resp, err := writv1.NewRegionServiceClient(conn).AgentPoll(ctx, req)
			if err != nil {
				continue // the group is not there yet, or the test is over
			}
			req.Results = nil
			for _, task := range resp.GetTasks() {
				req.Results = append(req.Results, l.run(ctx, task, before, position))
			}
		}
	})
}

func (l *live) run(ctx context.Context, task *writv1.Task, before *guard.Guard, position *writv1.Position) *writv1.TaskResult {
	result := &writv1.TaskResult{
		Group: task.GetGroup(), Promotion: task.GetPromotion(), Step: task.GetStep(), Kind: task.GetKind(), Outcome: writv1.HookOutcome_HOOK_OUTCOME_DONE,
		Took: durationpb.New(time.Millisecond), Position: position,
	}
	if task.GetKind() != writv1.HookKind_HOOK_KIND_VERIFY {
		return result
	}
	admission, err := before.Admit(ctx, fence.Write{Resource: task.GetResource(), Writ: task.GetWrit()})
	if err == nil {
		admission.Done(fence.Finished)
		_, err = before.Admit(ctx, fence.Write{Resource: task.GetResource(), Writ: task.GetOldWrit()})
		if errors.Is(err, fence.ErrStale) {
			return result
		}
	}
	result.Outcome, result.Output = writv1.HookOutcome_HOOK_OUTCOME_FAILED, fmt.Sprint(err)
	return result
}

// rest makes a request as curl would.
func (l *live) rest(method, path, body string, into proto.Message) (status int, text string) {
	l.Helper()
	status, raw := l.http(method, path, body)
	if status == http.StatusOK {
		if err := protojson.Unmarshal(raw, into); err != nil {
			l.Fatalf("%s: %v", raw, err)
		}
	}
	return status, string(raw)
}

// http asks the first node.
func (l *live) http(method, path, body string) (status int, answer []byte) {
	l.Helper()
	pair, err := tls.LoadX509KeyPair(os.Getenv("WRIT_CERT"), os.Getenv("WRIT_KEY"))
	if err != nil {
		l.Fatal(err)
	}
	pool := x509.NewCertPool()
	if raw, err := os.ReadFile(os.Getenv("WRIT_CA")); err != nil || !pool.AppendCertsFromPEM(raw) {
		l.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(l.Context(), method, "https://"+l.web+path, strings.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	return resp.StatusCode, raw
}

// until waits for something of the group.
func (l *live) until(what string, ok func(*writv1.Group) bool) *writv1.Group {
	l.Helper()
	deadline := time.Now().Add(proctest.Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		g := &writv1.Group{}
		status, text := l.rest(http.MethodGet, "/v1/groups/orders", "", g)
		if status == http.StatusOK && ok(g) {
			return g
		}
		if time.Now().After(deadline) {
			l.Fatalf("never: %s: %d %s", what, status, text)
		}
		<-tick.C
	}
}

// A region hands over to another one: planned, signed by two people with their ssh keys, executed and followed at the terminal,
// before a real quorum and real guards.
func TestPromoteForReal(t *testing.T) {
	l := goLive(t)
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	defer agents.Wait()
	defer cancel()

	groups := fmt.Sprintf(`name: orders
regions:
  - {name: eu, role: primary, priority: 10, agent: %[1]q, guards: [g-eu], writers: [%[1]q]}
  - {name: us, role: standby, priority: 5, agent: %[1]q, guards: [g-us]}
rpo: {time: 5s}
hooks: [{kind: drain}, {kind: promote}, {kind: shift}, {kind: verify}, {kind: undrain, optional: true}]
`, l.principal)
	if err := os.WriteFile("orders.yaml", []byte(groups), 0o600); err != nil {
		t.Fatal(err)
	}
	l.must(0, "applied", "group", "apply", "-f", "orders.yaml")
	// Guards that enrol now know at once that they close without contact.
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
	l.must(0, "primary", "group", "status", "orders")
	l.must(0, "go", "confidence", "orders", "--to", "us")

	l.must(0, "wrote plan.json", "promote", "plan", "orders", "--to", "us", "--mode", "switchover", "--reason", "maintenance in eu", "-o", "plan.json")
	l.must(6, "PENDING", "promote", "execute", "plan.json")
	digest := l.digest("plan.json")
	key := func(person string) string { return filepath.Join(l.dir, "approvers", person) }
	l.must(0, "ann", "promote", "approve", "plan.json", "--key", key("ann"), "--yes", "--digest", digest)
	l.must(6, "PENDING", "promote", "execute", "plan.json")
	stranger, _ := sshKey(t, "mallory")
	l.must(4, "DENIED", "promote", "approve", "plan.json", "--key", stranger, "--yes", "--digest", digest)
	if _, err := exec.LookPath("ssh-keygen"); err == nil {
		l.sshKeygen("-Y", "sign", "-n", approval.Namespace, "-f", key("bob"), "plan.json")
		l.must(0, "bob", "promote", "approve", "plan.json", "--signature", "plan.json.sig", "--yes", "--digest", digest)
	} else {
		l.must(0, "bob", "promote", "approve", "plan.json", "--key", key("bob"), "--yes", "--digest", digest)
	}
	r := l.must(0, "done", "promote", "execute", "plan.json")
	if !strings.Contains(r.stderr, "preflight") || !strings.Contains(r.stderr, ": done") {
		t.Errorf("it was told of %s", r.stderr) // what lies between may pass between two looks
	}
	after := l.until("us is primary", func(g *writv1.Group) bool {
		return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY && g.GetPrimary() == "us"
	})
	if after.GetToken() <= group.GetToken() {
		t.Errorf("token %d after %d", after.GetToken(), group.GetToken())
	}
	l.must(0, "us", "group", "status", "orders")

	// The old token is refused on both sides, also where nobody verified it.
	for name, g := range map[string]*guard.Guard{"g-eu": eu, "g-us": us} {
		if _, err := g.Admit(t.Context(), fence.Write{Resource: "orders", Token: fence.Token(group.GetToken())}); !errors.Is(err, fence.ErrStale) {
			t.Errorf("%s with the old token: %v", name, err)
		}
	}
	l.refusals(group)
	if file := os.Getenv("WRIT_TRANSCRIPT"); file != "" {
		if err := os.WriteFile(file, []byte(l.page.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *live) sshKeygen(args ...string) {
	l.Helper()
	said, err := exec.CommandContext(l.Context(), "ssh-keygen", args...).CombinedOutput()
	l.show("ssh-keygen", args, string(said), 0)
	if err != nil {
		l.Fatalf("ssh-keygen: %v: %s", err, said)
	}
}

func (l *live) digest(file string) string {
	l.Helper()
	doc, err := os.ReadFile(file)
	if err != nil {
		l.Fatal(err)
	}
	return approval.Digest(doc)
}

// refusals asks for what must not happen, once the plan has been carried out.
func (l *live) refusals(old *writv1.Group) {
	l.Helper()
	l.must(2, "STALE_TOKEN", "promote", "plan", "orders", "--to", "eu", "--mode", "failback", "--token", fence.Token(old.GetToken()).String())
	l.must(1, "", "promote", "plan", "nothing", "--to", "eu", "--mode", "failback")
	if r := l.writ("promote", "plan", "orders", "--to", "us", "--mode", "switchover"); r.code == 0 {
		l.Errorf("a promotion to the region that is primary: %+v", r)
	}
	doc, err := os.ReadFile("plan.json")
	if err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile("edited.json", []byte(strings.Replace(string(doc), "maintenance", "Maintenance", 1)), 0o600); err != nil {
		l.Fatal(err)
	}
	l.must(2, "is not what operation", "promote", "approve", "edited.json", "--key", filepath.Join(l.dir, "approvers", "ann"), "--yes", "--digest", l.digest("plan.json"))
	// Executing again changes nothing, over REST as well.
	l.must(0, "done", "promote", "execute", "plan.json")
	var p writv1.Promotion
	id, err := idOf("plan.json")
	if err != nil {
		l.Fatal(err)
	}
	if status, text := l.rest(http.MethodPost, "/v1/promotions/"+id+":execute", "{}", &p); status != http.StatusOK || p.GetState() != writv1.PromotionState_PROMOTION_STATE_DONE {
		l.Errorf("executed again: %d %s", status, text)
	}
	if status, text := l.rest(http.MethodGet, "/v1/operations/"+id, "", &writv1.Operation{}); status != http.StatusOK || strings.Count(text, "BEGIN SSH SIGNATURE") != 2 {
		l.Errorf("the operation: %d %s", status, text)
	}
	if status, text := l.rest(http.MethodPost, "/v1/groups/orders:plan", `{"to":"eu"}`, &p); status != http.StatusBadRequest || !strings.Contains(text, `"field":"mode"`) {
		l.Errorf("a plan without a mode: %d %s", status, text)
	}
}
