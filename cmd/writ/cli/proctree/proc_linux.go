package proctree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// process is one entry of /proc.
type process struct {
	pid, parent, group, session int
	state                       byte
	start                       uint64 // in clock ticks since boot; with the pid, a name that is never reused
	name                        string
}

// readProcess reads /proc/PID/stat.
func readProcess(pid int) (process, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, err
	}
	return parseStat(data)
}

// parseStat reads "pid (name) state ppid pgrp session …"; the name may hold anything, parentheses and spaces included.
func parseStat(data []byte) (process, error) {
	open, closing := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 1 || closing < open {
		return process{}, fmt.Errorf("proctree: unreadable stat line %q", data)
	}
	const startField = 19 // counted from the state
	fields := strings.Fields(string(data[closing+1:]))
	if len(fields) <= startField || len(fields[0]) != 1 {
		return process{}, fmt.Errorf("proctree: unreadable stat line %q", data)
	}
	p := process{name: string(data[open+1 : closing]), state: fields[0][0]}
	var errs [5]error
	p.pid, errs[0] = strconv.Atoi(strings.TrimSpace(string(data[:open])))
	p.parent, errs[1] = strconv.Atoi(fields[1])
	p.group, errs[2] = strconv.Atoi(fields[2])
	p.session, errs[3] = strconv.Atoi(fields[3])
	p.start, errs[4] = strconv.ParseUint(fields[startField], 10, 64)
	return p, errors.Join(errs[:]...)
}

// descendants lists what stems from a process, parents before their children. A process that comes or goes meanwhile may
// be missing: whoever needs all of them asks again.
func descendants(root int) ([]process, error) {
	found, err := descendantsByTask(root)
	if errors.Is(err, errNoChildrenFile) {
		return descendantsByScan(root)
	}
	return found, err
}

var errNoChildrenFile = errors.New("proctree: this kernel lists no children")

// descendantsByTask walks down the tree: its cost does not depend on what else the machine runs.
func descendantsByTask(root int) ([]process, error) {
	pids, err := childrenOf(root)
	if err != nil {
		return nil, err
	}
	var found []process
	seen := map[int]bool{root: true}
	for len(pids) > 0 {
		pid := pids[0]
		pids = pids[1:]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		p, err := readProcess(pid)
		if err != nil {
			continue // it has gone
		}
		found = append(found, p)
		below, _ := childrenOf(pid) // it may have gone, and then its children are the root's
		pids = append(pids, below...)
	}
	return found, nil
}

// childrenOf reads the children files of all threads of a process.
func childrenOf(pid int) ([]int, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var children []int
	read := 0
	for _, task := range tasks {
		data, err := os.ReadFile(dir + "/" + task.Name() + "/children")
		if err != nil {
			continue // the thread has ended, or the kernel has no such file
		}
		read++
		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				children = append(children, child)
			}
		}
	}
	if read == 0 {
		return nil, errNoChildrenFile
	}
	return children, nil
}

// descendantsByScan looks at every process of the machine.
func descendantsByScan(root int) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	byParent := make(map[int][]process)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if err != nil {
			continue // it has gone
		}
		byParent[p.parent] = append(byParent[p.parent], p)
	}
	found := slices.Clone(byParent[root])
	for i := 0; i < len(found); i++ {
		found = append(found, byParent[found[i].pid]...)
	}
	return found, nil
}

// signal sends sig to exactly this process: one that merely got its id afterwards is left alone.
func (p process) signal(sig os.Signal) error {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return nil // it has gone
	}
	defer handle.Release() //nolint:errcheck // closes a descriptor
	now, err := readProcess(p.pid)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH), err == nil && now.start != p.start:
		return nil // it has gone
	case err != nil:
		return err
	}
	if err := handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d (%s): %w", p.pid, p.name, err)
	}
	return nil
}
