//go:build linux

package jepsen_test

import (
	"context"
	"os"
	"testing"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/netns"
)

// theLab is a lab that belongs to a test.
type theLab struct{ *lab.Lab }

// startLab builds a lab and waits until the guards are enrolled. It is torn down when the test ends.
func startLab(t *testing.T, seed uint64, config lab.Config) *theLab {
	t.Helper()
	if err := netns.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	var err error
	if config.Writ, err = binary(); err != nil {
		t.Fatal(err)
	}
	if config.Guard, err = guardBinary(); err != nil {
		t.Fatal(err)
	}
	config.Dir, config.Seed = t.TempDir(), seed
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := lab.Start(ctx, config, book.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Check(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, path := range l.Logs() {
				data, err := os.ReadFile(path)
				t.Logf("--- %s, its last lines (%v)\n%s", path, err, data[max(0, len(data)-4000):])
			}
		}
	})
	return &theLab{l}
}

// conn connects to a node.
func (l *theLab) conn(t *testing.T, i int) *grpc.ClientConn {
	t.Helper()
	conn, err := l.Conn(i)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
