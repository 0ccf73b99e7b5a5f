package cli

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
)

// event reads the next event of a watch, as JSON has it.
func (p *process) event(t *testing.T) (kind, state, resume string) {
	t.Helper()
	if !p.stdout.Scan() {
		t.Fatalf("the watch ended: %v, %s", p.stdout.Err(), p.stderr)
	}
	var event struct {
		Kind, ResumeToken string
		Lease             struct{ Resource, State, TokenText string }
	}
	if err := json.Unmarshal(p.stdout.Bytes(), &event); err != nil {
		t.Fatalf("%v in %q", err, p.stdout.Text())
	}
	state = strings.TrimSpace(event.Lease.Resource + " " + event.Lease.TokenText + " " + strings.TrimPrefix(event.Lease.State, "LEASE_STATE_"))
	return strings.TrimPrefix(event.Kind, "KIND_"), state, event.ResumeToken
}

func (p *process) wantEvent(t *testing.T, kind, state string) (resume string) {
	t.Helper()
	gotKind, gotState, resume := p.event(t)
	if gotKind != kind || gotState != state {
		t.Fatalf("event %s of %q, want %s of %q", gotKind, gotState, kind, state)
	}
	return resume
}

// A watch goes on when its node dies, another one goes on where it ended, and Ctrl-C is a good end.
func TestWatch(t *testing.T) {
	quorum := leasetest.NewQuorum(nil)
	nodes := []*leasetest.Node{leasetest.NewNode(quorum, "node-1", "eu"), leasetest.NewNode(quorum, "node-2", "us")}
	serve(t, nodes...)
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me")
	writ(t, "lease", "acquire", "other", "--instance", "me")

	p := launch(t, nil, "lease", "watch", "jobs/", "-o", "json")
	p.wantEvent(t, "STATE", "jobs/a 1.1 HELD")
	p.wantEvent(t, "SYNCED", "")
	writ(t, "lease", "release", "jobs/a", "--token", "1.1", "--instance", "me")
	resume := p.wantEvent(t, "CHANGED", "jobs/a 1.1 FREE")

	// Whichever node serves the watch, it dies; the other one goes on.
	dead := nodes[0]
	if dead.Calls("Watch") == 0 {
		dead = nodes[1]
	}
	dead.Stop()
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me")
	p.wantEvent(t, "CHANGED", "jobs/a 1.3 HELD")
	if err := p.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	p = launch(t, nil, "lease", "watch", "jobs/", "-o", "json", "--resume", resume)
	p.wantEvent(t, "CHANGED", "jobs/a 1.3 HELD")
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestWatchForPeople(t *testing.T) {
	quorum, _ := double(t)
	writ(t, "lease", "acquire", "jobs/a", "--instance", "me")
	writ(t, "lease", "acquire", "jobs/b", "--instance", "me")
	quorum.End("jobs/b", lease.EndExpired)
	p := launch(t, nil, "lease", "list", "jobs/", "--held", "--watch")
	for i, want := range []string{
		"state     jobs/a                    held             1.1       spiffe://test/client#me",
		"synced",
		"changed   jobs/a                    free (forced)    1.1       spiffe://test/client#me",
	} {
		if i == 2 {
			quorum.End("jobs/a", lease.EndForced)
		}
		if !p.stdout.Scan() || p.stdout.Text() != want {
			t.Fatalf("it said %q, want %q", p.stdout.Text(), want)
		}
	}
	if err := p.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestWatchRefused(t *testing.T) {
	_, node := double(t)
	fails(node, "Watch", lease.Errorf(lease.ReasonDenied, "not yours"))
	writ(t, "lease", "watch").want(t, 4, "", "writ: DENIED: not yours\n")
}
