package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
)

// answers makes a node answer a method with a message.
func answers(node *leasetest.Node, method string, response any) {
	node.Script(method, func(context.Context, any, func() (any, error)) (any, error) { return response, nil })
}

// fails makes a node fail a method.
func fails(node *leasetest.Node, method string, err error) {
	node.Script(method, func(context.Context, any, func() (any, error)) (any, error) { return nil, err })
}

func heldLease() *writv1.Lease {
	return &writv1.Lease{
		Resource: "billing/nightly", State: writv1.LeaseState_LEASE_STATE_HELD, Token: 281474976710663, TokenText: "1.7",
		Holder:    &writv1.Holder{Principal: "spiffe://example/billing", Instance: "host-1", Region: "eu"},
		Ttl:       durationpb.New(10 * time.Second),
		GrantedAt: timestamppb.New(instant.Add(-83 * time.Second)),
		Metadata:  []byte("run 7"), Remaining: durationpb.New(7320 * time.Millisecond), Waiters: 2, Revision: 99,
	}
}

func freeLease() *writv1.Lease {
	return &writv1.Lease{
		Resource: "orders", State: writv1.LeaseState_LEASE_STATE_FREE, Token: 281474976710659, TokenText: "1.3",
		End: writv1.EndReason_END_REASON_EXPIRED, GrantedAt: timestamppb.New(instant.Add(-72 * time.Hour)),
	}
}

const heldTable = `resource   billing/nightly
state      held
token      281474976710663 (1.7)
holder     spiffe://example/billing#host-1@eu
ttl        10s
remaining  7.32s
waiting    2
granted    1m23s ago
metadata   run 7
`

func TestGet(t *testing.T) {
	_, node := double(t)
	answers(node, "Get", &writv1.GetResponse{Lease: heldLease()})
	writ(t, "lease", "get", "billing/nightly").want(t, 0, heldTable, "")
	writ(t, "lease", "get", "billing/nightly", "-o", "json").want(t, 0, `{
  "resource": "billing/nightly",
  "state": "LEASE_STATE_HELD",
  "token": "281474976710663",
  "tokenText": "1.7",
  "holder": {
    "principal": "spiffe://example/billing",
    "instance": "host-1",
    "region": "eu"
  },
  "ttl": "10s",
  "grantedAt": "2026-03-14T02:58:37Z",
  "metadata": "cnVuIDc=",
  "remaining": "7.320s",
  "waiters": 2,
  "revision": "99"
}
`, "")
	writ(t, "lease", "get", "billing/nightly", "-o", "yaml").want(t, 0, `grantedAt: "2026-03-14T02:58:37Z"
holder:
  instance: host-1
  principal: spiffe://example/billing
  region: eu
metadata: cnVuIDc=
remaining: 7.320s
resource: billing/nightly
revision: "99"
state: LEASE_STATE_HELD
token: "281474976710663"
tokenText: "1.7"
ttl: 10s
waiters: 2
`, "")
}

func TestGetShowsTheCheckpointIfAsked(t *testing.T) {
	_, node := double(t)
	node.Script("Get", func(_ context.Context, request any, _ func() (any, error)) (any, error) {
		l := heldLease()
		if request.(*writv1.GetRequest).GetWithCheckpoint() {
			l.Checkpoint = []byte("slot 7")
		}
		return &writv1.GetResponse{Lease: l}, nil
	})
	for _, args := range [][]string{{}, {"--local"}} {
		args = append([]string{"lease", "get", "billing/nightly"}, args...)
		writ(t, args...).want(t, 0, heldTable, "")
		if r := writ(t, append(args, "--checkpoint")...); r.code != 0 || !strings.Contains(r.stdout, "\ncheckpoint  slot 7\n") {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// A terminal is never at the mercy of what somebody has stored.
func TestGetShowsBytesAsText(t *testing.T) {
	_, node := double(t)
	l := heldLease()
	l.Metadata = []byte("\x1b[2J\xff")
	l.Holder.Instance = "a\x1bb"
	answers(node, "Get", &writv1.GetResponse{Lease: l})
	got := writ(t, "lease", "get", "billing/nightly").stdout
	if strings.Contains(got, "\x1b") || !strings.Contains(got, `metadata   "\x1b[2J\xff"`) {
		t.Errorf("got %q", got)
	}
}

func TestGetFallsBackToOneNode(t *testing.T) {
	_, node := double(t)
	node.Script("Get", func(_ context.Context, request any, _ func() (any, error)) (any, error) {
		if request.(*writv1.GetRequest).GetWithDeadline() {
			return nil, lease.Errorf(lease.ReasonNoQuorum, "no majority")
		}
		l := heldLease()
		l.Remaining, l.Waiters = nil, 0
		return &writv1.GetResponse{Lease: l}, nil
	})
	r := writ(t, "lease", "get", "billing/nightly", "--timeout", "8s")
	if r.code != 0 || strings.Contains(r.stdout, "remaining") || !strings.HasPrefix(r.stderr, "writ: no coordinator answers, so this is what one node has seen") {
		t.Errorf("got %+v", r)
	}
	if r := writ(t, "lease", "get", "billing/nightly", "--local"); r.code != 0 || r.stderr != "" {
		t.Errorf("with --local: %+v", r)
	}
}

func TestList(t *testing.T) {
	_, node := double(t)
	answers(node, "List", &writv1.ListResponse{Leases: []*writv1.Lease{heldLease(), freeLease()}, Revision: 99})
	writ(t, "lease", "list").want(t, 0, `RESOURCE         STATE           TOKEN  HOLDER                              GRANTED
billing/nightly  held            1.7    spiffe://example/billing#host-1@eu  1m23s ago
orders           free (expired)  1.3    -                                   2026-03-11T03:00:00Z
`, "")
	writ(t, "lease", "list", "-o", "json", "nothing").want(t, 0, `{
  "leases": [
    {
      "resource": "billing/nightly",
      "state": "LEASE_STATE_HELD",
      "token": "281474976710663",
      "tokenText": "1.7",
      "holder": {
        "principal": "spiffe://example/billing",
        "instance": "host-1",
        "region": "eu"
      },
      "ttl": "10s",
      "grantedAt": "2026-03-14T02:58:37Z",
      "metadata": "cnVuIDc=",
      "remaining": "7.320s",
      "waiters": 2,
      "revision": "99"
    },
    {
      "resource": "orders",
      "state": "LEASE_STATE_FREE",
      "token": "281474976710659",
      "tokenText": "1.3",
      "grantedAt": "2026-03-11T03:00:00Z",
      "end": "END_REASON_EXPIRED"
    }
  ],
  "revision": "99"
}
`, "")
}

func TestListPages(t *testing.T) {
	double(t)
	for _, name := range []string{"a/1", "a/2", "a/3", "b/1"} {
		if r := writ(t, "lease", "acquire", name); r.code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	r := writ(t, "lease", "list", "a/", "--limit", "2")
	if strings.Count(r.stdout, "a/") != 2 || r.stderr != "writ: there are more than 2; see --limit\n" {
		t.Errorf("with a limit: %+v", r)
	}
	if r := writ(t, "lease", "list", "a/", "--held"); strings.Count(r.stdout, "a/") != 3 || r.stderr != "" {
		t.Errorf("without: %+v", r)
	}
}

// One command acquires, others of the same account go on with its lease.
func TestALeaseFromHandToHand(t *testing.T) {
	quorum, _ := double(t)
	r := writ(t, "lease", "acquire", "jobs/a", "--metadata", "m", "--request-id", "r1", "-o", "json", "--region", "eu", "--writ")
	if r.code != 0 || field(t, r.stdout, "requestId") != "r1" || field(t, r.stdout, "writ") != "writ of jobs/a under 1.1" {
		t.Fatalf("acquire: %+v", r)
	}
	if got := field(t, r.stdout, "holder.instance"); !strings.HasPrefix(got, "cli-") || !strings.Contains(got, "@") {
		t.Errorf("the instance is %q, want cli-USER@HOST", got)
	}
	token := field(t, r.stdout, "token")
	if again := writ(t, "lease", "acquire", "jobs/a", "--request-id", "r1", "-o", "json"); field(t, again.stdout, "token") != token {
		t.Errorf("the same request got %+v", again)
	}
	held := writ(t, "lease", "acquire", "jobs/a", "--instance", "other")
	held.want(t, 3, "", "writ: HELD: somebody else holds it\n")
	writ(t, "lease", "renew", "jobs/a", "--token", token).want(t, 0, "renewed jobs/a\n", "")
	writ(t, "lease", "renew", "jobs/a", "--token", "1.9").want(t, 2, "", "writ: NOT_HOLDER\n")
	writ(t, "lease", "checkpoint", "jobs/a", "--token", token, "--data", "42").want(t, 0, "stored 2 bytes for jobs/a\n", "")
	file := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(file, []byte("43!"), 0o600); err != nil {
		t.Fatal(err)
	}
	writ(t, "lease", "checkpoint", "jobs/a", "--token", token, "--file", file).want(t, 0, "stored 3 bytes for jobs/a\n", "")
	writ(t, "lease", "release", "jobs/a", "--token", "1.1").want(t, 0, "released jobs/a\n", "")
	writ(t, "lease", "release", "jobs/a", "--token", "1.1").want(t, 2, "", "writ: RELEASED\n")
	if r := writ(t, "lease", "acquire", "jobs/a", "-o", "json"); field(t, r.stdout, "checkpoint") != "NDMh" {
		t.Errorf("the next holder got %+v", r)
	}
	if got := quorum.Info("jobs/a").State; got != lease.Held {
		t.Errorf("acquire without --hold left it %v", got)
	}
}

func TestAcquireForPeople(t *testing.T) {
	double(t)
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me", "--request-id", "r1", "--ttl", "30s").want(t, 0, `resource    jobs/a
token       281474976710657 (1.1)
holder      spiffe://test/client#me
ttl         30s
request id  r1
`, "")
}

// --wait ends with the holder's name, and gives up the place in the queue.
func TestAcquireWaits(t *testing.T) {
	_, node := double(t)
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me")
	r := writ(t, "lease", "acquire", "jobs/a", "--instance", "other", "--wait", "300ms", "-o", "json")
	if r.code != 3 || field(t, r.stderr, "error.reason") != "HELD" || field(t, r.stderr, "error.holder.instance") != "me" || field(t, r.stderr, "error.tokenText") != "1.1" {
		t.Errorf("got %+v", r)
	}
	if node.Calls("CancelAcquire") != 1 {
		t.Errorf("cancelled %d times, want once", node.Calls("CancelAcquire"))
	}
}

func TestAcquireCollectsWhatIsReleasedMeanwhile(t *testing.T) {
	quorum, node := double(t)
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me")
	node.Script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		quorum.End("jobs/a", lease.EndReleased)
		return next()
	})
	if r := writ(t, "lease", "acquire", "jobs/a", "--instance", "other", "--wait", "1m", "-o", "json"); r.code != 0 || field(t, r.stdout, "tokenText") != "1.2" {
		t.Errorf("got %+v", r)
	}
}

func TestHoldReleasesAtTheEnd(t *testing.T) {
	quorum, node := double(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	renewed := make(chan struct{}, 100)
	node.Script("Renew", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		renewed <- struct{}{}
		return next()
	})
	go func() {
		<-renewed
		cancel()
	}()
	r := writWith(ctx, t, "lease", "acquire", "jobs/a", "--hold", "--ttl", "3s")
	if r.code != 0 || r.stderr != "writ: holding jobs/a until Ctrl-C\n" || !strings.Contains(r.stdout, "281474976710657 (1.1)") {
		t.Errorf("got %+v", r)
	}
	if info := quorum.Info("jobs/a"); info.State != lease.Free || info.End != lease.EndReleased {
		t.Errorf("left it %v (%v)", info.State, info.End)
	}
}

// What cannot be told to anybody is not kept from everybody.
func TestHoldReleasesWhatItCannotShow(t *testing.T) {
	quorum, node := double(t)
	fails(node, "IssueWrit", lease.Errorf(lease.ReasonInternal, "no key"))
	writ(t, "lease", "acquire", "jobs/a", "--hold", "--writ", "--ttl", "1h").want(t, 1, "",
		"writ: jobs/a is acquired under token 1.1, but its writ is not signed: INTERNAL: no key\n")
	if info := quorum.Info("jobs/a"); info.State != lease.Free || info.End != lease.EndReleased {
		t.Errorf("left it %v (%v)", info.State, info.End)
	}
}

// Every command tells what a node refuses with, by sentence and by exit code.
func TestRefused(t *testing.T) {
	_, node := double(t)
	for line, method := range map[string]string{
		"acquire a": "Acquire", "acquire a --wait 1m": "Acquire", "get a": "Get", "get a --local": "Get", "list": "List", "list -w": "Watch",
		"watch": "Watch", "renew a --token 1.1": "Renew", "release a --token 1.1": "Release",
		"checkpoint a --token 1.1 --data x": "Checkpoint", "force-release a --reason x -y": "ForceRelease",
	} {
		fails(node, method, lease.Errorf(lease.ReasonDenied, "not yours"))
		writ(t, append([]string{"lease"}, strings.Fields(line)...)...).want(t, 4, "", "writ: DENIED: not yours\n")
	}
}

// What is changed is answered as data, too.
func TestChangesAsJSON(t *testing.T) {
	double(t)
	for _, c := range []struct{ line, want string }{
		{"acquire a --instance me --request-id r1", `{"holder":{"instance":"me","principal":"spiffe://test/client"},` +
			`"requestId":"r1","resource":"a","token":"281474976710657","tokenText":"1.1","ttl":"10s"}`},
		{"checkpoint a --token 1.1 --instance me --data x", `{}`},
		{"release a --token 1.1 --instance me", `{}`},
	} {
		r := writ(t, append([]string{"lease", "-o", "json"}, strings.Fields(c.line)...)...)
		var got map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
			t.Fatalf("%s: %v in %+v", c.line, err, r)
		}
		delete(got, "grantedAt") // which is now
		if raw, _ := json.Marshal(got); r.code != 0 || r.stderr != "" || string(raw) != c.want {
			t.Errorf("%s: %+v, want %s", c.line, r, c.want)
		}
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 7318 * time.Millisecond: "7.32s", 42*time.Second + 400*time.Millisecond: "42s", 61 * time.Second: "1m1s",
		90 * time.Minute: "1h30m", 49*time.Hour + 20*time.Second: "2d1h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestHoldEndsWithTheLease(t *testing.T) {
	quorum, node := double(t)
	node.Script("Renew", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		quorum.End("jobs/a", lease.EndForced)
		return next()
	})
	if r := writ(t, "lease", "acquire", "jobs/a", "--hold", "--ttl", "3s"); r.code != 7 || !strings.Contains(r.stderr, "the server ended it") {
		t.Errorf("got %+v", r)
	}
}

func TestForceRelease(t *testing.T) {
	quorum, node := double(t)
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me")
	force := func(args ...string) result {
		return writ(t, append([]string{"lease", "force-release", "jobs/a"}, args...)...)
	}
	force("--yes").want(t, 1, "", "writ: INVALID: --reason is missing; say why; it stands in the audit log\n")
	force("--reason", "why").want(t, 1, "", "writ: INVALID: --yes is not given and there is no terminal to ask at; give it to go on without a question\n")
	force("--reason", "why", "--yes", "--token", "1.9").want(t, 2, "", "writ: STALE_TOKEN: jobs/a is held under 1.1\n")
	force("--reason", "why", "--yes").want(t, 0, "spiffe://test/client#me cannot renew jobs/a under token 1.1 any more; it is free within 10s\n", "")
	if quorum.Info("jobs/a").End != lease.EndForced {
		t.Error("it was not forced")
	}
	force("--reason", "why", "--yes").want(t, 1, "", "writ: NOT_FOUND: jobs/a is not held\n")

	// Without a token it is asked for once: a second time it might hit the next holder.
	calls := node.Calls("ForceRelease")
	fails(node, "ForceRelease", lease.ErrUnknownOutcome)
	if r := force("--reason", "why", "--yes", "--timeout", "1s"); r.code != 5 || node.Calls("ForceRelease") != calls+1 {
		t.Errorf("asked %d times: %+v", node.Calls("ForceRelease")-calls, r)
	}
}

// A release whose answer was lost is found out to have worked; one that was refused is not.
func TestReleaseAfterALostAnswer(t *testing.T) {
	_, node := double(t)
	r := writ(t, "lease", "acquire", "jobs/a", "-o", "json")
	lost := false
	node.Script("Release", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		response, err := next()
		if !lost {
			lost = true
			return nil, lease.ErrUnknownOutcome
		}
		return response, err
	})
	writ(t, "lease", "release", "jobs/a", "--token", field(t, r.stdout, "token")).want(t, 0, "released jobs/a\n", "")
	lost = false
	writ(t, "lease", "release", "jobs/a", "--token", "1.9").want(t, 2, "", "writ: NOT_HOLDER\n")
}
