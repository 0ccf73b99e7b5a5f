package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// askSecret reads a line from the terminal, which does not show what is typed.
func (a *app) askSecret(ctx context.Context, prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask at; add the key to ssh-agent with ssh-add, and name its .pub file")
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		_ = tty.Close()
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	quiet := *before
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, &quiet); err != nil {
		_ = tty.Close()
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	answered := false
	defer func() {
		_ = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, before)
		_, _ = fmt.Fprintln(tty) // the one that was typed was not shown
		if answered {
			_ = tty.Close() // else somebody is still reading it
		}
	}()
	_, _ = fmt.Fprint(tty, prompt)
	type answer struct {
		line []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() { // ends with the program if nobody answers
		line, err := bufio.NewReader(tty).ReadBytes('\n')
		typed <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return nil, errors.New("interrupted; nothing was signed")
	case got := <-typed:
		answered = true
		if got.err != nil {
			return nil, fmt.Errorf("the terminal: %w", got.err)
		}
		return bytes.TrimRight(got.line, "\r\n"), nil
	}
}
