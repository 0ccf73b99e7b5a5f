package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// The ports are below those that the kernel gives to connections, which could take one again at once.
const (
	first = 15_000
	count = 15_000
)

// handedOut are the ports that were tried, and what keeps other processes from them: a net.Listener, where there is one.
var handedOut sync.Map

// Address is a loopback address that nothing listened on a moment ago, and that neither it nor another process of tests on this
// machine has answered before.
func Address(tb testing.TB) string {
	tb.Helper()
	var last error
	for range 1000 {
		port := first + rand.IntN(count)
		if !reserve(port) {
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

// reserve tells whether nobody has reserved the port. It is this process's until its end.
func reserve(port int) bool {
	var word net.Listener
	if runtime.GOOS == "linux" { // the tests of several packages run at once; elsewhere, luck has to do
		var err error
		// A name without a file, which the kernel forgets with the process.
		word, err = net.Listen("unix", fmt.Sprintf("@writ-freeport-%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			return false
		}
	}
	_, taken := handedOut.LoadOrStore(port, word)
	return !taken
}
