package approval

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startAgent starts an ssh-agent, which ends with the test, and answers its socket.
func startAgent(t *testing.T) string {
	t.Helper()
	needOpenSSH(t, "ssh-agent", "ssh-add")
	dir, err := os.MkdirTemp("", "agent") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	// It prints where it listens, once it does.
	if said, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.Contains(said, socket) {
		t.Fatalf("ssh-agent said %q, %v", said, err)
	}
	return socket
}

func addKey(t *testing.T, socket, key string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh-add", "-q", key)
	cmd.Env = append(os.Environ(), agentVariable+"="+socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
}

func TestAgentSigns(t *testing.T) {
	socket := startAgent(t)
	t.Setenv(agentVariable, socket)
	doc := planBytes(t)
	_, other := newKey(t)
	refused := func(want, which string) {
		t.Helper()
		if _, err := AgentSigner(socket, which); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	refused("has no key that may approve", "")
	weak, weakPublic := makeKey(t, "", "-t", "rsa", "-b", "2048")
	addKey(t, socket, weak)
	refused("has no key that may approve", "")
	refused("is an RSA key of 2048 bits", weakPublic)
	first := true
	for name, kind := range kinds {
		key, public := makeKey(t, "", kind...)
		addKey(t, socket, key)
		s := checked(t, setOf(approver("ada", public), approver("bob", other)))
		fingerprint := s.people[0].keys[0].fingerprint
		which := []string{public, fingerprint}
		if first {
			which, first = append(which, ""), false // the only one
		}
		for _, w := range which {
			signer, err := AgentSigner(socket, w)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			armored, err := Sign(signer, Namespace, doc)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, err := s.Verify(Namespace, doc, armored, now); err != nil || got != (Signer{"ada", fingerprint}) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
			if err := keygenVerify(t, s.AllowedSigners(Namespace, now), "ada", Namespace, armored, doc); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		signer, err := LoadSigner(key+".pub", nil) // the private half is with the agent only
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := Sign(signer, Namespace, doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("has several keys: SHA256:", "")
	refused("is not in the ssh-agent, which has SHA256:", other)
	refused("is not in the ssh-agent", "SHA256:x")
	refused("does not begin with a type", "nonsense")
}

func TestAgentAway(t *testing.T) {
	if _, err := AgentSigner("", ""); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK is not set") {
		t.Error(err)
	}
	if _, err := AgentSigner(filepath.Join(t.TempDir(), "none"), ""); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Error(err)
	}
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if _, err := AgentSigner(filepath.Join(dir, "s"), ""); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}
