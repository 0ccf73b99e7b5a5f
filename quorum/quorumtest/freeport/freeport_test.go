package freeport

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Addresses can be listened on, no two are the same, and the kernel does not give their ports to connections.
func TestAddresses(t *testing.T) {
	lowest := 32768 // Linux's own default
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if n, err := strconv.Atoi(strings.Fields(string(text))[0]); err == nil {
			lowest = n
		}
	}
	if first+count > lowest {
		t.Skipf("the kernel gives connections ports from %d on", lowest)
	}
	seen := map[string]bool{}
	for range 1000 { // chance alone would answer some of them twice
		address := Address(t)
		_, text, err := net.SplitHostPort(address)
		port, _ := strconv.Atoi(text)
		if err != nil || seen[address] || port < first || port >= lowest {
			t.Fatalf("%s: %v, twice: %v", address, err, seen[address])
		}
		seen[address] = true
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
