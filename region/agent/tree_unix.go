//go:build unix

package agent

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownGroup gives a command a process group of its own, so that it can be ended with what it starts.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killPatience is how long survivors are looked for. One that is left then is stuck in the kernel, or breeds faster than it is
// killed.
const killPatience = 5 * time.Second

// killGroup kills a command's process group.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have gone
}

// killMarked kills whoever carries a mark in its environment, which also finds those that have left the group or the session, and
// waits until they are dead: one that was only sent the signal may still finish a write.
func killMarked(mark string) {
	if mark == "" {
		return
	}
	for deadline := time.Now().Add(killPatience); time.Now().Before(deadline); {
		marked := markedProcesses(runVariable + "=" + mark)
		if len(marked) == 0 {
			return
		}
		for _, p := range marked {
			_ = p.Kill() // it may have gone
		}
		for _, p := range marked {
			awaitDeath(p, deadline)
			_ = p.Release()
		}
	}
}

// awaitDeath waits until a process, which need not be a child, is dead. Where the system has no handles of processes it answers
// at once, and the process is found again.
func awaitDeath(p *os.Process, deadline time.Time) {
	_ = p.WithHandle(func(handle uintptr) {
		for {
			left := max(time.Until(deadline), 0)
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, int(left.Milliseconds()))
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}) // no handle, or none any more
}

// markedProcesses lists the processes that have a line in their environment; none where there is no /proc. A process is held
// before it is looked at, so that what is killed is what was seen.
func markedProcesses(mark string) (found []*os.Process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// What is dead already, and only not waited for, shows no environment.
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, append(env, 0)...), []byte("\x00"+mark+"\x00")) {
			found = append(found, p)
			continue
		}
		_ = p.Release()
	}
	return found
}
