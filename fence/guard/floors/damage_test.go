package floors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/floors"
)

// sample makes a store with a tree of the given number of floors, and returns its file and what it holds.
func sample(t testing.TB, floorCount int) ([]byte, gate.State) {
	t.Helper()
	path := filepath.Join(memory(t), "sample")
	s, _ := mustOpen(t, path)
	for v := range uint64(4) {
		b := gate.Batch{Version: v + 1, Base: tok(v + 1), Witnessed: tok(900)}
		for i := range floorCount {
			b.Floors = append(b.Floors, gate.Floor{Resource: fmt.Sprintf("orders/%d", i), Token: tok(100*v + uint64(i) + 1), Drained: i%2 == 0})
		}
		mustWrite(t, s, b)
	}
	if err := s.SaveKeys(floors.Keys{Issuer: "quorum", JWKS: `{"keys":[]}`}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, state := mustOpen(t, path)
	defer func() { _ = s.Close() }()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content, state
}

// judge opens a file of that content. It either holds one of the states that were written, or is refused and unchanged.
func judge(t fataler, path string, content []byte, states ...gate.State) error {
	t.Helper()
	return judgeThen(t, true, path, content, states...)
}

// judgeThen leaves it open whether a store that was opened is written to as well, which takes time.
func judgeThen(t fataler, writeOn bool, path string, content []byte, states ...gate.State) error {
	t.Helper()
	put(t, path, content)
	s, got, err := floors.Open(path, 0)
	if err == nil {
		for _, state := range states {
			if reflect.DeepEqual(got, state) {
				if writeOn {
					goOn(t, s, path, state)
				}
				return s.Close()
			}
		}
		t.Fatalf("opened as %+v, which was never written", got)
	}
	if !errors.Is(err, floors.ErrDamaged) && !errors.Is(err, floors.ErrForeign) {
		t.Fatalf("error %v is neither ErrDamaged nor ErrForeign", err)
	}
	if after, readErr := os.ReadFile(path); readErr != nil || !bytes.Equal(after, content) {
		t.Fatalf("the refused file was changed (%v)", readErr)
	}
	return err
}

// goOn writes to a store that was found sound until pages are used again, and expects to find all of it.
func goOn(t fataler, s *floors.Store, path string, state gate.State) {
	t.Helper()
	for i := range uint64(4) {
		state.Version++
		state.Floors = slices.Clone(state.Floors)
		b := gate.Batch{Version: state.Version}
		for at := range state.Floors {
			f := &state.Floors[at]
			f.Token, f.Drained = tok(5000+i), false
			b.Floors = append(b.Floors, *f)
		}
		mustWrite(t, s, b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, got := mustOpen(t, path)
	if !reflect.DeepEqual(got, state) {
		t.Fatalf("after writing on: %+v, want %+v", got, state)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// memory is a directory where flushing costs nothing, if there is one: these tests are about what is in files, not about disks.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "floors-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// put overwrites a file in place: some file systems wait for the disk when one is emptied and written anew.
func put(t fataler, path string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content, 0)
	if err := errors.Join(err, f.Truncate(int64(len(content))), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// before returns the state that the other head of the file leads to: that of the transaction before.
func before(t testing.TB, content []byte) gate.State {
	t.Helper()
	for _, page := range []int{0, 4096} {
		damaged := bytes.Clone(content)
		clear(damaged[page : page+128])
		path := filepath.Join(memory(t), "before")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, state, err := floors.Open(path, 0); err == nil && len(s.Keys().Issuer) == 0 {
			_ = s.Close()
			return state
		} else if err == nil {
			_ = s.Close()
		}
	}
	t.Fatal("no older head")
	return gate.State{}
}

// A file that was cut short anywhere is refused, unless only room for more was cut off.
func TestTruncated(t *testing.T) {
	for _, floorCount := range []int{3, 400} {
		content, state := sample(t, floorCount)
		path := filepath.Join(memory(t), "floors")
		refused, cutShort := 0, 0
		for size := 0; size < len(content); size += 509 {
			if err := judge(t, path, content[:size], state); err != nil {
				refused++
				cutShort += strings.Count(err.Error(), "cut short")
			}
		}
		if refused < 8 || cutShort < 4 {
			t.Errorf("only %d cuts were noticed, %d as such", refused, cutShort)
		}
		if err := judge(t, path, nil); err == nil {
			t.Error("an empty file is a store")
		}
	}
}

// Any single byte may be wrong: the store is refused, or the byte did not matter, or it was the newest head, which leaves the
// one before, as after a crash.
func TestEveryByteMatters(t *testing.T) {
	for _, floorCount := range []int{3, 400} {
		content, state := sample(t, floorCount)
		older := before(t, content)
		path := filepath.Join(memory(t), "floors")
		random := rand.New(rand.NewPCG(1, uint64(floorCount)))
		step, refused := 2, 0
		if floorCount > 3 || testing.Short() {
			step = 31
		}
		for at := 0; at < len(content); at += step {
			damaged := bytes.Clone(content)
			damaged[at] ^= 1 << random.IntN(8)
			if judgeThen(t, at%32 == 0, path, damaged, state, older) != nil {
				refused++
			}
		}
		t.Logf("%d of %d flips refused", refused, (len(content)+step-1)/step)
		if refused < 100 {
			t.Errorf("only %d flips were noticed", refused)
		}
	}
}

// Whole pages that are another one, or zero, as after a write that went to the wrong place or was lost.
func TestLostPages(t *testing.T) {
	content, state := sample(t, 400)
	older := before(t, content)
	path := filepath.Join(memory(t), "floors")
	pages := len(content) / 4096
	for to := range pages {
		for from := -1; from < pages; from += 2 {
			damaged := bytes.Clone(content)
			page := damaged[4096*to : 4096*(to+1)]
			if from < 0 {
				clear(page)
			} else {
				copy(page, content[4096*from:])
			}
			_ = judge(t, path, damaged, state, older)
		}
	}
}

// A page that is in use must not be among the free ones: it would be overwritten.
func TestFreeAndUsed(t *testing.T) {
	content, state := sample(t, 400)
	native := binary.NativeEndian
	head := content[16:]
	if other := content[4096+16:]; native.Uint64(other[48:]) > native.Uint64(head[48:]) {
		head = other
	}
	root, free := native.Uint64(head[16:]), native.Uint64(head[32:])
	damaged := bytes.Clone(content)
	page := damaged[4096*free:]
	native.PutUint16(page[10:], 1)
	native.PutUint64(page[16:], root)
	if err := judge(t, filepath.Join(memory(t), "floors"), damaged, state); !errors.Is(err, floors.ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

// A page that says that it is longer than it is takes the next one with it.
func TestOverlap(t *testing.T) {
	content, state := sample(t, 400)
	older := before(t, content)
	refused := 0
	for page := 2; page < len(content)/4096; page++ {
		damaged := bytes.Clone(content)
		binary.NativeEndian.PutUint32(damaged[4096*page+12:], 1)
		if judge(t, filepath.Join(memory(t), "floors"), damaged, state, older) != nil {
			refused++
		}
	}
	if refused < 3 {
		t.Errorf("only %d were noticed", refused)
	}
}

func TestForeign(t *testing.T) {
	path := filepath.Join(memory(t), "floors")
	for name, content := range map[string][]byte{
		"text":   bytes.Repeat([]byte("name: guard\nendpoints: [a, b]\n"), 1000),
		"zeros":  make([]byte, 32<<10),
		"sqlite": append([]byte("SQLite format 3\x00"), make([]byte, 16<<10)...),
		"other":  otherDatabase(t, "key"),
		"nested": otherDatabase(t, "writ-guard-state", "writ-guard-floors"),
	} {
		if err := judge(t, path, content); !errors.Is(err, floors.ErrForeign) && !errors.Is(err, floors.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// otherDatabase is a sound one with other contents.
func otherDatabase(t *testing.T, buckets ...string) []byte {
	t.Helper()
	path := filepath.Join(memory(t), "other")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			if _, err := b.CreateBucket([]byte("state")); err != nil {
				return err
			}
			for i := range 100 {
				if err := b.Put(fmt.Append(nil, i), fmt.Append(nil, i)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// tamper changes a sound store by the database itself, so that only the records are wrong.
func tamper(t *testing.T, content []byte, change func(state, floors *bbolt.Bucket) error) []byte {
	t.Helper()
	path := filepath.Join(memory(t), "tampered")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return change(tx.Bucket([]byte("writ-guard-state")), tx.Bucket([]byte("writ-guard-floors")))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return after
}

func TestRecordsThatAreWrong(t *testing.T) {
	content, state := sample(t, 3)
	value := func(f gate.Floor) []byte { return floors.EncodeFloor(f) }
	for name, c := range map[string]struct {
		want   error
		change func(state, floors *bbolt.Bucket) error
	}{
		"a floor is missing": {floors.ErrDamaged, func(_, f *bbolt.Bucket) error { return f.Delete([]byte("orders/1")) }},
		"a floor too many": {floors.ErrDamaged, func(_, f *bbolt.Bucket) error {
			return f.Put([]byte("x"), value(gate.Floor{Resource: "x", Token: tok(1)}))
		}},
		"the floor of another": {floors.ErrDamaged, func(_, f *bbolt.Bucket) error {
			return f.Put([]byte("orders/1"), value(gate.Floor{Resource: "orders/2", Token: tok(303)}))
		}},
		"an older floor": {floors.ErrDamaged, func(_, f *bbolt.Bucket) error {
			return f.Put([]byte("orders/1"), value(gate.Floor{Resource: "orders/1", Token: tok(202)}))
		}},
		"token 0": {floors.ErrDamaged, func(_, f *bbolt.Bucket) error {
			return f.Put([]byte("orders/1"), value(gate.Floor{Resource: "orders/1"}))
		}},
		"a negative token": {floors.ErrDamaged, func(_, f *bbolt.Bucket) error {
			return f.Put([]byte("orders/1"), value(gate.Floor{Resource: "orders/1", Token: -1}))
		}},
		"no state":     {floors.ErrDamaged, func(s, _ *bbolt.Bucket) error { return s.Delete([]byte("state")) }},
		"short state":  {floors.ErrDamaged, func(s, _ *bbolt.Bucket) error { return s.Put([]byte("state"), []byte{1, 2, 3}) }},
		"newer format": {floors.ErrForeign, func(s, _ *bbolt.Bucket) error { return s.Put([]byte("state"), []byte{2, 2, 3}) }},
		"short keys":   {floors.ErrDamaged, func(s, _ *bbolt.Bucket) error { return s.Put([]byte("keys"), []byte{1}) }},
	} {
		err := judge(t, filepath.Join(memory(t), "floors"), tamper(t, content, c.change), state)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzOpen changes some bytes of a store, cuts it, and opens it.
func FuzzOpen(f *testing.F) {
	small, smallState := sample(f, 3)
	large, largeState := sample(f, 400)
	smallOlder, largeOlder := before(f, small), before(f, large)
	f.Add(false, uint32(1<<20), []byte{0, 0, 16, 1})
	f.Add(true, uint32(8192), []byte{0, 16, 8, 1, 0, 32, 10, 255})
	f.Add(true, uint32(1<<20), []byte{0, 48, 24, 9, 0, 64, 28, 200})
	path := filepath.Join(memory(f), "floors")
	f.Fuzz(func(t *testing.T, useLarge bool, size uint32, flips []byte) {
		content, state, older := small, smallState, smallOlder
		if useLarge {
			content, state, older = large, largeState, largeOlder
		}
		damaged := bytes.Clone(content[:min(int(size), len(content))])
		for len(flips) >= 4 && len(damaged) > 0 {
			at := (int(flips[0])<<16 | int(flips[1])<<8 | int(flips[2])) % len(damaged)
			damaged[at] ^= flips[3]
			flips = flips[4:]
		}
		_ = judge(t, path, damaged, state, older)
	})
}
