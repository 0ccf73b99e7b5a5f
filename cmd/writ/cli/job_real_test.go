package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

// A job of a program is seen, paused, triggered and resumed, on real nodes.
func TestJobsForReal(t *testing.T) {
	l := goLive(t)
	l.must(1, "NOT_FOUND", "job", "get", "reports/nightly")
	cfg, err := lease.ConfigFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	client, err := lease.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	jobs, err := singleton.New(client, singleton.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	fail := make(chan error, 1)
	running.Go(func() {
		err := jobs.Cron(ctx, "reports/nightly", "0 3 1 1 *", func(context.Context, singleton.Tick) error {
			select {
			case err := <-fail:
				return err
			default:
				return nil
			}
		}, singleton.WithZone("Europe/Berlin"))
		if ctx.Err() == nil {
			t.Error(err)
		}
	})
	for held := false; !held; { // the job is there when its state has been stored
		info, err := client.Get(t.Context(), "reports/nightly", lease.GetOptions{WithCheckpoint: true})
		held = err == nil && len(info.Checkpoint) > 0
	}

	l.must(0, "reports/nightly  waiting  0 3 1 1 *", "job", "list")
	l.must(0, "01-01 03:00:00 CET", "job", "get", "reports/nightly")
	l.must(0, "paused reports/nightly", "job", "pause", "reports/nightly", "--note", "year end")
	l.must(0, "year end", "job", "get", "reports/nightly")
	var view struct {
		Paused struct{ Note, By string }
		Next   []string
		Zone   string
	}
	if err := json.Unmarshal([]byte(l.must(0, "", "job", "get", "reports/nightly", "-o", "json").stdout), &view); err != nil {
		t.Fatal(err)
	}
	if view.Paused.Note != "year end" || view.Paused.By == "" || len(view.Next) == 0 || !strings.HasSuffix(view.Next[0], "+01:00") || view.Zone != "Europe/Berlin" {
		t.Errorf("as JSON: %+v", view)
	}

	// Triggers run whether or not it is paused, once under one id.
	r := l.must(0, "done", "job", "trigger", "reports/nightly", "--id", "now", "--wait")
	run := strings.TrimSpace(strings.TrimPrefix(r.stderr, "writ: triggered "))
	l.must(0, "done", "job", "trigger", "reports/nightly", "--id", "now", "--wait")
	// Who follows it sees what was, and then what comes, each once.
	tail := launch(t, nil, "job", "history", "reports/nightly", "--watch")
	follows := func(what string) {
		t.Helper()
		if !tail.stdout.Scan() || !strings.Contains(tail.stdout.Text(), what) {
			t.Errorf("the next line is %q, want %q in it", tail.stdout.Text(), what)
		}
	}
	follows("done")
	fail <- errors.New("no paper")
	l.must(1, "no paper", "job", "trigger", "reports/nightly", "--wait")
	follows("no paper")
	if err := tail.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for tail.stdout.Scan() {
		t.Errorf("then it said %q", tail.stdout.Text())
	}
	if code := tail.end(t); code != 0 || tail.stderr.Len() > 0 {
		t.Errorf("ended by Ctrl-C with %d", code)
	}
	history := l.must(0, "failed", "job", "history", "reports/nightly").stdout
	if strings.Count(history, "triggered by") != 2 || !strings.Contains(history, "no paper") {
		t.Errorf("the history:\n%s", history)
	}
	if yaml := l.must(0, "", "job", "history", "reports/nightly", "-o", "yaml").stdout; !strings.Contains(yaml, run) {
		t.Errorf("run %q is not in the history:\n%s", run, yaml)
	}
	l.must(0, "resumed", "job", "resume", "reports/nightly")
	if again := l.must(0, "waiting", "job", "list", "reports/"); strings.Contains(again.stdout, "paused") {
		t.Errorf("after resume:\n%s", again.stdout)
	}

	l.must(1, "note", "job", "pause", "reports/nightly", "--note", strings.Repeat("x", 600))
	l.must(1, "id", "job", "trigger", "reports/nightly", "--id", "a b")
	l.must(0, "", "lease", "acquire", "reports/other")
	for _, command := range []string{"get", "pause", "resume", "trigger", "history"} {
		l.must(1, "NOT_FOUND", "job", command, "reports/other")
	}
}
