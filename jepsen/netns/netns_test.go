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
	if !arrives(t, a, b, "before", heard) || !arrives(t, b, a, "answer", heard) {
		t.Fatal("parties that nobody cut do not hear each other")
	}
	if err := n.Cut("a", "b"); err != nil {
		t.Fatal(err)
	}
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
	if err := n.Mend("a", "b"); err != nil {
		t.Fatal(err)
	}
	if !reads(t, b, "cut", heard) {
		t.Error("a mended cut still cuts")
	}
}

func TestUnplugged(t *testing.T) {
	n := newNet(t, "a", "b")
	a, b := pair(t, n, "a", "b")
	if err := n.Unplug("b"); err != nil {
		t.Fatal(err)
	}
	if arrives(t, a, b, "there", unheard) || arrives(t, b, a, "back", unheard) {
		t.Error("a party without a cable is heard")
	}
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
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
	if after := len(list(t)); after != before-2 {
		t.Errorf("%d namespaces are left of %d, after one network of 2 was closed", after, before)
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
