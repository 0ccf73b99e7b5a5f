//go:build unix

package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Variables that make the test binary an agent.
const (
	beAgent     = "TEST_BE_AGENT" // the data directory
	beAgentHook = "TEST_AGENT_HOOK"
	beAgentSafe = "TEST_AGENT_IDEMPOTENT"
	patience    = time.Minute
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(beAgent); dir != "" {
		os.Exit(agentProcess(dir))
	}
	os.Exit(m.Run())
}

// agentProcess is an agent that is asked for one task, and prints its result.
func agentProcess(dir string) int {
	quorum := newFakeQuorum()
	quorum.wanted = []*writv1.Task{task("g-1.1", 5, 1, drain)}
	a, err := New(Config{Name: "a", Region: "eu", DataDir: dir, Quorum: quorum, Groups: []Group{{Name: "g", Hooks: map[writv1.HookKind]Hook{
		drain: &Command{Args: []string{"/bin/sh", "-c", os.Getenv(beAgentHook)}, Again: os.Getenv(beAgentSafe) != ""},
	}}}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			quorum.mu.Lock()
			results, changed := quorum.results, quorum.changed
			quorum.mu.Unlock()
			if len(results) > 0 {
				fmt.Println(protojson.Format(results[0]))
				cancel()
				return
			}
			<-changed
		}
	}()
	if err := a.Run(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func script(text string) *Command { return &Command{Args: []string{"/bin/sh", "-c", text}} }

func TestACommandIsToldAndTells(t *testing.T) {
	c := script(`echo "$WRIT_GROUP $WRIT_PROMOTION $WRIT_STEP $WRIT_TERM $WRIT_FROM $WRIT_TO $WRIT_MODE $WRIT_TOKEN $WRIT_OLD_TOKEN $WRIT_PERCENT $WRIT_POSITION $MORE"
		echo '{"position":{"log":"7/1","bytes":"99","text":"0/63"},"entries":["one"]}' > "$WRIT_RESULT"`)
	c.Env = []string{"MORE=and more"}
	out, err := c.Run(t.Context(), &writv1.Task{
		Group: "g", Promotion: "g-1.2", Step: 3, Term: 4, From: "eu", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER,
		Token: 281474976710661, OldToken: 281474976710660, Percent: 25, Position: &writv1.Position{Bytes: 5, Text: "0/5"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "g g-1.2 3 4 eu us switchover 281474976710661 281474976710660 25 0/5 and more\n"; out.Output != want {
		t.Errorf("output %q, want %q", out.Output, want)
	}
	if out.Position.GetBytes() != 99 || len(out.Entries) != 1 {
		t.Errorf("outcome: %+v", out)
	}
}

func TestACommandThatFails(t *testing.T) {
	out, err := script(`echo no; echo way >&2; exit 3`).Run(t.Context(), &writv1.Task{})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || out.Output != "no\nway\n" {
		t.Errorf("%q, %v", out.Output, err)
	}
	if _, err := (&Command{Args: []string{"/does/not/exist"}}).Run(t.Context(), &writv1.Task{}); err == nil || !strings.Contains(err.Error(), "cannot start") {
		t.Errorf("no such program: %v", err)
	}
	if _, err := script(`echo '{"position":' > "$WRIT_RESULT"`).Run(t.Context(), &writv1.Task{}); err == nil {
		t.Error("a broken result was taken")
	}
	if _, err := script(`head -c 100000 /dev/zero > "$WRIT_RESULT"`).Run(t.Context(), &writv1.Task{}); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large result: %v", err)
	}
}

// A hook that writes a gibibyte must not take the memory for it, and its end is what is kept.
func TestAHookThatWritesAGibibyte(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out, err := script(`head -c 1073741824 /dev/zero | tr '\0' 'x'; echo the end`).Run(t.Context(), &writv1.Task{})
	runtime.ReadMemStats(&after)
	if err != nil || len(out.Output) != maxOutputBytes || !strings.HasSuffix(out.Output, "xthe end\n") {
		t.Fatalf("%d bytes, %v", len(out.Output), err)
	}
	if grew := after.TotalAlloc - before.TotalAlloc; grew > 4<<20 {
		t.Errorf("%d bytes were allocated", grew)
	}
}

// Whoever has left the process group and the session is ended too.
func TestTheWholeTreeIsKilled(t *testing.T) {
	ctx, cancel := context.WithCancel(withMark(t.Context(), rand.Text()))
	ended := startTree(ctx, t)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if left := marked(ctx); left != 0 {
		t.Errorf("%d processes are left", left)
	}
}

// Two agents on one machine may have tasks of the same name: those of two quorums, or of two regions. One that finds after its
// start that it has ended in the middle of a hook ends what is left of that, and not what the other one runs.
func TestAnAgentKillsWhatIsItsOwn(t *testing.T) {
	begun := Entry{Key: keyOf(task("g-1.1", 1, 77, drain)), Order: orderOf(task("g-1.1", 1, 77, drain))}
	var dirs, marks [2]string
	for i := range dirs {
		dirs[i] = t.TempDir()
		journal, _, err := OpenJournal(dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		marks[i] = journal.mark(begun.Key)
		if err := errors.Join(journal.Save(begun), journal.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var runs [2]context.Context
	for i := range runs {
		ctx, cancel := context.WithCancel(withMark(t.Context(), marks[i]))
		ended := startTree(ctx, t)
		defer func() {
			cancel()
			<-ended //nolint:errcheck // it was killed
		}()
		runs[i] = ctx
	}
	a, err := New(Config{Name: "a", Region: "eu", DataDir: dirs[0], Quorum: newFakeQuorum(), Groups: []Group{{Name: "g"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.journal.Close(); err != nil {
		t.Fatal(err)
	}
	if left := marked(runs[0]); left != 0 {
		t.Errorf("%d processes are left of its own", left)
	}
	if marked(runs[1]) == 0 {
		t.Error("no process is left of the other one's")
	}
}

// startTree runs a hook under ctx whose processes are in two sessions, and answers when all are there.
func startTree(ctx context.Context, t *testing.T) (ended chan error) {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	if err := syscall.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() {
		_, err := script(`setsid sh -c 'sh -c "echo > `+ready+`; sleep 1000" & sleep 1000' & sleep 1000`).Run(ctx, &writv1.Task{})
		ended <- err
	}()
	if _, err := os.ReadFile(ready); err != nil { // until it writes
		t.Fatal(err)
	}
	return ended
}

// marked counts the processes of the hook that runs under ctx.
func marked(ctx context.Context) int { return len(markedProcesses(runVariable + "=" + Mark(ctx))) }

// What a hook leaves running on purpose, such as a server, is not waited for.
func TestAHookMayLeaveAServerBehind(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	out, err := script(`sleep 600 & echo $! > `+pidFile+`; echo started`).Run(t.Context(), &writv1.Task{})
	if err != nil || out.Output != "started\n" || time.Since(began) > patience {
		t.Errorf("%q, %v after %v", out.Output, err, time.Since(began))
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("it was ended: %v", err)
	}
}

// The agent itself is killed in the middle of a hook, as by the kernel, and started again.
func TestAnAgentThatIsKilledInTheMiddleOfAHook(t *testing.T) {
	for _, idempotent := range []string{"", "yes"} {
		dir := t.TempDir()
		runs, release := filepath.Join(dir, "runs"), filepath.Join(dir, "release")
		start := func() *exec.Cmd {
			cmd := exec.Command(os.Args[0], "-test.run=^$")
			cmd.Env = append(os.Environ(), beAgent+"="+filepath.Join(dir, "data"), beAgentSafe+"="+idempotent,
				beAgentHook+"=echo run >> "+runs+"; while [ ! -e "+release+" ]; do sleep 0.05; done")
			return cmd
		}
		first := start()
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(patience)
		for data := []byte(nil); len(data) == 0; data, _ = os.ReadFile(runs) {
			if time.Now().After(deadline) {
				t.Fatal("the hook was not started")
			}
			runtime.Gosched()
		}
		if err := first.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = first.Wait() // it was killed
		if err := os.WriteFile(release, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := start().CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(runs)
		if err != nil {
			t.Fatal(err)
		}
		switch ran := strings.Count(string(data), "run"); {
		case idempotent != "" && (ran != 2 || !strings.Contains(string(out), "HOOK_OUTCOME_DONE")):
			t.Errorf("an idempotent hook ran %d times: %s", ran, out)
		case idempotent == "" && (ran != 1 || !strings.Contains(string(out), "may have run")):
			t.Errorf("another hook ran %d times: %s", ran, out)
		}
	}
}

func TestARequest(t *testing.T) {
	var body string
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data := make([]byte, 4096)
		n, _ := r.Body.Read(data)
		body = string(data[:n])
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"position":{"bytes":"12"}}`))
	}))
	defer server.Close()
	hook := &Request{URL: server.URL}
	out, err := hook.Run(t.Context(), &writv1.Task{Group: "g", Percent: 40})
	if err != nil || out.Position.GetBytes() != 12 || !strings.Contains(body, `"group":"g"`) || !strings.Contains(body, `"percent":"40"`) {
		t.Errorf("%+v, %v; it was sent %s", out, err, body)
	}
	for _, status = range []int{http.StatusInternalServerError, http.StatusFound} {
		if _, err := hook.Run(t.Context(), &writv1.Task{}); err == nil {
			t.Errorf("status %d was taken for done", status)
		}
	}
}

func TestACanaryAsksForBothOutcomes(t *testing.T) {
	stale := fence.Problem{Reason: fence.ReasonStaleToken}
	for _, c := range []struct {
		name               string
		newStatus, oldCode int
		problem            fence.Problem
		want               string // of the error; empty: none
	}{
		{"as it should be", 200, 412, stale, ""},
		{"the new one is refused", 503, 412, stale, "has to succeed"},
		{"the old one is written", 200, 200, stale, "IT WAS WRITTEN"},
		{"the old one is refused for another reason", 200, 403, fence.Problem{Reason: fence.ReasonUnknownKey}, "not as STALE_TOKEN"},
		{"the storage is down", 200, 502, fence.Problem{}, "not as STALE_TOKEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.Header.Get(fence.HeaderWrit) {
				case "new":
					w.WriteHeader(c.newStatus)
				case "old":
					w.WriteHeader(c.oldCode)
					_, _ = fmt.Fprintf(w, `{"reason":%q}`, c.problem.Reason)
				default:
					t.Error("no writ")
				}
			}))
			defer server.Close()
			_, err := (&Canary{URL: server.URL}).Run(t.Context(), &writv1.Task{Writ: "new", OldWrit: "old"})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := (&Canary{URL: "http://127.0.0.1:1"}).Run(t.Context(), &writv1.Task{Writ: "new", OldToken: 1}); err == nil || !strings.Contains(err.Error(), "old one") {
		t.Errorf("without the old writ: %v", err)
	}
	// The first tenure that there is has no token before it.
	status := http.StatusNoContent
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.Header.Get(fence.HeaderWrit) != "new" {
			t.Error("no writ")
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	first := &writv1.Task{Writ: "new", Token: 7}
	if out, err := (&Canary{URL: server.URL}).Run(t.Context(), first); err != nil || asked != 1 || !strings.Contains(out.Output, "no token before") {
		t.Errorf("the first token: %+v, %v, %d requests", out, err, asked)
	}
	status = http.StatusPreconditionFailed
	if _, err := (&Canary{URL: server.URL}).Run(t.Context(), first); err == nil || !strings.Contains(err.Error(), "has to succeed") {
		t.Errorf("the first token is refused: %v", err)
	}
}

func TestProbesOfPrograms(t *testing.T) {
	probe := func(text string) (Sight, error) {
		return (&CommandProbe{Args: []string{"/bin/sh", "-c", text}}).Look(t.Context())
	}
	s, err := probe(`echo '{"health":"degraded","headroom":700,"lag":"1.5s","writable":true,"position":{"log":"l","bytes":"7"}}'`)
	if err != nil || s.Health != writv1.Health_HEALTH_DEGRADED || *s.Headroom != 700 || *s.Lag != 1500*time.Millisecond || !*s.Writable || s.Position.GetBytes() != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	var failure *Failure
	if _, err := probe(`echo broken >&2; exit 1`); !errors.As(err, &failure) || !strings.Contains(failure.Detail, "broken") {
		t.Errorf("a failure: %v", err)
	}
	for _, text := range []string{`echo nonsense`, `echo '{"health":"fine"}'`, `echo '{"headroom":1001}'`, `echo '{"lag":"-1s"}'`} {
		if _, err := probe(text); err == nil || errors.As(err, &failure) {
			t.Errorf("%s: %v, want an error that says nothing of the data", text, err)
		}
	}
	if _, err := (&CommandProbe{Args: []string{"/does/not/exist"}}).Look(t.Context()); err == nil || errors.As(err, &failure) {
		t.Errorf("no program: %v", err)
	}
	if _, err := (&RequestProbe{URL: "http://127.0.0.1:1"}).Look(t.Context()); !errors.As(err, &failure) {
		t.Errorf("a refused connection: %v", err)
	}
}
