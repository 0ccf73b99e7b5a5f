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
	// MaxParties is how many addresses there are.
	MaxParties = 200
)

// ErrUnsupported means that this machine, or this user, cannot make networks.
var ErrUnsupported = errors.New("netns: network namespaces cannot be used here")

// Net is a network. Its methods are safe for concurrent use.
type Net struct {
	id     string
	names  []string
	fabric *fabric

	mu     sync.Mutex
	closed bool // guarded by mu
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
	n := &Net{id: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), made.Add(1)), names: slices.Clone(parties)}
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// build makes the namespaces and joins them.
func (n *Net) build() error {
	var commands strings.Builder
	all := make([]string, len(n.names))
	for i, name := range n.names {
		all[i] = n.namespace(name)
		fmt.Fprintf(&commands, "netns add %s\n", all[i])
	}
	if err := batch("", commands.String()); err != nil {
		return err
	}
	var err error
	if n.fabric, err = newFabric(all); err != nil {
		return err
	}
	for i := range n.names {
		err := batch(all[i], fmt.Sprintf("link set lo up\nlink set %[1]s addrgenmode none\nlink set %[1]s mtu %[2]d\nlink set %[1]s up\naddr add %[3]s/24 dev %[1]s\n",
			device, mtu, address(i)))
		if err != nil {
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
	if n.fabric != nil {
		n.fabric.close()
	}
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
func (n *Net) Cut(from, to string) { n.end(from, to, dropped) }

// Refuse answers what one party sends to another with resets, until Mend: connections break and cannot be made.
func (n *Net) Refuse(from, to string) { n.end(from, to, refused) }

// Mend ends a cut or a refusal; if there is none, it does nothing.
func (n *Net) Mend(from, to string) { n.end(from, to, passed) }

func (n *Net) end(from, to string, f fate) {
	n.fabric.change(n.index(from), n.index(to), func(l *link) { l.fate = f })
}

// Base sets how long the way is from one party to another, for as long as the network exists: a [Net.Shape] comes on top of it.
// Errors: what [Shape.Validate] finds.
func (n *Net) Base(from, to string, s Shape) error {
	if err := s.Validate(); err != nil {
		return err
	}
	n.fabric.change(n.index(from), n.index(to), func(l *link) { l.base = s })
	return nil
}

// Shape sets what happens to what one party sends to another. What is under way already arrives as it would have. Errors:
// what [Shape.Validate] finds.
func (n *Net) Shape(from, to string, s Shape) error {
	if err := s.Validate(); err != nil {
		return err
	}
	n.fabric.change(n.index(from), n.index(to), func(l *link) { l.shape = s })
	return nil
}

// Seed sets what the fate of packets is drawn from, and counts them anew.
func (n *Net) Seed(seed uint64) { n.fabric.seed(seed) }

// Unplug takes a party off the network, as if its cable were pulled.
func (n *Net) Unplug(party string) { n.fabric.plug(n.index(party), false) }

// Plug puts it back.
func (n *Net) Plug(party string) { n.fabric.plug(n.index(party), true) }

// Heal mends every cut and refusal and plugs everybody in. Shapes stay.
func (n *Net) Heal() { n.fabric.heal() }

// index is a party's number. Only the test itself names parties, so an unknown one is its mistake.
func (n *Net) index(party string) int {
	i := slices.Index(n.names, party)
	if i < 0 {
		panic(fmt.Sprintf("netns: there is no party %q", party))
	}
	return i
}

func (n *Net) namespace(party string) string { return n.id + party }

func address(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

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
