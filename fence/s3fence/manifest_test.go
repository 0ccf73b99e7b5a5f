package s3fence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/s3fence"
)

func openManifest(t testing.TB, store s3fence.Store, token fence.Token) *s3fence.Manifest {
	t.Helper()
	m, err := s3fence.OpenManifest(context.Background(), store, config(), token)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func set(name, body string) s3fence.Change {
	return s3fence.Change{Name: name, Body: strings.NewReader(body)}
}

// update sets or removes names, whatever they were.
func update(m *s3fence.Manifest, changes ...s3fence.Change) error {
	_, err := m.Update(context.Background(), func(s3fence.Snapshot) ([]s3fence.Change, error) { return changes, nil })
	return err
}

func wantNames(t testing.TB, m *s3fence.Manifest, want map[string]string) {
	t.Helper()
	snapshot, err := m.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if names := snapshot.Names(); len(names) != len(want) {
		t.Fatalf("got %q, want %v", names, want)
	}
	for name, body := range want {
		got, err := m.Get(context.Background(), name)
		if err != nil || string(got) != body {
			t.Fatalf("%s: got %q, %v; want %q", name, got, err, body)
		}
	}
}

// keysOf lists what is stored.
func keysOf(t testing.TB, store s3fence.Store, prefix string) (keys []string) {
	t.Helper()
	for key, err := range store.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

func TestManifest(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		ctx := t.Context()
		m := openManifest(t, store, tok(1))
		wantNames(t, m, nil)
		big := strings.Repeat("0123456789", 200_000)
		if err := update(m, set("a", "1"), set("dir/é b", big), set("empty", "")); err != nil {
			t.Fatal(err)
		}
		wantNames(t, m, map[string]string{"a": "1", "dir/é b": big, "empty": ""})
		if err := update(m, set("a", "2"), s3fence.Change{Name: "empty"}, s3fence.Change{Name: "never was"}); err != nil {
			t.Fatal(err)
		}
		wantNames(t, m, map[string]string{"a": "2", "dir/é b": big})
		snapshot, err := m.Update(ctx, func(s s3fence.Snapshot) ([]s3fence.Change, error) { return nil, nil })
		if err != nil || snapshot.Revision != 3 || snapshot.Token != tok(1) {
			t.Fatalf("got %+v, %v", snapshot, err)
		}
		if _, err := m.Get(ctx, "empty"); !errors.Is(err, s3fence.ErrNotFound) {
			t.Fatal(err)
		}
		if n := len(keysOf(t, store, "app/.writ-data/")); n != 4 {
			t.Fatalf("%d data objects, want 4", n)
		}
		if n, err := m.Collect(ctx); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		wantNames(t, m, map[string]string{"a": "2", "dir/é b": big})

		// The next holder finds all of it; the one before is refused in everything.
		next := openManifest(t, store, tok(2))
		wantNames(t, next, map[string]string{"a": "2", "dir/é b": big})
		wantStale(t, update(m, set("a", "zombie")), tok(1), tok(2))
		_, err = m.Collect(ctx)
		wantStale(t, err, tok(1), tok(2))
		_, err = s3fence.OpenManifest(ctx, store, config(), tok(1))
		wantStale(t, err, tok(1), tok(2))
		wantNames(t, next, map[string]string{"a": "2", "dir/é b": big})
	})
}

// Paused just before it names what it has written, and woken when the next holder has taken over, a zombie changes nothing;
// what it has written is removed.
func TestManifestRefusesThePausedZombie(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		if err := update(openManifest(t, store, tok(1)), set("a", "1"), set("b", "1")); err != nil {
			t.Fatal(err)
		}
		paused, reached, release := pauseBeforePut(store, ".writ-manifest")
		zombie := make(chan error, 1)
		go func() {
			m, err := s3fence.OpenManifest(context.Background(), paused, config(), tok(1))
			if err == nil {
				err = update(m, set("a", "zombie"), set("b", "zombie"), set("c", "zombie"))
			}
			zombie <- err
		}()
		<-reached
		next := openManifest(t, store, tok(2))
		close(release)
		wantStale(t, <-zombie, tok(1), tok(2))
		wantNames(t, next, map[string]string{"a": "1", "b": "1"})
		if n, err := next.Collect(t.Context()); err != nil || n != 3 {
			t.Fatalf("collected %d, %v; want what the zombie wrote", n, err)
		}
		wantNames(t, next, map[string]string{"a": "1", "b": "1"})
	})
}

// What a stale holder collects, between the new one's reading and its writing, is nothing that counts or will.
func TestStaleCollectHarmsNobody(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		ctx := t.Context()
		first := openManifest(t, store, tok(1))
		if err := update(first, set("a", "1"), set("b", "1")); err != nil {
			t.Fatal(err)
		}
		// A collector under token 2 that is paused before it removes anything.
		reached, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		slow := &intercepted{Store: store, deleted: func(string) { once.Do(func() { close(reached); <-release }) }}
		zombie := openManifest(t, slow, tok(2))
		if err := update(zombie, set("a", "2")); err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() { _, err := zombie.Collect(context.Background()); result <- err }()
		<-reached
		third := openManifest(t, store, tok(3))
		if err := update(third, set("b", "3"), set("c", "3")); err != nil {
			t.Fatal(err)
		}
		close(release)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		wantNames(t, third, map[string]string{"a": "2", "b": "3", "c": "3"})
		if _, err := third.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		wantNames(t, third, map[string]string{"a": "2", "b": "3", "c": "3"})
		if n := len(keysOf(t, store, "app/.writ-data/")); n != 3 {
			t.Fatalf("%d data objects are left, want 3", n)
		}
	})
}

// Nothing is collected that a process under the same token is about to name.
func TestCollectSparesUploadsUnderWay(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		other := openManifest(t, store, tok(1))
		paused, reached, release := pauseBeforePut(store, ".writ-manifest")
		m := openManifest(t, paused, tok(1))
		result := make(chan error, 1)
		go func() { result <- update(m, set("a", "1")) }()
		<-reached // its data is there, and not yet named
		if n, err := other.Collect(t.Context()); err != nil || n != 0 {
			t.Fatal(n, err)
		}
		close(release)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		wantNames(t, other, map[string]string{"a": "1"})
	})
}

// An update happens as a whole or not at all.
func TestManifestUpdateIsWhole(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		broken := errors.New("no such file")
		for name, change := range map[string]s3fence.Change{
			"unreadable": {Name: "b", Body: failing{broken}}, "bad name": set("", "x"), "control": set("a\nb", "x"), "long": set(strings.Repeat("x", 513), ""),
		} {
			m := openManifest(t, store, tok(1))
			err := update(m, set("a", "new"), change)
			if !errors.Is(err, broken) && !errors.Is(err, s3fence.ErrInvalid) {
				t.Fatalf("%s: %v", name, err)
			}
			wantNames(t, m, nil)
			if _, err := m.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if keys := keysOf(t, store, "app/.writ-data/"); len(keys) != 0 {
				t.Fatalf("%s: left %q", name, keys)
			}
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)       { return 0, f.err }
func (f failing) Seek(int64, int) (int64, error) { return 0, nil }

// A reader that finds an object collected reads the manifest again; one that is lost for good is told as damage.
func TestReaderFollowsTheManifest(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		ctx := t.Context()
		m := openManifest(t, store, tok(1))
		if err := update(m, set("a", "1")); err != nil {
			t.Fatal(err)
		}
		moved := false
		reader, err := s3fence.NewReader(&movingStore{Store: store, beforeData: func() {
			if moved {
				return
			}
			moved = true
			if err := update(m, set("a", "2")); err != nil {
				t.Error(err)
			}
			if n, err := m.Collect(ctx); err != nil || n != 1 {
				t.Error(n, err)
			}
		}}, config())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reader.Get(ctx, "a"); err != nil || string(got) != "2" || !moved {
			t.Fatalf("got %q, %v", got, err)
		}
		snapshot, err := reader.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ref, _ := snapshot.Ref("a")
		if err := store.Delete(ctx, "app/"+ref.Key); err != nil {
			t.Fatal(err)
		}
		if _, err := reader.Get(ctx, "a"); !errors.Is(err, s3fence.ErrDamaged) {
			t.Fatal(err)
		}
		for _, body := range []string{"3", "22", ""} { // not what was written
			if err := store.Delete(ctx, "app/"+ref.Key); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Put(ctx, "app/"+ref.Key, s3fence.Input{
				Body: strings.NewReader(body), Size: int64(len(body)), If: s3fence.Condition{Absent: true},
			}); err != nil {
				t.Fatal(err)
			}
			if got, err := reader.Get(ctx, "a"); !errors.Is(err, s3fence.ErrDamaged) {
				t.Fatalf("%q: got %q, %v", body, got, err)
			}
		}
	})
}

type movingStore struct {
	s3fence.Store
	beforeData func()
}

func (m *movingStore) Get(ctx context.Context, key string) (*s3fence.Object, error) {
	if strings.Contains(key, ".writ-data/") {
		m.beforeData()
	}
	return m.Store.Get(ctx, key)
}

// Two writers and a zombie append to lists, all at once: every entry that was acknowledged is there once, in order of each
// writer, and none of the zombie's after its refusal.
func TestListAppend(t *testing.T) {
	const each = 15
	lists := map[string]func(store s3fence.Store, token fence.Token) (func(entry string) error, error){
		"object": func(store s3fence.Store, token fence.Token) (func(string) error, error) {
			objects, err := s3fence.NewObjects(store, s3fence.Config{Resource: "billing/nightly", Prefix: "app/", Attempts: 1000})
			if err != nil {
				return nil, err
			}
			_, err = objects.Touch(context.Background(), "list", token)
			return func(entry string) error {
				_, err := objects.Update(context.Background(), "list", token, func(i s3fence.Item) ([]byte, error) {
					return append(slices.Clone(i.Body), entry...), nil
				})
				return err
			}, err
		},
		"manifest": func(store s3fence.Store, token fence.Token) (func(string) error, error) {
			m, err := s3fence.OpenManifest(context.Background(), store,
				s3fence.Config{Resource: "billing/nightly", Prefix: "app/", Attempts: 1000}, token)
			return func(entry string) error {
				_, err := m.Update(context.Background(), func(s s3fence.Snapshot) ([]s3fence.Change, error) {
					var old []byte
					if ref, ok := s.Ref("list"); ok {
						body, err := m.Open(context.Background(), ref)
						if err != nil {
							return nil, err
						}
						defer body.Close()
						if old, err = io.ReadAll(body); err != nil {
							return nil, err
						}
					}
					return []s3fence.Change{{Name: "list", Body: bytes.NewReader(append(old, entry...))}}, nil
				})
				return err
			}, err
		},
	}
	for form, open := range lists {
		t.Run(form, func(t *testing.T) {
			onEach(t, func(t *testing.T, store s3fence.Store) {
				zombie, err := open(store, tok(1))
				if err != nil {
					t.Fatal(err)
				}
				if err := zombie("z0;"); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				acknowledged := make([][]string, 3)
				acknowledged[0] = []string{"z0;"}
				refused := make(chan struct{})
				wg.Go(func() {
					defer close(refused)
					for i := 1; ; i++ {
						entry := fmt.Sprintf("z%d;", i)
						err := zombie(entry)
						if errors.Is(err, fence.ErrStale) {
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						acknowledged[0] = append(acknowledged[0], entry)
					}
				})
				for w := 1; w <= 2; w++ {
					wg.Go(func() {
						add, err := open(store, tok(2))
						for i := 0; i < each && err == nil; i++ {
							entry := fmt.Sprintf("w%d-%d;", w, i)
							if err = add(entry); err == nil {
								acknowledged[w] = append(acknowledged[w], entry)
							}
						}
						if err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				checkList(t, listOf(t, form, store), acknowledged)
			})
		})
	}
}

func listOf(t *testing.T, form string, store s3fence.Store) string {
	t.Helper()
	if form == "object" {
		item, err := objectsOn(t, store).Get(t.Context(), "list")
		if err != nil {
			t.Fatal(err)
		}
		return string(item.Body)
	}
	body, err := openManifest(t, store, tok(2)).Get(t.Context(), "list")
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// checkList holds the list to what was acknowledged; the first writer is the zombie.
func checkList(t *testing.T, list string, acknowledged [][]string) {
	t.Helper()
	entries := strings.SplitAfter(strings.TrimSuffix(list, ";")+";", ";")
	entries = entries[:len(entries)-1]
	var seen [3][]string
	for _, entry := range entries {
		writer := 0
		if entry[0] == 'w' {
			writer = int(entry[1] - '0')
		}
		if writer == 0 && len(seen[1])+len(seen[2]) > 0 {
			t.Errorf("the zombie's %s stands after entries of its successors: %s", entry, list)
		}
		seen[writer] = append(seen[writer], entry)
	}
	for writer := range seen {
		if !slices.Equal(seen[writer], acknowledged[writer]) {
			t.Errorf("writer %d: acknowledged were %v, there are %v", writer, acknowledged[writer], seen[writer])
		}
	}
}
