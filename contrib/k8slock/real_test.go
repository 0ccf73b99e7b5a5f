package k8slock_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection"

	"github.com/writ-io/writ/contrib/k8slock"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// startQuorum starts three nodes as a process, and puts how to reach them into the environment.
func startQuorum(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	writ := filepath.Join(dir, "writ")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", writ, "./cmd/writ")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	state := filepath.Join(dir, "dev")
	dev := exec.Command(writ, "dev", "--dir", state, "--base-port", "0")
	out, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		_ = dev.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "source ") {
	}
	env, err := os.ReadFile(filepath.Join(state, "env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(env)) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		t.Setenv(name, strings.Trim(value, "'"))
	}
}

// The loop of client-go elects one leader of three on a real quorum: at first, after a stop, and after a loss.
func TestElectionOnARealQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a quorum")
	}
	startQuorum(t)
	type beginning struct {
		by    int
		write fence.Write
	}
	began := make(chan beginning, 3)
	ended := make([]chan error, 3)
	stop := make([]context.CancelFunc, 3)
	var operator *lease.Client
	for i := range ended {
		cfg, err := lease.ConfigFromEnv()
		if err != nil {
			t.Fatal(err)
		}
		client, err := lease.Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() }) // always nil
		operator = client
		lock, err := k8slock.New(client, k8slock.Config{Resource: resource, TTL: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		stop[i], ended[i] = cancel, make(chan error, 1)
		go func() { // joined through ended
			ended[i] <- k8slock.Run(ctx, lock, leaderelection.LeaderElectionConfig{
				LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 200 * time.Millisecond,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(ctx context.Context) {
						write, _ := fence.FromContext(ctx)
						began <- beginning{i, write}
						<-ctx.Done()
					},
					OnStoppedLeading: func() {},
				},
			})
		}()
	}
	var last fence.Token
	next := func() int {
		t.Helper()
		b := <-began
		if b.write.Token <= last {
			t.Errorf("%d leads under %v after %v", b.by, b.write.Token, last)
		}
		last = b.write.Token
		return b.by
	}
	first := next()
	stop[first]()
	if err := <-ended[first]; !errors.Is(err, context.Canceled) {
		t.Errorf("a leader that was stopped: %v", err)
	}
	second := next()
	if _, err := operator.ForceRelease(t.Context(), resource, lease.ForceReleaseOptions{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended[second]; !errors.Is(err, lease.ErrLost) {
		t.Errorf("a leader whose lease was taken away: %v", err)
	}
	third := next()
	if third == first || third == second {
		t.Errorf("%d leads, after %d and %d", third, first, second)
	}
	stop[third]()
	if err := <-ended[third]; !errors.Is(err, context.Canceled) {
		t.Errorf("the last leader, which was stopped: %v", err)
	}
}
