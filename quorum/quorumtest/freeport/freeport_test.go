package freeport

import (
	"net"
	"os"
	"os/exec"
	"runtime"
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

// portVariable makes the test below the other process, which tries the port that it names.
const portVariable = "WRIT_FREEPORT_TAKEN"

// What one process has answered, another does not, though nothing listens there yet.
func TestProcessesDoNotShareAddresses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has names that end with the process")
	}
	if text := os.Getenv(portVariable); text != "" {
		if port, err := strconv.Atoi(text); err != nil || reserve(port) {
			t.Errorf("port %s could be had again: %v", text, err)
		}
		return
	}
	_, port, err := net.SplitHostPort(Address(t))
	if err != nil {
		t.Fatal(err)
	}
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	other.Env = append(os.Environ(), portVariable+"="+port)
	if out, err := other.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
