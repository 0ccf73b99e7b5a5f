//go:build !linux

package etcd

import (
	"syscall"
	"time"
)

// userTimeout does nothing where the kernel has no such limit.
func userTimeout(time.Duration) func(network, address string, conn syscall.RawConn) error { return nil }
