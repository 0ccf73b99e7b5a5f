package external_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence/guard/external"
)

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	l, err := external.ListenUnix(path, 0o620)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o620 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("file %v, %v", info, err)
	}
	if _, err := external.ListenUnix(path, 0o600); !errors.Is(err, external.ErrSocketInUse) {
		t.Errorf("a second guard: %v, want that it is in use", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first guard's socket is gone: %v", err)
	} else {
		conn.Close()
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	again, err := external.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Whoever has the lock has the name, even in the moment in which there is no socket.
func TestListenUnixLocks(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	l, err := external.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if second, err := external.ListenUnix(path, 0o600); !errors.Is(err, external.ErrSocketInUse) {
		t.Errorf("a second guard: %v, %v", second, err)
	}
}

// A process that was killed leaves its socket behind.
func TestListenUnixRemovesALeftover(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	l, err := external.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestListenUnixLeavesOthersAlone(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	l, err := net.Listen("unix", foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]string{
		file: "no socket", link: "no socket", foreign: external.ErrSocketInUse.Error(),
		filepath.Join(dir, "missing", "s"): "no such file", filepath.Join(dir, strings.Repeat("s", 120)): "at most 107",
	} {
		l, err := external.ListenUnix(path, 0o600)
		if err == nil {
			l.Close()
			t.Errorf("%s: no error", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file now holds %q, %v", text, err)
	}
	if conn, err := net.Dial("unix", foreign); err != nil {
		t.Errorf("the other program's socket is gone: %v", err)
	} else {
		conn.Close()
	}
}
