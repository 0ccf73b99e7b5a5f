//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// prefix of the namespaces' names; the id of the process that made them follows.
	prefix = "writ-jepsen-"
	// directory where the program ip keeps them.
	directory = "/run/netns"
	// bridge is the name of the namespace of the bridge; no party can have it.
	bridge = "-bridge"
	// nowhere is a link address that nobody has.
	nowhere = "02:00:00:00:ff:ff"
	// MaxParties is how many addresses there are.
	MaxParties = 200
)

// ErrUnsupported means that this machine, or this user, cannot make networks.
var ErrUnsupported = errors.New("netns: network namespaces cannot be used here")

// Net is a network. Its methods are safe for concurrent use.
type Net struct {
	id    string
	names []string

	mu     sync.Mutex
	cut    map[[2]int]bool // guarded by mu; from, to
	closed bool            // guarded by mu
}

// made counts the networks of this process.
var made atomic.Int64

// Supported returns an [ErrUnsupported] that says what is missing, or nil.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: run it as root", ErrUnsupported)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("%w: install iproute2: %w", ErrUnsupported, err)
	}
	return nil
}

// New makes a network of the parties named, who all reach each other.
func New(parties ...string) (*Net, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	if len(parties) > MaxParties {
		return nil, fmt.Errorf("netns: %d parties: %d is the most", len(parties), MaxParties)
	}
	for i, name := range parties {
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || slices.Index(parties, name) != i {
			return nil, fmt.Errorf("netns: party %q: use letters and digits, each name once", name)
		}
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	n := &Net{
		id: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), made.Add(1)), names: slices.Clone(parties), cut: make(map[[2]int]bool),
	}
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// build makes the namespaces and joins them.
func (n *Net) build() error {
	var namespaces, links strings.Builder
	fmt.Fprintf(&namespaces, "netns add %s\n", n.namespace(bridge))
	fmt.Fprintf(&links, "link add hub type bridge\nlink set hub up\n")
	for i, name := range n.names {
		fmt.Fprintf(&namespaces, "netns add %s\n", n.namespace(name))
		fmt.Fprintf(&links, "link add %s type veth peer name eth0 address %s netns %s\n", port(i), linkAddress(i), n.namespace(name))
		fmt.Fprintf(&links, "link set %s master hub\nlink set %s up\n", port(i), port(i))
	}
	if err := batch("", namespaces.String()); err != nil {
		return err
	}
	if err := batch(n.namespace(bridge), links.String()); err != nil {
		return err
	}
	for i, name := range n.names {
		var b strings.Builder
		fmt.Fprintf(&b, "link set lo up\nlink set eth0 addrgenmode none\nlink set eth0 up\naddr add %s/24 dev eth0\n", address(i))
		for j := range n.names {
			if j != i {
				fmt.Fprintf(&b, "neigh replace %s dev eth0 lladdr %s nud permanent\n", address(j), linkAddress(j))
			}
		}
		if err := batch(n.namespace(name), b.String()); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the network. Programs that still run in it are cut off from the other parties.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	all, err := namespaces()
	for _, name := range all {
		if strings.HasPrefix(name, n.id) {
			err = errors.Join(err, batch("", "netns del "+name+"\n"))
		}
	}
	return err
}

// Address is the IP address of a party.
func (n *Net) Address(party string) string { return address(n.index(party)) }

// Command prepares a program to be run by a party. Its process is the program's own, so that it can be signalled.
func (n *Net) Command(party, path string, args ...string) *exec.Cmd {
	n.index(party)
	return exec.Command("ip", append([]string{"netns", "exec", n.namespace(party), path}, args...)...)
}

// Cut drops what one party sends to another, until Mend.
func (n *Net) Cut(from, to string) error { return n.direct(from, to, true) }

// Mend ends a cut; if there is none, it does nothing.
func (n *Net) Mend(from, to string) error { return n.direct(from, to, false) }

func (n *Net) direct(from, to string, cut bool) error {
	i, j := n.index(from), n.index(to)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[[2]int{i, j}] == cut {
		return nil
	}
	n.cut[[2]int{i, j}] = cut
	there := linkAddress(j)
	if cut {
		there = nowhere
	}
	return batch(n.namespace(from), fmt.Sprintf("neigh replace %s dev eth0 lladdr %s nud permanent\n", address(j), there))
}

// Unplug takes a party off the bridge, as if its cable were pulled.
func (n *Net) Unplug(party string) error { return n.plug(party, "down") }

// Plug puts it back.
func (n *Net) Plug(party string) error { return n.plug(party, "up") }

func (n *Net) plug(party, state string) error {
	return batch(n.namespace(bridge), fmt.Sprintf("link set %s %s\n", port(n.index(party)), state))
}

// Heal mends every cut and plugs everybody in.
func (n *Net) Heal() error {
	n.mu.Lock()
	var cut [][2]int
	for pair, is := range n.cut {
		if is {
			cut = append(cut, pair)
		}
	}
	n.mu.Unlock()
	var all error
	for _, pair := range cut {
		all = errors.Join(all, n.Mend(n.names[pair[0]], n.names[pair[1]]))
	}
	for _, name := range n.names {
		all = errors.Join(all, n.Plug(name))
	}
	return all
}

// index is a party's number. Only the test itself names parties, so an unknown one is its mistake.
func (n *Net) index(party string) int {
	i := slices.Index(n.names, party)
	if i < 0 {
		panic(fmt.Sprintf("netns: there is no party %q", party))
	}
	return i
}

func (n *Net) namespace(party string) string { return n.id + party }

func port(i int) string        { return fmt.Sprintf("port%d", i) }
func address(i int) string     { return fmt.Sprintf("10.77.0.%d", i+1) }
func linkAddress(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i+1) }

// batch carries out commands of the program ip in a namespace; empty: in this one.
func batch(namespace, commands string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("netns: ip %s: %w\n%s%s", strings.Join(args, " "), err, commands, out)
	}
	return nil
}

// sweep removes the networks of processes that are gone.
func sweep() error {
	all, err := namespaces()
	for _, name := range all {
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		if _, bad := strconv.Atoi(owner); bad != nil {
			continue
		}
		if _, gone := os.Stat(filepath.Join("/proc", owner)); errors.Is(gone, os.ErrNotExist) {
			if err := batch("", "netns del "+name+"\n"); err != nil && exists(name) { // or somebody else was faster
				return err
			}
		}
	}
	return err
}

func exists(name string) bool {
	_, err := os.Stat(filepath.Join(directory, name))
	return err == nil
}

// namespaces lists those of this package, of all processes.
func namespaces() ([]string, error) {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
