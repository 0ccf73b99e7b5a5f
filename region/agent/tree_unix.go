//go:build unix

package agent

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// ownGroup gives a command a process group of its own, so that it can be ended with what it starts.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killRounds bounds how often survivors are looked for: each round kills all that it sees, so one that is left was born
// meanwhile.
const killRounds = 50

// killGroup kills a command's process group.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have gone
}

// killMarked kills whoever carries a mark in its environment, which also finds those that have left the group or the session.
func killMarked(mark string) {
	if mark == "" {
		return
	}
	for range killRounds {
		marked := markedProcesses(runVariable + "=" + mark)
		if len(marked) == 0 {
			return
		}
		for _, p := range marked {
			_ = p.Kill() // it may have gone
			_ = p.Release()
		}
	}
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
