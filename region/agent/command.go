package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Command is a program that is a hook. It gets the [Variables] in its environment besides the agent's own, and exits with 0
// when it has done its work. Into the file that WRIT_RESULT names it may write what else it has to say, as JSON:
//
//	{"position": {"log": "7300/1", "bytes": "50331976", "text": "0/3000148"}, "entries": ["…"]}
type Command struct {
	// Args is the program and its arguments; no shell reads them.
	Args []string
	// Env are more variables, KEY=value.
	Env []string
	// Dir to run in; empty: the agent's.
	Dir string
	// Again says that running it once more does no harm.
	Again bool
}

var _ Hook = (*Command)(nil)

const (
	// maxResultBytes bounds what a program may say besides its output.
	maxResultBytes = 64 << 10
	// outputGrace is how long processes that outlive their program may keep its output open.
	outputGrace = 500 * time.Millisecond
	// runVariable marks every process that comes of a hook.
	runVariable = "WRIT_HOOK_RUN"
)

// Idempotent implements [Hook].
func (c *Command) Idempotent() bool { return c.Again }

// Run implements [Hook].
func (c *Command) Run(ctx context.Context, task *writv1.Task) (out Outcome, err error) {
	file, err := os.CreateTemp("", "writ-hook-*.json")
	if err != nil {
		return Outcome{}, err
	}
	defer func() { _ = os.Remove(file.Name()) }() // a temporary file
	if err := file.Close(); err != nil {
		return Outcome{}, err
	}
	var env []string
	variables := Variables(task)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		env = append(env, name+"="+variables[name])
	}
	env = append(append(env, "WRIT_RESULT="+file.Name()), c.Env...)
	said := NewTail(maxOutputBytes)
	err = Program{Args: c.Args, Dir: c.Dir, Env: env, Stdout: said, Stderr: said, Mark: Mark(ctx)}.Run(ctx)
	out.Output = said.String()
	if err != nil {
		return out, err
	}
	return out, out.readResult(file.Name())
}

// readResult reads what a program has left, if anything.
func (o *Outcome) readResult(path string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("WRIT_RESULT: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err := io.ReadAll(io.LimitReader(file, maxResultBytes+1))
	if err != nil {
		return fmt.Errorf("WRIT_RESULT: %w", err)
	}
	if len(data) > maxResultBytes {
		return fmt.Errorf("WRIT_RESULT: it is larger than %d bytes: write the position and at most %d entries", maxResultBytes, maxEntries)
	}
	return o.parseResult(data)
}

// parseResult reads JSON with position and entries; empty means nothing.
func (o *Outcome) parseResult(data []byte) error {
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil
	}
	var result struct {
		Position json.RawMessage `json:"position"`
		Entries  []string        `json:"entries"`
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return fmt.Errorf("the result is no JSON object with position and entries: %w", err)
	}
	if len(result.Position) > 0 && string(result.Position) != "null" {
		o.Position = &writv1.Position{}
		if err := protojson.Unmarshal(result.Position, o.Position); err != nil {
			return fmt.Errorf("position: %w: write log, bytes and text", err)
		}
	}
	o.Entries = result.Entries
	return nil
}

type markKey struct{}

func withMark(ctx context.Context, mark string) context.Context {
	return context.WithValue(ctx, markKey{}, mark)
}

// Mark is what the processes of the hook that runs under ctx have in their environment, so that they, and those of no other
// agent, are found after an end of the agent. A hook that no agent runs has a mark that nobody knows.
func Mark(ctx context.Context) string {
	if mark, ok := ctx.Value(markKey{}).(string); ok {
		return mark
	}
	return rand.Text()
}

// Program is a process to run.
type Program struct {
	// Args is the program and its arguments.
	Args []string
	Dir  string
	// Env is added to the agent's.
	Env            []string
	Stdout, Stderr io.Writer
	// Mark is put into the environment, and whoever has it there is killed with the program. Empty: only its process group is.
	Mark string
}

// Run runs a program and waits for it. When ctx ends before it does, it is killed with everything that came of it; what it
// leaves behind when it ends by itself is its own matter.
func (p Program) Run(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, p.Stdout, p.Stderr
	cmd.Env = append(os.Environ(), p.Env...)
	if p.Mark != "" {
		cmd.Env = append(cmd.Env, runVariable+"="+p.Mark)
	}
	cmd.WaitDelay = outputGrace
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %q: %w", p.Args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if errors.Is(err, exec.ErrWaitDelay) {
			return nil // it has exited with 0, and something it started holds its output
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Args[0], err)
		}
		return nil
	case <-ctx.Done():
		killGroup(cmd)
		killMarked(p.Mark)
		<-ended            //nolint:errcheck // it was killed
		killMarked(p.Mark) // what was born meanwhile
		return fmt.Errorf("%q was killed: %w", p.Args[0], context.Cause(ctx))
	}
}

// Tail keeps the end of what is written to it. It is safe for concurrent use.
type Tail struct {
	mu    sync.Mutex
	ring  []byte // guarded by mu
	at    int    // guarded by mu; where the next byte goes
	total int64  // guarded by mu
}

// NewTail keeps so many bytes.
func NewTail(most int) *Tail { return &Tail{ring: make([]byte, most)} }

// Write implements [io.Writer]; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	t.total += int64(n)
	if n > len(t.ring) {
		p = p[n-len(t.ring):]
	}
	for len(p) > 0 {
		copied := copy(t.ring[t.at:], p)
		t.at = (t.at + copied) % len(t.ring)
		p = p[copied:]
	}
	return n, nil
}

// String answers the end of what was written, as valid UTF-8.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total < int64(len(t.ring)) {
		return clip(string(t.ring[:t.at]), len(t.ring))
	}
	return clip(string(t.ring[t.at:])+string(t.ring[:t.at]), len(t.ring))
}
