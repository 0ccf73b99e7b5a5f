//go:build linux

package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an IP address and port as if a party did. Cuts of the party apply to the connection.
func (n *Net) Dial(party string) func(ctx context.Context, address string) (net.Conn, error) {
	n.index(party)
	path := filepath.Join(directory, n.namespace(party))
	return func(ctx context.Context, address string) (net.Conn, error) {
		var conn net.Conn
		err := inside(path, func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
			return err
		})
		return conn, err
	}
}

// Listen listens on a port of a party's address.
func (n *Net) Listen(party, port string) (net.Listener, error) {
	var l net.Listener
	err := inside(filepath.Join(directory, n.namespace(party)), func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(n.Address(party), port))
		return err
	})
	return l, err
}

// inside calls do in a namespace. A socket belongs to the namespace that it was made in, wherever it is used.
func inside(path string, do func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread stays in the namespace, and so ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			namespace, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("netns: %w", err)
			}
			defer func() { _ = namespace.Close() }()
			if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("netns: enter %s: %w", path, err)
			}
			return do()
		}()
	}()
	return <-done
}
