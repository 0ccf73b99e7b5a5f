//go:build linux

package netns

import (
	"container/heap"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	device = "wire0"
	// mtu is what a device carries at once, in bytes: as much as Ethernet with jumbo frames.
	mtu = 9000
)

// fabric is the switch between the parties: a TUN device in the namespace of each, and what carries packets from one to
// the other. Time in it counts from its start.
type fabric struct {
	started time.Time
	ports   []*os.File
	running sync.WaitGroup

	mu        sync.Mutex
	links     [][]link // guarded by mu; from, to
	unplugged []bool   // guarded by mu
	waiting   pending  // guarded by mu
	sent      uint64   // guarded by mu
	wake      chan struct{}
	closed    chan struct{}
}

// frame is a packet under way.
type frame struct {
	at   time.Duration
	turn uint64 // among those that arrive at the same time, the first sent is first
	to   int
	data []byte
}

// newFabric opens a device in each namespace. Close it, also after an error.
func newFabric(namespaces []string) (*fabric, error) {
	n := len(namespaces)
	f := &fabric{
		started: time.Now(), links: make([][]link, n), unplugged: make([]bool, n),
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	for i := range f.links {
		f.links[i] = make([]link, n)
	}
	f.seed(0)
	for _, namespace := range namespaces {
		port, err := openDevice(filepath.Join(directory, namespace))
		if err != nil {
			return f, err
		}
		f.ports = append(f.ports, port)
	}
	for i := range f.ports {
		f.running.Go(func() { f.read(i) })
	}
	f.running.Go(f.deliver)
	return f, nil
}

// close ends the switch and joins what runs in it. The devices vanish with it.
func (f *fabric) close() {
	close(f.closed)
	for _, port := range f.ports {
		_ = port.Close()
	}
	f.running.Wait()
}

// openDevice makes a TUN device in a namespace: what is routed there can be read, what is written arrives there.
func openDevice(path string) (*os.File, error) {
	var port *os.File
	err := inside(path, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("netns: open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(device)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("netns: make a TUN device in %s: %w", path, err), unix.Close(fd))
		}
		// Non-blocking, so that closing it ends a read.
		port = os.NewFile(uintptr(fd), device)
		return nil
	})
	return port, err
}

// read carries what a party sends, until the switch is closed.
func (f *fabric) read(from int) {
	buffer := make([]byte, mtu+64)
	for {
		n, err := f.ports[from].Read(buffer)
		if err != nil {
			return
		}
		f.carry(from, buffer[:n])
	}
}

// carry sends a packet on its way. What is not for a party is dropped: nothing leaves.
func (f *fabric) carry(from int, packet []byte) {
	to, ok := destination(packet)
	if !ok || to >= len(f.ports) {
		return
	}
	f.mu.Lock()
	l := &f.links[from][to]
	if f.unplugged[from] || f.unplugged[to] {
		f.mu.Unlock()
		return
	}
	now := time.Since(f.started)
	arrivals, copies := l.carry(now, len(packet))
	if l.fate == refused {
		f.mu.Unlock()
		if reset := resetFor(packet); reset != nil {
			f.write(from, reset)
		}
		return
	}
	atOnce := copies == 1 && arrivals[0] <= now
	for i := 0; i < copies && !atOnce; i++ {
		f.sent++
		heap.Push(&f.waiting, frame{at: arrivals[i], turn: f.sent, to: to, data: append([]byte(nil), packet...)})
	}
	f.mu.Unlock()
	if atOnce {
		f.write(to, packet)
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// write hands a packet over. A device that is full or down drops it, as a network may.
func (f *fabric) write(to int, packet []byte) { _, _ = f.ports[to].Write(packet) }

// deliver hands over what has been under way long enough.
func (f *fabric) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []frame
	for {
		f.mu.Lock()
		now, next := time.Since(f.started), time.Hour
		due = due[:0]
		for len(f.waiting) > 0 {
			if at := f.waiting[0].at; at > now {
				next = at - now
				break
			}
			p := heap.Pop(&f.waiting).(frame)
			if !f.unplugged[p.to] {
				due = append(due, p)
			}
		}
		f.mu.Unlock()
		for _, p := range due {
			f.write(p.to, p.data)
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-f.wake:
		case <-f.closed:
			return
		}
	}
}

// seed sets what the links draw from.
func (f *fabric) seed(seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.links {
		for j := range f.links[i] {
			f.links[i][j].seed, f.links[i][j].n = seed^uint64(i)<<32^uint64(j)<<48, 0
		}
	}
}

// change sets one direction.
func (f *fabric) change(from, to int, do func(*link)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(&f.links[from][to])
}

func (f *fabric) plug(party int, plugged bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unplugged[party] = !plugged
}

// heal mends every link and plugs everybody in. Shapes stay.
func (f *fabric) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.links {
		f.unplugged[i] = false
		for j := range f.links[i] {
			f.links[i][j].fate = passed
		}
	}
}

// pending orders frames by when they arrive.
type pending []frame

func (p pending) Len() int { return len(p) }
func (p pending) Less(i, j int) bool {
	return p[i].at < p[j].at || p[i].at == p[j].at && p[i].turn < p[j].turn
}
func (p pending) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *pending) Push(x any)   { *p = append(*p, x.(frame)) }
func (p *pending) Pop() any {
	last := (*p)[len(*p)-1]
	(*p)[len(*p)-1] = frame{}
	*p = (*p)[:len(*p)-1]
	return last
}
