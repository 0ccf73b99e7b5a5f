package demo

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel send the process a signal when its parent ends.
func dieWithParent(cmd *exec.Cmd, signal syscall.Signal) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: signal}
}

// state is the process's state as the kernel tells it: T while it is paused.
func (p *process) state() string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	// The name, in brackets, may hold anything; the state follows it.
	if end := bytes.LastIndexByte(stat, ')'); err == nil && end >= 0 && len(stat) > end+2 {
		return string(stat[end+2])
	}
	return "?"
}
