//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// prefix of the groups' names; the id of the process that made them follows.
	prefix = "writ-jepsen-"
	// period is what the share is of.
	period = 100 * time.Millisecond
	// removalLimit bounds the waiting for a group to be empty: processes that were killed are in it until they are gone.
	removalLimit = 10 * time.Second
)

// ErrUnsupported means that this machine, or this user, cannot throttle processes.
var ErrUnsupported = errors.New("cgroup: processes cannot be throttled here")

// hierarchy is where the cpu controller is.
type hierarchy struct {
	root    string
	unified bool // version 2
}

// Group is a control group with one process.
type Group struct {
	path   string
	former string // the group that the process was in before
}

// made counts the groups of this process.
var made atomic.Int64

// Supported returns an [ErrUnsupported] that says what is missing, or nil.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: run it as root", ErrUnsupported)
	}
	h, err := find()
	if err != nil {
		return err
	}
	path, err := h.make(1)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return os.Remove(path)
}

// Throttle leaves a process a share of one processor, from 0.01 to 1, until Release.
func Throttle(pid int, share float64) (*Group, error) {
	if !(share >= 0.01 && share <= 1) { // and not a number neither
		return nil, fmt.Errorf("cgroup: share is %v: give one from 0.01 to 1", share)
	}
	h, err := find()
	if err != nil {
		return nil, err
	}
	if err := h.sweep(); err != nil {
		return nil, err
	}
	former, err := h.of(pid)
	if err != nil {
		return nil, err
	}
	path, err := h.make(share)
	if err != nil {
		return nil, err
	}
	g := &Group{path, former}
	if err := move(pid, path); err != nil {
		return nil, errors.Join(err, g.Release())
	}
	return g, nil
}

// Release puts the process, if it still runs, back to where it was, and removes the group.
func (g *Group) Release() error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(removalLimit); ; <-tick.C {
		processes, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
		if err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		for _, line := range strings.Fields(string(processes)) {
			if pid, err := strconv.Atoi(line); err == nil {
				_ = move(pid, g.former) // it may have ended; otherwise the removal fails
			}
		}
		err = os.Remove(g.path)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(until) {
			return err
		}
	}
}

// find looks for the cpu controller.
func find() (hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return hierarchy{}, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		switch root := fields[1]; fields[2] {
		case "cgroup":
			if slices.Contains(strings.Split(fields[3], ","), "cpu") {
				return hierarchy{root: root}, nil
			}
		case "cgroup2":
			controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
			if err == nil && slices.Contains(strings.Fields(string(controllers)), "cpu") {
				return hierarchy{root: root, unified: true}, nil
			}
		}
	}
	return hierarchy{}, fmt.Errorf("%w: no cpu controller is mounted", ErrUnsupported)
}

// make makes a group that has a share of a processor.
func (h hierarchy) make(share float64) (path string, err error) {
	path = filepath.Join(h.root, fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), made.Add(1)))
	quota := int64(share * float64(period.Microseconds()))
	settings := [][2]string{
		{filepath.Join(path, "cpu.cfs_period_us"), fmt.Sprint(period.Microseconds())},
		{filepath.Join(path, "cpu.cfs_quota_us"), fmt.Sprint(quota)},
	}
	if h.unified {
		settings = [][2]string{
			{filepath.Join(h.root, "cgroup.subtree_control"), "+cpu"},
			{filepath.Join(path, "cpu.max"), fmt.Sprint(quota, " ", period.Microseconds())},
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	for _, s := range settings {
		if err := os.WriteFile(s[0], []byte(s[1]), 0); err != nil {
			return "", errors.Join(fmt.Errorf("cgroup: %w", err), os.Remove(path))
		}
	}
	return path, nil
}

// of is the path of the group that a process is in.
func (h hierarchy) of(pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "cgroup"))
	if err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		controllers, group, _ := strings.Cut(line[strings.Index(line, ":")+1:], ":")
		if h.unified && controllers == "" || !h.unified && slices.Contains(strings.Split(controllers, ","), "cpu") {
			return filepath.Join(h.root, strings.TrimSpace(group)), nil
		}
	}
	return "", fmt.Errorf("cgroup: process %d is in no group of the cpu controller", pid)
}

// move puts a process into a group.
func move(pid int, group string) error {
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0); err != nil {
		return fmt.Errorf("cgroup: move process %d: %w", pid, err)
	}
	return nil
}

// sweep removes the groups of processes that are gone.
func (h hierarchy) sweep() error {
	all, err := filepath.Glob(filepath.Join(h.root, prefix+"*"))
	for _, path := range all {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), prefix), "-")
		if _, bad := strconv.Atoi(owner); bad != nil {
			continue
		}
		if _, gone := os.Stat(filepath.Join("/proc", owner)); errors.Is(gone, os.ErrNotExist) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.EBUSY) {
				return fmt.Errorf("cgroup: %w", err) // one that is busy has processes which are about to end
			}
		}
	}
	return err
}
