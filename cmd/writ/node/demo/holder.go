package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What the story tells its holder on stdin, a line each. The end of stdin makes it release and exit.
const (
	tellCheck = "check" // look whether the lease is valid, and say so
	tellBegin = "begin" // begin the transaction for the next write, then check
	tellWrite = "write" // write, without looking again: what lies between is where a process can be paused
)

// What the holder says on stdout.
const (
	saidAcquired = "acquired"
	saidChecked  = "checked"
	saidWrote    = "wrote"
	saidLost     = "lost"
)

// said is one line of the holder's stdout.
type said struct {
	What      string        `json:"what"`
	Token     fence.Token   `json:"token"`
	Valid     bool          `json:"valid"`     // checked
	Remaining time.Duration `json:"remaining"` // checked: for how long the holder believes, at that moment
	Outcome   outcome       `json:"outcome"`   // wrote
	Why       string        `json:"why"`       // lost
}

// holder holds a lease through the SDK and writes to what is guarded when it is told to.
type holder struct {
	url, dsn string

	mu  sync.Mutex // one line at a time
	out *json.Encoder
}

// HolderCommand is the process that the story pauses. Its connection comes from the environment, see lease.ConfigFromEnv.
func HolderCommand() *cobra.Command {
	var h holder
	cmd := &cobra.Command{
		Use: "holder", Hidden: true, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		Short: "Hold a lease for dev --demo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h.out = json.NewEncoder(cmd.OutOrStdout())
			return h.run(cmd.Context(), cmd.InOrStdin())
		},
	}
	cmd.Flags().StringVar(&h.url, "url", "", "of the guard to write to")
	cmd.Flags().StringVar(&h.dsn, "dsn", "", "of the database to write to; empty: none")
	return cmd
}

func (h *holder) run(ctx context.Context, commands io.Reader) (err error) {
	config, err := lease.ConfigFromEnv()
	if err != nil {
		return err
	}
	client, err := lease.Dial(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	w, err := newWriter(ctx, "holder", h.url, h.dsn)
	if err != nil {
		return err
	}
	defer w.close(ctx)
	hold, err := client.Acquire(ctx, resource, lease.AcquireOptions{TTL: ttl})
	if err != nil {
		return err
	}
	if err := h.say(said{What: saidAcquired, Token: hold.Token()}); err != nil {
		return err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	stop := make(chan struct{})
	defer close(stop)
	watching.Go(func() {
		select {
		case <-hold.Done():
			why := hold.Err().Error()
			if lost := (*lease.LostError)(nil); errors.As(hold.Err(), &lost) {
				why = lost.Cause.String()
			}
			_ = h.say(said{What: saidLost, Token: hold.Token(), Why: why}) // nobody may be left to be told
		case <-stop:
		}
	})
	for lines := bufio.NewScanner(commands); lines.Scan(); {
		if err := h.obey(ctx, w, hold, lines.Text()); err != nil {
			return err
		}
	}
	if err := hold.Release(ctx); !errors.Is(err, lease.ErrLost) {
		return err
	}
	return nil
}

func (h *holder) obey(ctx context.Context, w *writer, hold *lease.Hold, command string) error {
	switch command {
	case tellBegin:
		if err := w.begin(ctx, hold); err != nil {
			return err
		}
		fallthrough
	case tellCheck:
		remaining := hold.Remaining()
		return h.say(said{What: saidChecked, Token: hold.Token(), Valid: remaining > 0, Remaining: remaining})
	case tellWrite:
		o, err := w.write(ctx, hold)
		if err != nil {
			return err
		}
		return h.say(said{What: saidWrote, Token: hold.Token(), Outcome: o})
	}
	return fmt.Errorf("unknown command %q", command)
}

func (h *holder) say(s said) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.Encode(s)
}
