package floors_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/floors"
)

// mount makes a small file system, which takes root.
func mount(t *testing.T, size, flags string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size+flags, "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Getenv("WRIT_CI") == "1" {
			t.Fatalf("mount: %v: %s", err, out)
		}
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", "-l", dir).Run(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskFull(t *testing.T) {
	dir := mount(t, "256k", "")
	path := filepath.Join(dir, "floors")
	s, _ := mustOpen(t, path)
	mustWrite(t, s, gate.Batch{Version: 1, Floors: []gate.Floor{{Resource: "r", Token: tok(1)}}})
	ballast := filepath.Join(dir, "ballast")
	for round := range uint64(3) {
		fill(t, ballast)
		version := 1 + 10*round
		big := gate.Batch{Version: version + 1, Floors: []gate.Floor{{Resource: "r", Token: tok(version + 1)}}}
		for i := range 400 {
			big.Floors = append(big.Floors, gate.Floor{Resource: fmt.Sprintf("%d/%d/%0200d", round, i, 0), Token: tok(7)})
		}
		for range 2 {
			if err := s.Write(big); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("round %d: %v, want ENOSPC", round, err)
			}
		}
		// Nothing of it is there, and what was there still is. The next version may be the same one or a later one.
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		next := gate.Batch{Version: version + 1 + round, Floors: []gate.Floor{{Resource: "s", Token: tok(version + 2)}}}
		mustWrite(t, s, next)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var state gate.State
		s, state = mustOpen(t, path)
		want := []gate.Floor{{Resource: "r", Token: tok(1)}, next.Floors[0]}
		if len(state.Floors) != 2 || state.Floors[0] != want[0] || state.Floors[1] != want[1] {
			t.Fatalf("round %d: floors %+v, want %+v", round, state.Floors, want)
		}
	}
	// Where it cannot be noted that a process has it open, it is not opened.
	if err := s.CloseClean(); err != nil {
		t.Fatal(err)
	}
}

// A write that failed may have been carried out, such as when the disk is full only at the last flush. The store goes on from
// what is there; where nobody knows what is there, it does not go on.
func TestFailedButDone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "floors")
	s, _ := mustOpen(t, path)
	mustWrite(t, s, gate.Batch{Version: 1, Floors: []gate.Floor{{Resource: "r", Token: tok(1)}}})
	s.FailLate(syscall.ENOSPC)
	if err := s.Write(gate.Batch{Version: 2, Floors: []gate.Floor{{Resource: "s", Token: tok(2)}}}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	mustWrite(t, s, gate.Batch{Version: 3, Floors: []gate.Floor{{Resource: "r", Token: tok(3)}}})
	s.FailLate(syscall.EIO)
	for version := range uint64(2) {
		if err := s.Write(gate.Batch{Version: 4 + version, Witnessed: tok(4)}); !errors.Is(err, floors.ErrBroken) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("error %v, want ErrBroken", err)
		}
	}
	if err := s.CloseClean(); !errors.Is(err, floors.ErrBroken) {
		t.Errorf("a broken store was closed as clean: %v", err)
	}
	s, state := mustOpen(t, path)
	defer func() { _ = s.Close() }()
	if want := []gate.Floor{{Resource: "r", Token: tok(3)}, {Resource: "s", Token: tok(2)}}; state.Clean || !slices.Equal(state.Floors, want) {
		t.Errorf("state %+v, want %+v", state, want)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestNewStoreOnAFullDisk(t *testing.T) {
	dir := mount(t, "64k", "")
	fill(t, filepath.Join(dir, "ballast"))
	path := filepath.Join(dir, "floors")
	if _, _, err := floors.Open(path, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v %v, want the ballast only", entries, err)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	s, _ := mustOpen(t, path)
	_ = s.Close()
}

func TestReadOnly(t *testing.T) {
	dir := mount(t, "1m", "")
	path := filepath.Join(dir, "floors")
	s, _ := mustOpen(t, path)
	_ = s.Close()
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		if os.Getenv("WRIT_CI") == "1" {
			t.Fatalf("mount: %v: %s", err, out)
		}
		t.Skipf("mount: %v: %s", err, out)
	}
	for _, name := range []string{path, filepath.Join(dir, "other")} {
		if _, _, err := floors.Open(name, 0); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want one that names the file and says that it is read-only", err)
		}
	}
}

func TestPlacesWhereNoStoreCanBe(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := floors.Open(dir, 0); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, _, err := floors.Open(filepath.Join(dir, "missing", "floors"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
	if _, _, err := floors.Open("/dev/null", 0); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := floors.Open(filepath.Join(file, "floors"), 0); err == nil {
		t.Error("below a file")
	}
	if os.Getuid() != 0 {
		if err := os.Chmod(file, 0o400); err != nil {
			t.Fatal(err)
		}
		if _, _, err := floors.Open(file, 0); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("read-only file: %v", err)
		}
	}
}

func TestWhatLeavesItOpenWhatIsOnTheDisk(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("floors: %w", err) }
	for _, c := range []struct {
		err  error
		want bool
	}{
		{wrap(syscall.EIO), true},
		{wrap(floors.ErrBroken), true},
		{wrap(syscall.ENOSPC), false},
		{wrap(&os.PathError{Op: "write", Err: syscall.EIO}), false},
		{wrap(&os.PathError{Op: "write", Err: syscall.ENOSPC}), false},
		{errors.New("file resize error"), false},
	} {
		if got := floors.Unflushed(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// What a process that was killed had been told to be durable is there.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "floors")
	s, _ := mustOpen(t, path)
	_ = s.CloseClean()
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "FLOORS_PATH="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var told uint64
		for lines, n := bufio.NewScanner(out), 0; n < 20*(round+1) && lines.Scan(); n++ {
			if told, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s, state := mustOpen(t, path)
		if told == 0 || state.Version < told || state.Clean || len(state.Floors) != 1 || state.Floors[0].Token != tok(state.Version) {
			t.Errorf("round %d: told %d, found %+v", round, told, state)
		}
		_ = s.Close()
	}
}

// TestKilledWriter is the process that is killed.
func TestKilledWriter(t *testing.T) {
	path := os.Getenv("FLOORS_PATH")
	if path == "" {
		t.Skip("is part of TestKilled")
	}
	s, state := mustOpen(t, path)
	for version := state.Version + 1; ; version++ {
		mustWrite(t, s, gate.Batch{Version: version, Floors: []gate.Floor{{Resource: "r", Token: tok(version)}}})
		fmt.Println(version)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, count := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("floors=%d", count), func(b *testing.B) {
			s, _ := mustOpen(b, filepath.Join(b.TempDir(), "floors"))
			defer func() { _ = s.Close() }()
			first := gate.Batch{Version: 1}
			for i := range count {
				first.Floors = append(first.Floors, gate.Floor{Resource: fmt.Sprintf("orders/%d", i), Token: tok(1)})
			}
			mustWrite(b, s, first)
			version := uint64(1)
			for b.Loop() {
				version++
				mustWrite(b, s, gate.Batch{Version: version, Floors: []gate.Floor{{Resource: "orders/77", Token: tok(version)}}})
			}
		})
	}
}

// BenchmarkAppend is the least that durability costs on this disk.
func BenchmarkAppend(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	record := make([]byte, 64)
	for b.Loop() {
		if _, err := f.Write(record); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
