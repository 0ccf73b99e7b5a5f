//go:build linux

package jepsen_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

const (
	// holderVariable makes the test binary a holder, of the resource that it names.
	holderVariable = "WRIT_JEPSEN_HOLDER"
	// holderTTL leaves a busy machine time for renewals.
	holderTTL = 3 * time.Second
	// holderLook is how often the holder looks whether it still believes.
	holderLook = 2 * time.Millisecond
	// notice is how soon a holder must know, once it runs again. It takes about a millisecond; the rest is for machines
	// that are busy. asleep is how long it must not have looked to have been stopped.
	notice = 500 * time.Millisecond
	asleep = 100 * time.Millisecond
)

// report is what a holder says on its standard output, a line of JSON each time. Instants count from boot, by a clock that
// is the same for all processes of this machine.
type report struct {
	Held     fence.Token   // the first report: the lease is held
	Instance string        // with Held
	At       clock.Instant // the holder believed at this instant, or noticed the end at it
	Until    clock.Instant // and would have until this one
	Ended    string        // the last report: why the context ended
	Awake    clock.Instant // with Ended: the first instant at which the holder looked after it had not for long
	Valid    bool          // with Ended
	Refused  string        // with Ended: what a checkpoint under the lease returned
}

// runHolder holds a lease and reports until it is lost.
func runHolder() int {
	out := json.NewEncoder(os.Stdout)
	if err := hold(context.Background(), os.Getenv(holderVariable), out); err != nil {
		fmt.Fprintln(os.Stderr, "holder:", err)
		return 1
	}
	return 0
}

func hold(ctx context.Context, resource string, out *json.Encoder) error {
	config, err := lease.ConfigFromEnv()
	if err != nil {
		return err
	}
	c, err := lease.Dial(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	h, err := c.Acquire(ctx, resource, lease.AcquireOptions{TTL: holderTTL})
	if err != nil {
		return err
	}
	if err := out.Encode(report{Held: h.Token(), Instance: c.Instance()}); err != nil {
		return err
	}
	tick := time.NewTicker(holderLook)
	defer tick.Stop()
	var looked, awake clock.Instant
	for {
		select {
		case <-h.Done():
			ended := report{Ended: h.Err().Error(), At: clock.System().Now(), Awake: awake, Valid: h.Valid()}
			if ended.At.Sub(looked) > asleep {
				ended.Awake = ended.At
			}
			ended.Refused = fmt.Sprint(h.Checkpoint(ctx, []byte("too late")))
			return out.Encode(ended)
		case <-tick.C:
			// The instant is taken first: if it is after another's grant, then the belief is for certain.
			now := clock.System().Now()
			if now.Sub(looked) > asleep {
				awake = now
			}
			looked = now
			if left := h.Remaining(); left > 0 {
				if err := out.Encode(report{At: now, Until: now.Add(left)}); err != nil {
					return err
				}
			}
		}
	}
}

// holder is a process that runs runHolder.
type holder struct {
	process *cluster.Process
	reports chan report // closed when the process has closed its output
}

func startHolder(t *testing.T, set *cluster.Processes, resource string, endpoints []string) *holder {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = write.Close() }()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holderVariable+"="+resource, "WRIT_INSECURE=true", "WRIT_ENDPOINTS="+strings.Join(endpoints, ","))
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	h := &holder{reports: make(chan report, 1<<16)} // never full, so that nobody has to listen
	if h.process, err = set.Start(cmd); err != nil {
		_ = read.Close()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(h.reports)
		for lines := bufio.NewScanner(read); lines.Scan(); {
			var r report
			if err := json.Unmarshal(lines.Bytes(), &r); err == nil {
				h.reports <- r
			}
		}
	}()
	t.Cleanup(func() {
		_ = h.process.Kill() // fails if it has ended
		<-done
		_ = read.Close()
	})
	return h
}

// next returns the next report.
func (h *holder) next(t *testing.T) report {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r, ok := <-h.reports:
		if !ok {
			t.Fatal("the holder has ended")
		}
		return r
	case <-timer.C:
		t.Fatal("the holder says nothing")
	}
	panic("unreachable")
}

// TestPausedHolderCannotOverlap stops a holder for longer than its lease: nobody else is granted the resource while the
// holder could have believed in it, and when it runs again it knows at once. S4 and S7 for pauses.
func TestPausedHolderCannotOverlap(t *testing.T) {
	c := startCluster(t, false)
	set := cluster.NewProcesses()
	t.Cleanup(set.Close)
	config := c.Client()
	rival, err := lease.Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rival.Close() })
	conn, err := c.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for round := range 2 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			resource := fmt.Sprintf("jepsen/paused-%d", round)
			pauseHolder(t, startHolder(t, set, resource, config.Endpoints), resource, rival, conn)
		})
	}
}

func pauseHolder(t *testing.T, h *holder, resource string, rival *lease.Client, conn *grpc.ClientConn) {
	first := h.next(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Renewals come every third of the TTL; the pause begins anywhere between two.
	last := first
	for renewals, until := 0, clock.Instant(0); renewals < 3; last = h.next(t) {
		if last.Until > until.Add(holderTTL/10) {
			renewals++
			until = last.Until
		}
	}
	for range rand.IntN(int(holderTTL / 3 / holderLook)) {
		last = h.next(t)
	}
	if _, err := rival.TryAcquire(ctx, resource, lease.AcquireOptions{TTL: holderTTL}); !errors.Is(err, lease.ErrHeld) {
		t.Fatalf("while the holder runs: %v", err)
	}
	if err := h.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := clock.System().Now()
	successor, err := rival.Acquire(ctx, resource, lease.AcquireOptions{TTL: holderTTL})
	if err != nil {
		t.Fatal(err)
	}
	granted := clock.System().Now()
	if err := h.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	believed := last
	for ; last.Ended == ""; last = h.next(t) {
		believed = last
	}
	t.Logf("paused for %v; the rival was granted %v after the holder's deadline; resumed, the holder knew after %v: %s",
		ms(granted.Sub(stopped)), ms(granted.Sub(believed.Until)), ms(last.At.Sub(last.Awake)), last.Ended)
	if granted.Before(believed.Until) || !believed.At.Before(granted) {
		t.Errorf("the holder believed at %d, until %d, and the rival was granted at %d", believed.At, believed.Until, granted)
	}
	if late := last.At.Sub(last.Awake); late > notice || last.Awake.Before(granted) {
		t.Errorf("the holder noticed %v after it was awake, at %d", late, last.Awake)
	}
	if last.Valid || !strings.Contains(last.Ended, lease.ErrLost.Error()) || !strings.Contains(last.Refused, lease.ErrLost.Error()) {
		t.Errorf("the holder's end: %+v", last)
	}
	if successor.Token() <= first.Held {
		t.Errorf("token %v after %v", successor.Token(), first.Held)
	}
	checkStale(ctx, t, conn, resource, first)
	if err := successor.Release(ctx); err != nil {
		t.Error(err)
	}
}

// checkStale has the old grant renewed by hand, as a program would that does not use the SDK.
func checkStale(ctx context.Context, t *testing.T, conn *grpc.ClientConn, resource string, old report) {
	t.Helper()
	response, err := writv1.NewLeaseServiceClient(conn).Renew(ctx, &writv1.RenewRequest{
		Leases: []*writv1.LeaseRef{{Resource: resource, Token: uint64(old.Held)}}, Instance: old.Instance,
	})
	if failures := response.GetFailures(); err != nil || len(failures) != 1 || failures[0].GetReason() != string(lease.ReasonExpired) {
		t.Errorf("renewal of the old grant: %v, %v", response, err)
	}
}

func ms(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
