//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/cluster"
)

// Worker is a program that this one also is, see [Child]: it says to the book what it does, and does what it is told over its
// input. It has a party of its own. Its restarts go by names of their own.
type Worker struct {
	*cluster.Program
	Party string
	// Book is what it says everything to.
	Book     *book.Book
	restarts int // of one process at a time, so that nothing guards it

	mu    sync.Mutex
	stdin io.WriteCloser // guarded by mu; of the present process
}

// Tell gives the present process a command, see package writer.
func (w *Worker) Tell(command string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := fmt.Fprintln(w.stdin, command)
	return err
}

// Finish has the worker end when it has done what it is doing, and waits for that, at most until ctx ends.
func (w *Worker) Finish(ctx context.Context) error {
	w.mu.Lock()
	err := w.stdin.Close()
	w.mu.Unlock()
	return errors.Join(err, w.Await(ctx))
}

// Dismiss kills the workers that still work, and returns when all that they said has been heard.
func (l *Lab) Dismiss() {
	workers := slices.Concat(l.Writers, l.TableWriters, l.Services)
	if l.Pair != nil {
		workers = append(workers, l.Pair.Writers...)
	}
	for _, w := range workers {
		if w.Ended() != nil {
			_ = w.Kill() // one that has ended by itself is what Check is for
		}
	}
}

func (l *Lab) writerConfig() writer.Config {
	if l.Config.Etcd != "" {
		return writer.Config{
			Etcd: true, Endpoints: l.etcdEndpoints(), TTL: WriterTTL, Fronts: []string{"http://" + l.storeAddress()},
		}
	}
	client := l.Nodes.Client()
	config := writer.Config{
		Endpoints: client.Endpoints, CA: client.CAFile, Cert: client.CertFile, Key: client.KeyFile, TTL: WriterTTL, Slack: Slack,
	}
	for i := range l.Guards {
		config.Fronts = append(config.Fronts, l.Front(i))
	}
	return config
}

func (l *Lab) addWriter(i int) error {
	config := l.writerConfig()
	w, err := l.addWorker(l.Book, Writer(i), writer.Variable, func(name string, seed uint64) any {
		config.Name, config.Seed = name, seed
		return config
	})
	if err == nil {
		l.Writers = append(l.Writers, w)
	}
	return err
}

// addWorker starts a worker, which finds in the environment variable what config answers, as JSON, and says to a book what it
// does. Config is asked at each start, under the name and the seed of the process.
func (l *Lab) addWorker(b *book.Book, party, variable string, config func(name string, seed uint64) any) (*Worker, error) {
	w := &Worker{Party: party, Book: b}
	w.Program = &cluster.Program{Name: party, Command: func() (*exec.Cmd, error) {
		w.restarts++
		cmd, err := l.self(party, variable, config(fmt.Sprintf("%s.%d", party, w.restarts), l.Config.Seed+uint64(w.restarts)))
		if err != nil {
			return nil, err
		}
		cmd.Stdout = b.FromWriter()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stdin, err = cmd.StdinPipe()
		return cmd, err
	}}
	return w, l.start(w.Program)
}

// Said tells whether the worker said something, or a process that it was before.
func (w *Worker) Said(s writer.Said) bool { return strings.HasPrefix(s.Writer, w.Party+".") }
