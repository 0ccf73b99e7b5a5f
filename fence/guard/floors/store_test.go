package floors_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/floors"
)

func tok(sequence uint64) fence.Token {
	t, err := fence.NewToken(1, sequence)
	if err != nil {
		panic(err)
	}
	return t
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func mustOpen(t fataler, path string) (*floors.Store, gate.State) {
	t.Helper()
	s, state, err := floors.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s, state
}

func mustWrite(t fataler, s *floors.Store, batches ...gate.Batch) {
	t.Helper()
	if err := s.Write(batches...); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasWrittenIsThereAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "floors")
	s, first := mustOpen(t, path)
	if len(first.Store) != 32 || first.Version != 0 || first.Base != 0 || first.Witnessed != 0 || len(first.Floors) != 0 {
		t.Fatalf("a new store holds %+v", first)
	}
	if first.Clean {
		t.Fatal("a new store is clean: the one before may have got lost with writes under way")
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v, want 0600", info.Mode(), err)
	}
	mustWrite(t, s,
		gate.Batch{Serial: 1, Version: 1, Floors: []gate.Floor{{Resource: "b", Token: tok(5)}, {Resource: "a", Token: tok(4), Drained: true}}},
		gate.Batch{Serial: 2, Version: 2, Base: tok(2), Witnessed: tok(9)},
	)
	if err := s.SaveKeys(floors.Keys{Issuer: "quorum", JWKS: `{"keys":[]}`}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, got := mustOpen(t, path)
	want := gate.State{
		Store: first.Store, Version: 2, Base: tok(2), Witnessed: tok(9),
		Floors: []gate.Floor{{Resource: "a", Token: tok(4), Drained: true}, {Resource: "b", Token: tok(5)}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("after Close %+v, want %+v", got, want)
	}
	if k := s.Keys(); k != (floors.Keys{Issuer: "quorum", JWKS: `{"keys":[]}`}) {
		t.Errorf("keys %+v", k)
	}
	if err := s.CloseClean(); err != nil {
		t.Fatal(err)
	}
	s, got = mustOpen(t, path)
	if want.Clean = true; !reflect.DeepEqual(got, want) {
		t.Errorf("after CloseClean %+v, want %+v", got, want)
	}
	// This process crashes now: the store must not be taken for clean again.
	copied := filepath.Join(t.TempDir(), "floors")
	clone(t, path, copied)
	if _, got := mustOpen(t, copied); got.Clean {
		t.Error("a store that is in use counts as clean")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func clone(t fataler, from, to string) []byte {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestTwoStoresHaveTwoNames(t *testing.T) {
	_, a := mustOpen(t, filepath.Join(t.TempDir(), "a"))
	_, b := mustOpen(t, filepath.Join(t.TempDir(), "b"))
	if a.Store == b.Store {
		t.Errorf("both are called %s", a.Store)
	}
}

func TestOnlyOneProcessHasAStoreOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "floors")
	s, _ := mustOpen(t, path)
	if _, _, err := floors.Open(path, 0); !errors.Is(err, floors.ErrInUse) {
		t.Fatalf("error %v, want ErrInUse", err)
	}
	mustWrite(t, s, gate.Batch{Version: 1, Base: tok(1)})
	// Who waits gets it when it is free.
	opened := make(chan error)
	go func() {
		_, _, err := floors.Open(path, 10*time.Second)
		opened <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestBatchesThatAreRefusedChangeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "floors")
	s, _ := mustOpen(t, path)
	mustWrite(t, s, gate.Batch{Version: 3, Floors: []gate.Floor{{Resource: "r", Token: tok(5)}}})
	good := gate.Floor{Resource: "good", Token: tok(6)}
	for name, c := range map[string]struct {
		batch gate.Batch
		want  error
	}{
		"the same version":  {gate.Batch{Version: 3, Floors: []gate.Floor{good}}, floors.ErrVersion},
		"an older version":  {gate.Batch{Version: 2, Floors: []gate.Floor{good}}, floors.ErrVersion},
		"no resource":       {gate.Batch{Version: 4, Floors: []gate.Floor{good, {Token: tok(1)}}}, floors.ErrInvalid},
		"a long resource":   {gate.Batch{Version: 4, Floors: []gate.Floor{good, {Resource: strings.Repeat("r", 513), Token: tok(1)}}}, floors.ErrInvalid},
		"token 0":           {gate.Batch{Version: 4, Floors: []gate.Floor{good, {Resource: "s"}}}, floors.ErrInvalid},
		"token 2^63":        {gate.Batch{Version: 4, Floors: []gate.Floor{good, {Resource: "s", Token: -1 << 63}}}, floors.ErrInvalid},
		"a negative token":  {gate.Batch{Version: 4, Floors: []gate.Floor{good, {Resource: "s", Token: -1}}}, floors.ErrInvalid},
		"a negative base":   {gate.Batch{Version: 4, Floors: []gate.Floor{good}, Base: -1}, floors.ErrInvalid},
		"a negative notion": {gate.Batch{Version: 4, Floors: []gate.Floor{good}, Witnessed: -5}, floors.ErrInvalid},
	} {
		if err := s.Write(c.batch); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := s.Write(gate.Batch{Version: 5, Floors: []gate.Floor{good}}, gate.Batch{Version: 5}); !errors.Is(err, floors.ErrVersion) {
		t.Errorf("two batches of one version: %v", err)
	}
	_ = s.Close()
	if err := s.Write(gate.Batch{Version: 9}); !errors.Is(err, floors.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	_, state := mustOpen(t, path)
	if state.Version != 3 || len(state.Floors) != 1 || state.Floors[0] != (gate.Floor{Resource: "r", Token: tok(5)}) {
		t.Errorf("state %+v", state)
	}
}

// The store against a map: any batches, with reopening anywhere.
func TestStoreIsAMapOfMaxima(t *testing.T) {
	dir := memory(t)
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		path := filepath.Join(dir, fmt.Sprint("floors-", runs))
		s, _ := mustOpen(t, path)
		defer func() { _ = s.Close() }()
		model, want := make(map[string]gate.Floor), gate.State{}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				want.Clean = rapid.Bool().Draw(t, "clean")
				closed := s.Close
				if want.Clean {
					closed = s.CloseClean
				}
				if err := closed(); err != nil {
					t.Fatal(err)
				}
				var got gate.State
				s, got = mustOpen(t, path)
				want.Store, want.Floors = got.Store, slices.SortedFunc(maps.Values(model), func(a, b gate.Floor) int {
					return strings.Compare(a.Resource, b.Resource)
				})
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("got  %+v\nwant %+v", got, want)
				}
			default:
				b := drawBatch(t)
				want.Version += uint64(rapid.IntRange(1, 3).Draw(t, "versions"))
				b.Version = want.Version
				mustWrite(t, s, b)
				applyTo(model, &want, b)
			}
		}
	})
}

func drawBatch(t *rapid.T) gate.Batch {
	b := gate.Batch{Forget: rapid.IntRange(0, 4).Draw(t, "forget") == 0}
	for range rapid.IntRange(0, 30).Draw(t, "floors") {
		b.Floors = append(b.Floors, gate.Floor{
			Resource: fmt.Sprintf("%0*d", rapid.IntRange(1, 90).Draw(t, "width"), rapid.IntRange(0, 9).Draw(t, "resource")),
			Token:    tok(uint64(rapid.IntRange(1, 50).Draw(t, "token"))),
			Drained:  rapid.Bool().Draw(t, "drained"),
		})
	}
	if rapid.IntRange(0, 3).Draw(t, "hasBase") == 0 {
		b.Base = tok(uint64(rapid.IntRange(1, 50).Draw(t, "base")))
		b.Witnessed = tok(uint64(rapid.IntRange(1, 90).Draw(t, "witnessed")))
	}
	return b
}

func applyTo(model map[string]gate.Floor, want *gate.State, b gate.Batch) {
	want.Base, want.Witnessed = max(want.Base, b.Base), max(want.Witnessed, b.Witnessed)
	if b.Forget {
		maps.DeleteFunc(model, func(_ string, f gate.Floor) bool { return f.Token <= want.Base })
	}
	for _, f := range b.Floors {
		old := model[f.Resource]
		if f.Token > old.Token || f.Token == old.Token && f.Drained {
			model[f.Resource] = f
		}
	}
}

// Large enough for trees of several pages, and for the file to grow.
func TestManyFloors(t *testing.T) {
	path := filepath.Join(memory(t), "floors")
	s, _ := mustOpen(t, path)
	const batches, each = 20, 2000
	for v := range uint64(batches) {
		b := gate.Batch{Version: v + 1}
		for i := range each {
			b.Floors = append(b.Floors, gate.Floor{Resource: fmt.Sprintf("tenant-%d/orders/%d", i%7, uint64(i)+v*each/2), Token: tok(v*each + 1)})
		}
		mustWrite(t, s, b)
	}
	_ = s.Close()
	s, state := mustOpen(t, path)
	if n := len(state.Floors); n < batches*each/2 || !slices.IsSortedFunc(state.Floors, func(a, b gate.Floor) int { return strings.Compare(a.Resource, b.Resource) }) {
		t.Fatalf("%d floors, or out of order", n)
	}
	mustWrite(t, s, gate.Batch{Version: state.Version + 1, Base: tok(1 << 40), Forget: true})
	_ = s.Close()
	if _, state = mustOpen(t, path); len(state.Floors) != 0 {
		t.Errorf("%d floors left at or below the base", len(state.Floors))
	}
}
