package etcd

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout ends connections whose data is not acknowledged for d: without it a peer that vanished looks connected
// until the kernel gives up retransmitting, after a quarter of an hour. Accepted connections inherit it.
func userTimeout(d time.Duration) func(network, address string, conn syscall.RawConn) error {
	return func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		})
		if err != nil {
			return err
		}
		return failed
	}
}
