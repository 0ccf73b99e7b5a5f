package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// The ports are below those that the kernel gives to connections, which could take one again at once.
const (
	first = 15_000
	count = 15_000
)

// handedOut are the ports that were answered.
var handedOut sync.Map

// Address is a loopback address that nothing listened on a moment ago, and that it has not answered before.
func Address(tb testing.TB) string {
	tb.Helper()
	var last error
	for range 1000 {
		port := first + rand.IntN(count)
		if _, taken := handedOut.LoadOrStore(port, true); taken {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}
	tb.Fatalf("no port is free: %v", last)
	return ""
}
