//go:build linux

package disk_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/writ-io/writ/jepsen/disk"
)

// No two tests run at once: a process that starts another one closes what it has open of a disk before its scheduler knows that it
// waits, for itself.

// Variables of the environment that make this program one that has a disk, or writes to a database, or reads one: what a process maps must not
// be served by itself.
const (
	mountVariable = "WRIT_JEPSEN_DISK_MOUNT"
	writeVariable = "WRIT_JEPSEN_DISK_WRITE"
	readVariable  = "WRIT_JEPSEN_DISK_READ"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(mountVariable); dir != "" {
		_, err := disk.New(filepath.Join(dir, "disk"), filepath.Join(dir, "store"))
		fmt.Println(err)
		select {}
	}
	if path := os.Getenv(writeVariable); path != "" {
		fmt.Println(write(path))
		os.Exit(1)
	}
	if path := os.Getenv(readVariable); path != "" {
		if err := read(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write commits numbers to a database, one a transaction, and says each when it is committed, until it is killed.
func write(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for {
		var number uint64
		if err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("numbers"))
			if err != nil {
				return err
			}
			if last, _ := b.Cursor().Last(); last != nil {
				number = binary.BigEndian.Uint64(last)
			}
			number++
			return b.Put(binary.BigEndian.AppendUint64(nil, number), make([]byte, rng.IntN(3000)))
		}); err != nil {
			return err
		}
		fmt.Println(number)
	}
}

// read checks a database, and says the last number in it.
func read(path string) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		var last uint64
		if b := tx.Bucket([]byte("numbers")); b != nil {
			if key, _ := b.Cursor().Last(); key != nil {
				last = binary.BigEndian.Uint64(key)
			}
		}
		fmt.Println(last)
		return nil
	})
}

func supported(t *testing.T) {
	t.Helper()
	if err := disk.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
}

// mounted is an empty disk and where it is.
func mounted(t *testing.T) (*disk.Disk, string) {
	t.Helper()
	supported(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := disk.New(path, filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(path)) {
			t.Errorf("still mounted (%v)", err)
		}
	})
	return d, path
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, d *disk.Disk, seed uint64) disk.Loss {
	t.Helper()
	loss, err := d.Cut(seed)
	must(t, err)
	return loss
}

// fill writes n sectors of one letter each, from an offset on.
func fill(t *testing.T, f *os.File, letter byte, n int, offset int64) {
	t.Helper()
	if _, err := f.WriteAt(bytes.Repeat([]byte{letter}, 512*n), offset); err != nil {
		t.Fatal(err)
	}
}

// letters are the sectors of a file, one letter each, or ? if a sector is of more than one.
func letters(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var b strings.Builder
	for part := range slices.Chunk(data, 512) {
		switch {
		case bytes.Count(part, part[:1]) != len(part):
			b.WriteByte('?')
		case part[0] == 0:
			b.WriteByte('0')
		default:
			b.WriteByte(part[0])
		}
	}
	return b.String()
}

// What was flushed is there after every cut; what was not is there, or not, or torn, and all of that happens.
func TestCut(t *testing.T) {
	d, path := mounted(t)
	file := filepath.Join(path, "file")
	results := make(map[string]int)
	for seed := range uint64(60) {
		f := create(t, file)
		must(t, f.Truncate(0))
		fill(t, f, 'a', 32, 0)
		must(t, f.Sync())
		fill(t, f, 'b', 16, 8*512)
		fill(t, f, 'c', 16, 32*512)
		must(t, f.Close())
		if got := letters(t, file); got != strings.Repeat("a", 8)+strings.Repeat("b", 16)+strings.Repeat("a", 8)+strings.Repeat("c", 16) {
			t.Fatal("before the cut: " + got)
		}
		loss := cut(t, d, seed)
		got := letters(t, file)
		if len(got) != 32 && len(got) != 48 || strings.Trim(got[:8]+got[24:32], "a") != "" || strings.Trim(got[8:24], "ab") != "" ||
			strings.Trim(got[32:], "c0") != "" {
			t.Fatalf("seed %d: %s", seed, got)
		}
		changed, pages := got[8:24], true
		for p := range slices.Chunk([]byte(changed), 8) {
			pages = pages && bytes.Count(p, p[:1]) == len(p)
		}
		switch {
		case loss.Sectors > 0 && strings.Trim(got, "a") == "":
			results["lost"]++
		case loss.Sectors == 0:
			results["kept"]++
		case pages:
			results["torn by pages"]++
		default:
			results["torn by sectors"]++
		}
		if strings.HasSuffix(got, "0") {
			results["holes"]++
		}
	}
	t.Log(results)
	if len(results) < 5 {
		t.Error("not everything has happened that may")
	}
}

// A file that was cut off and has grown again, without a flush, is as it was flushed, or has its new length.
func TestCutOff(t *testing.T) {
	d, path := mounted(t)
	file := filepath.Join(path, "file")
	restored := 0
	for seed := range uint64(20) {
		f := create(t, file)
		must(t, f.Truncate(0))
		fill(t, f, 'a', 24, 0)
		must(t, f.Sync())
		must(t, f.Truncate(4*512+100))
		if seed%2 == 0 {
			must(t, f.Truncate(8*512))
		}
		must(t, f.Close())
		cut(t, d, seed)
		got := letters(t, file)
		if !strings.HasPrefix(got, "aaaa") {
			t.Fatalf("seed %d: %s", seed, got)
		}
		if got == strings.Repeat("a", 24) {
			restored++
		}
	}
	if restored == 0 {
		t.Error("nothing was ever undone")
	}
}

// Names that nobody flushed may be lost, the last ones first; a flush of the file or of the directory keeps them.
func TestNames(t *testing.T) {
	d, path := mounted(t)
	at := func(name string) string { return filepath.Join(path, name) }
	sync := func(name string) {
		t.Helper()
		f, err := os.Open(at(name))
		must(t, err)
		must(t, errors.Join(f.Sync(), f.Close()))
	}
	text := func(name string) string {
		data, err := os.ReadFile(at(name))
		if err != nil {
			return "-"
		}
		return string(data)
	}
	seen := make(map[string]int)
	for seed := range uint64(60) {
		base := fmt.Sprint(seed)
		must(t, os.Mkdir(at(base), 0o700))
		in := func(name string) string { return filepath.Join(base, name) }
		must(t, os.WriteFile(at(in("x")), []byte("old"), 0o600))
		sync(in("x"))
		must(t, os.WriteFile(at(in("new")), []byte("new"), 0o600))
		sync(in("new")) // the file, and so its name
		must(t, os.Rename(at(in("new")), at(in("x"))))
		must(t, os.WriteFile(at(in("y")), nil, 0o600))
		must(t, os.Remove(at(in("x"))))
		if seed%3 == 0 {
			sync(base)
		}
		loss := cut(t, d, seed)
		state := text(in("x")) + text(in("new")) + text(in("y"))
		if seed%3 == 0 {
			if state != "--" || loss.Names != 0 {
				t.Fatalf("seed %d: %s, and %v, after the directory was flushed", seed, state, loss)
			}
			continue
		}
		seen[state]++
	}
	t.Log(seen)
	for _, state := range []string{"oldnew-", "new--", "new-", "--"} {
		if seen[state] == 0 {
			t.Errorf("never seen: %s", state)
		}
		delete(seen, state)
	}
	if len(seen) > 0 {
		t.Errorf("impossible: %v", seen)
	}
	left, err := os.ReadDir(filepath.Join(filepath.Dir(path), "store", "removed"))
	if err != nil || len(left) > 0 {
		t.Errorf("kept for nothing: %v, %v", left, err)
	}
}

func TestSwitches(t *testing.T) {
	d, path := mounted(t)
	f := create(t, filepath.Join(path, "file"))
	defer func() { _ = f.Close() }()
	fill(t, f, 'a', 16, 0)
	must(t, f.Sync())

	d.Fail(true)
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("a flush that fails: %v", err)
	}
	d.Fail(false)
	must(t, f.Sync())

	const span = 200 * time.Millisecond
	d.Slow(span)
	began := time.Now()
	must(t, f.Sync())
	if took := time.Since(began); took < span {
		t.Errorf("a slow flush took %v", took)
	}
	d.Slow(0)

	must(t, f.Truncate(64*4096)) // which has holes
	d.Fill(true)
	fill(t, f, 'b', 4, 512) // over what is there
	for _, offset := range []int64{32 * 4096, 32*4096 + 512, 64 * 4096, 100 * 4096} {
		for range 2 { // it does not help to try again
			if _, err := f.WriteAt(make([]byte, 2*4096), offset); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("a write at %d on a full disk: %v", offset, err)
			}
		}
	}
	if err := f.Truncate(65 * 4096); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more on a full disk: %v", err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 4096*70); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("an allocation on a full disk: %v", err)
	}
	if err := os.Mkdir(filepath.Join(path, "dir"), 0o700); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a directory on a full disk: %v", err)
	}
	if _, err := os.Create(filepath.Join(path, "another")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a file on a full disk: %v", err)
	}
	d.Fill(false)
	if got := letters(t, f.Name()); len(got) != 64*8 || strings.Trim(got[16:], "0") != "" || got[:8] != "abbbbaaa" {
		t.Errorf("after the disk was full: %.20s…, %d sectors", got, len(got))
	}
	fill(t, f, 'c', 4, 32*4096)
}

func TestLie(t *testing.T) {
	d, path := mounted(t)
	file := filepath.Join(path, "file")
	f := create(t, file)
	fill(t, f, 'a', 64, 0)
	must(t, f.Sync())
	d.Lie(true)
	fill(t, f, 'b', 64, 0)
	must(t, errors.Join(f.Sync(), f.Close()))
	loss, err := d.Revert()
	must(t, err)
	if got := letters(t, file); loss.Sectors != 64 || got != strings.Repeat("a", 64) {
		t.Errorf("%v: %s", loss, got)
	}
	d.Lie(false)
	f = create(t, file)
	fill(t, f, 'c', 64, 0)
	must(t, errors.Join(f.Sync(), f.Close()))
	if loss := cut(t, d, 2); loss.Sectors != 0 || strings.Trim(letters(t, file), "c") != "" {
		t.Errorf("%v: %s", loss, letters(t, file))
	}
}

// A copy that was taken is put back.
func TestRestore(t *testing.T) {
	d, path := mounted(t)
	file := filepath.Join(path, "file")
	must(t, os.WriteFile(file, []byte("old"), 0o600))
	copied := filepath.Join(t.TempDir(), "copy")
	must(t, d.Save(copied))
	must(t, os.WriteFile(file, []byte("newer"), 0o600))
	must(t, os.WriteFile(file+"2", nil, 0o600))
	must(t, d.Restore(copied))
	names, err := os.ReadDir(path)
	must(t, err)
	if data, err := os.ReadFile(file); err != nil || string(data) != "old" || len(names) != 1 {
		t.Errorf("%q, %v, %v", data, names, err)
	}
}

// committed kills a process that commits to a database after a while, and returns the last number that it was told of.
func committed(t *testing.T, path string, rng *rand.Rand) (last uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writeVariable+"="+path)
	cmd.Stderr = t.Output()
	said, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(said)
	for left := rng.IntN(30); lines.Scan(); left-- {
		if left == 0 {
			must(t, cmd.Process.Kill()) // what it says until then counts
		}
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(lines.Text())
		}
	}
	_ = cmd.Wait() // it was killed
	return last
}

// numbers has another process read a database as it is on the disk: one that is damaged may end it.
func numbers(path string) (last uint64, err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), readVariable+"="+path, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("damaged: %w", err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
}

// A database that flushes loses no transaction that it has acknowledged, however often the power goes.
func TestDatabaseSurvives(t *testing.T) {
	d, path := mounted(t)
	rng := rand.New(rand.NewPCG(1, 1))
	lost := disk.Loss{}
	for seed := range uint64(50) {
		acked := committed(t, filepath.Join(path, "db"), rng)
		loss := cut(t, d, seed)
		lost.Sectors, lost.Kept, lost.Names = lost.Sectors+loss.Sectors, lost.Kept+loss.Kept, lost.Names+loss.Names
		got, err := numbers(filepath.Join(d.Files(), "db"))
		if err != nil || got < acked {
			t.Fatalf("seed %d: %d were committed, and %d are there (%v)", seed, acked, got, err)
		}
	}
	t.Log(lost)
	if lost.Sectors == 0 || lost.Kept == 0 {
		t.Error("the power never went in the middle of anything")
	}
}

// On a disk that lies, it loses some, or is damaged.
func TestDatabaseIsLiedTo(t *testing.T) {
	d, path := mounted(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for seed := range uint64(20) {
		d.Lie(seed > 0)
		acked := committed(t, filepath.Join(path, "db"), rng)
		cut(t, d, seed)
		if got, err := numbers(filepath.Join(d.Files(), "db")); err != nil || got < acked {
			t.Logf("%d were committed, and %d are there (%v)", acked, got, err)
			if seed == 0 {
				t.Error("before it was lied to")
			}
			return
		}
	}
	t.Error("nothing was lost in 20 cuts")
}

// What a process has left mounted that was killed is removed by the next disk.
func TestLeftovers(t *testing.T) {
	supported(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	must(t, os.Mkdir(path, 0o700))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), mountVariable+"="+dir)
	said, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || line != "<nil>\n" {
		t.Errorf("%q, %v", line, err)
	}
	if d, err := disk.New(path, filepath.Join(dir, "store")); err == nil { // that of somebody who lives stays
		must(t, d.Close())
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || !bytes.Contains(mounts, []byte(path)) {
		t.Errorf("not mounted (%v)", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	mounted(t)
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(path)) {
		t.Errorf("still mounted (%v)", err)
	}
}
