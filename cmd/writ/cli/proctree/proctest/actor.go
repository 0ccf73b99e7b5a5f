package proctest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Actor is a process that behaves as told. It holds a [Line], writes "NAME SIGNAL" to it for each signal that it catches,
// and "ready" once it and everything below it would. Actors are played by the test binary itself, see [Main]: what a
// shell does between a fork and the next command cannot be relied upon.
type Actor struct {
	Name string
	// Session puts it in a session of its own.
	Session bool `json:",omitempty"`
	// Ignore lists signals to ignore, Catch those to catch, and EndOn those that it also ends on, with Code.
	Ignore, Catch, EndOn []syscall.Signal `json:",omitempty"`
	// Code is the exit code.
	Code int `json:",omitempty"`
	// Children are started first.
	Children []Actor `json:",omitempty"`
	// Leave ends it as soon as it is ready; its children live on.
	Leave bool `json:",omitempty"`
	// Show lists variables of the environment to write, as NAME=VALUE, before ready.
	Show []string `json:",omitempty"`
	// Read makes it write each line of its standard input, and end with it.
	Read bool `json:",omitempty"`
}

const (
	actorVariable = "PROCTEST_ACTOR"
	lineVariable  = "PROCTEST_LINE"
)

// Env returns the environment that makes the test binary play the actor.
func (a Actor) Env(line *Line) []string {
	spec, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	return []string{actorVariable + "=" + string(spec), lineVariable + "=" + line.Path, Brisk}
}

// Brisk is for the environment of test binaries that are started as processes: those with a race detector would sleep for
// a second at their end.
const Brisk = "GORACE=atexit_sleep_ms=0"

// Main plays an actor and exits if the environment asks for one. Call it first in TestMain.
func Main() {
	spec := os.Getenv(actorVariable)
	if spec == "" {
		return
	}
	var a Actor
	if err := json.Unmarshal([]byte(spec), &a); err != nil {
		panic(err)
	}
	os.Exit(a.play())
}

// play is the actor's whole life.
func (a Actor) play() int {
	line, err := os.OpenFile(os.Getenv(lineVariable), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		panic(err)
	}
	caught := make(chan os.Signal, 16)
	ends := make(map[os.Signal]bool)
	for _, sig := range a.EndOn {
		ends[sig] = true
	}
	for _, sig := range append(a.Catch, a.EndOn...) {
		signal.Notify(caught, sig)
	}
	// Without a signal to listen to, the runtime takes an actor that waits for its end for a deadlock, and ends it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGWINCH)
	for _, sig := range a.Ignore {
		signal.Ignore(sig)
	}
	for _, child := range a.Children {
		child.spawn()
	}
	for _, name := range a.Show {
		fmt.Fprintf(line, "%s=%s\n", name, os.Getenv(name))
	}
	a.ready(line)
	if a.Leave {
		return a.Code
	}
	input := a.input()
	for {
		select {
		case text, ok := <-input:
			if !ok {
				return a.Code
			}
			fmt.Fprintln(line, a.Name, "read", text)
		case sig := <-caught:
			fmt.Fprintln(line, a.Name, sig)
			if ends[sig] {
				return a.Code
			}
		}
	}
}

// ready tells the parent, which is an actor if it has left a pipe, and the test otherwise.
func (a Actor) ready(line io.Writer) {
	const pipe = 3
	if os.Getenv(actorVariable+"_CHILD") == "" {
		fmt.Fprintln(line, "ready")
		return
	}
	parent := os.NewFile(pipe, "parent")
	fmt.Fprintln(parent, "ready")
	_ = parent.Close()
}

// spawn starts a child and waits until it is ready.
func (a Actor) spawn() {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer r.Close()
	spec, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), actorVariable+"="+string(spec), actorVariable+"_CHILD=1")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: a.Session}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	_ = w.Close()
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		panic(err)
	}
}

// input returns the lines of the standard input if the actor reads them.
func (a Actor) input() <-chan string {
	lines := make(chan string)
	if a.Read {
		go func() {
			defer close(lines)
			for in := bufio.NewScanner(os.Stdin); in.Scan(); {
				lines <- in.Text()
			}
		}()
	}
	return lines
}
