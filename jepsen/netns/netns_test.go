//go:build linux

package netns_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/netns"
)

const (
	// heard bounds the wait for what arrives, unheard is how long nothing must have arrived.
	heard   = 30 * time.Second
	unheard = 700 * time.Millisecond
)

func newNet(t *testing.T, parties ...string) *netns.Net {
	t.Helper()
	if err := netns.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	n, err := netns.New(parties...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pair connects one party to another.
func pair(t *testing.T, n *netns.Net, from, to string) (client, server net.Conn) {
	t.Helper()
	l, err := n.Listen(to, "7000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), heard)
	defer cancel()
	if client, err = n.Dial(from)(ctx, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// arrives tells whether a line gets through within a time. What does not may get through later.
func arrives(t *testing.T, from, to net.Conn, line string, within time.Duration) bool {
	t.Helper()
	if _, err := fmt.Fprintln(from, line); err != nil {
		t.Fatal(err)
	}
	return reads(t, to, line, within)
}

func reads(t *testing.T, from net.Conn, line string, within time.Duration) bool {
	t.Helper()
	if err := from.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReaderSize(from, 16).ReadString('\n')
	if err == nil && got != line+"\n" {
		t.Fatalf("read %q instead of %q", got, line)
	}
	return err == nil
}

func TestCutIsOneWayAndSilent(t *testing.T) {
	n := newNet(t, "a", "b", "c")
	a, b := pair(t, n, "a", "b")
	// The last word is a's and acknowledges b's: with one of its packets in doubt b would say nothing new.
	if !arrives(t, a, b, "before", heard) || !arrives(t, b, a, "answer", heard) || !arrives(t, a, b, "thanks", heard) {
		t.Fatal("parties that nobody cut do not hear each other")
	}
	n.Cut("a", "b")
	if arrives(t, a, b, "cut", unheard) {
		t.Error("a cut does not cut")
	}
	// The acknowledgements of b's packets are cut as well, but the packets are not.
	if !arrives(t, b, a, "back", heard) {
		t.Error("a cut cuts the opposite direction")
	}
	ac, c := pair(t, n, "a", "c")
	if !arrives(t, ac, c, "other", heard) {
		t.Error("a cut cuts from others")
	}
	n.Mend("a", "b")
	if !reads(t, b, "cut", heard) {
		t.Error("a mended cut still cuts")
	}
}

func TestUnplugged(t *testing.T) {
	n := newNet(t, "a", "b")
	a, b := pair(t, n, "a", "b")
	n.Unplug("b")
	if arrives(t, a, b, "there", unheard) || arrives(t, b, a, "back", unheard) {
		t.Error("a party without a cable is heard")
	}
	n.Heal()
	if !reads(t, b, "there", heard) || !reads(t, a, "back", heard) {
		t.Error("a party that was plugged in again is not heard")
	}
}

func TestNothingLeaves(t *testing.T) {
	n := newNet(t, "a")
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), heard)
	defer cancel()
	for _, address := range []string{outside.Addr().String(), "192.0.2.1:80"} {
		if conn, err := n.Dial("a")(ctx, address); err == nil {
			_ = conn.Close()
			t.Errorf("a party has reached %s", address)
		}
	}
	out, err := n.Command("a", "ip", "route").CombinedOutput()
	if err != nil || strings.Contains(string(out), "default") {
		t.Errorf("routes: %s, %v", out, err)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	own := newNet(t, "a")
	// The kernel gives out numbers up to 4194304 only.
	const left = "writ-jepsen-4194305-1-a"
	if out, err := exec.Command("ip", "netns", "add", left).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	other := newNet(t, "b")
	if slices.Contains(list(t), left) {
		t.Error("what a crashed test has left is still there")
	}
	for party, n := range map[string]*netns.Net{"a": own, "b": other} {
		if out, err := n.Command(party, "true").CombinedOutput(); err != nil {
			t.Errorf("a network in use is gone: %v: %s", err, out)
		}
	}
	before := len(list(t))
	if err := errors.Join(own.Close(), own.Close()); err != nil {
		t.Error(err)
	}
	if after := len(list(t)); after != before-1 {
		t.Errorf("%d namespaces are left of %d, after one network of one party was closed", after, before)
	}
}

// list answers the namespaces of this process, and those that were left.
func list(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), fmt.Sprintf("writ-jepsen-%d-", os.Getpid())) || strings.Contains(e.Name(), "-4194305-") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestNamesOfParties(t *testing.T) {
	for _, names := range [][]string{{""}, {"a b"}, {"A"}, {"a", "a"}, {"-bridge"}} {
		if n, err := netns.New(names...); err == nil {
			_ = n.Close()
			t.Errorf("parties %q were accepted", names)
		}
	}
}

func TestRefused(t *testing.T) {
	n := newNet(t, "a", "b")
	a, b := pair(t, n, "a", "b")
	n.Refuse("a", "b")
	if _, err := fmt.Fprintln(a, "broken"); err != nil {
		t.Fatal(err)
	}
	if err := a.SetReadDeadline(time.Now().Add(heard)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that is refused ends with %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), heard)
	defer cancel()
	if conn, err := n.Dial("a")(ctx, b.LocalAddr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, %v", conn, err)
	}
	n.Heal()
	c, d := pair(t, n, "a", "b")
	if !arrives(t, c, d, "healed", heard) {
		t.Error("what was healed is still refused")
	}
}

func TestShaped(t *testing.T) {
	n := newNet(t, "a", "b")
	a, b := pair(t, n, "a", "b")
	round := func() time.Duration {
		began := time.Now()
		if !arrives(t, a, b, "there", heard) || !arrives(t, b, a, "back", heard) {
			t.Fatal("nothing is heard")
		}
		return time.Since(began)
	}
	for from, to := range map[string]string{"a": "b", "b": "a"} {
		if err := n.Shape(from, to, netns.Shape{Delay: 40 * time.Millisecond, Jitter: 5 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	if took := round(); took < 80*time.Millisecond {
		t.Errorf("a round takes %v, each way delays by 40 ms", took)
	}
	// TCP gets everything through in order, whatever the link does to it.
	n.Seed(5)
	if err := n.Shape("a", "b", netns.Shape{Delay: time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.05, Duplicate: 0.1, Reorder: 0.1}); err != nil {
		t.Fatal(err)
	}
	const lines = 2000
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range lines {
			if _, err := fmt.Fprintln(a, i); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if err := b.SetReadDeadline(time.Now().Add(heard)); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(b)
	for i := range lines {
		if !scanner.Scan() || scanner.Text() != fmt.Sprint(i) {
			t.Fatalf("line %d is %q: %v", i, scanner.Text(), scanner.Err())
		}
	}
	writing.Wait()
	if err := n.Shape("a", "b", netns.Shape{Loss: 2}); err == nil {
		t.Error("a loss of 200 % was accepted")
	}
}
