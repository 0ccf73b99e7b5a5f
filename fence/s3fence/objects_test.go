package s3fence_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/s3fence"
)

// tok returns the token 1.n.
func tok(n uint64) fence.Token {
	token, err := fence.NewToken(1, n)
	if err != nil {
		panic(err)
	}
	return token
}

func config() s3fence.Config { return s3fence.Config{Resource: "billing/nightly", Prefix: "app/"} }

func objectsOn(t testing.TB, store s3fence.Store) *s3fence.Objects {
	t.Helper()
	objects, err := s3fence.NewObjects(store, config())
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// wantStale fails unless err is the refusal of have because of floor.
func wantStale(t testing.TB, err error, have, floor fence.Token) {
	t.Helper()
	var stale *fence.StaleError
	if !errors.As(err, &stale) || !errors.Is(err, fence.ErrStale) {
		t.Fatalf("got %v, want a stale token", err)
	}
	if stale.Have != have || stale.Floor != floor || stale.Resource != "billing/nightly" {
		t.Fatalf("got %+v, want %s refused because of %s", stale, have, floor)
	}
}

func wantBody(t testing.TB, objects *s3fence.Objects, key, want string, token fence.Token) {
	t.Helper()
	item, err := objects.Get(context.Background(), key)
	if err != nil || string(item.Body) != want || item.Token != token {
		t.Fatalf("got %q under %s, %v; want %q under %s", item.Body, item.Token, err, want, token)
	}
}

func TestObjects(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		ctx, objects := t.Context(), objectsOn(t, store)
		if item, err := objects.Get(ctx, "a/b"); !errors.Is(err, s3fence.ErrNotFound) || item.Exists() || !item.Token.IsZero() {
			t.Fatalf("got %+v, %v", item, err)
		}
		for i, body := range []string{"one", "", "one", strings.Repeat("x", 1<<20)} {
			written, err := objects.Put(ctx, "a/b", tok(uint64(i+1)), []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			item, err := objects.Get(ctx, "a/b")
			if err != nil || item.ETag != written.ETag || !item.Exists() {
				t.Fatalf("got %q, %v; want %q", item.ETag, err, written.ETag)
			}
			wantBody(t, objects, "a/b", body, tok(uint64(i+1)))
		}
		_, err := objects.Put(ctx, "a/b", tok(3), []byte("late"))
		wantStale(t, err, tok(3), tok(4))
		_, err = objects.Delete(ctx, "a/b", tok(3))
		wantStale(t, err, tok(3), tok(4))

		if _, err := objects.Delete(ctx, "a/b", tok(4)); err != nil {
			t.Fatal(err)
		}
		item, err := objects.Get(ctx, "a/b")
		if !errors.Is(err, s3fence.ErrNotFound) || !item.Deleted || item.Token != tok(4) || len(item.Body) != 0 {
			t.Fatalf("got %+v, %v", item, err)
		}
		// A tombstone does not forget, and can be written over.
		_, err = objects.Put(ctx, "a/b", tok(3), []byte("resurrected"))
		wantStale(t, err, tok(3), tok(4))
		if _, err := objects.Put(ctx, "a/b", tok(4), []byte("again")); err != nil {
			t.Fatal(err)
		}
		wantBody(t, objects, "a/b", "again", tok(4))

		unchanged := errors.New("leave it")
		if _, err := objects.Update(ctx, "a/b", tok(5), func(s3fence.Item) ([]byte, error) { return nil, unchanged }); !errors.Is(err, unchanged) {
			t.Fatal(err)
		}
		wantBody(t, objects, "a/b", "again", tok(4))
	})
}

// The token can be seen without reading the body.
func TestTokenIsInTheMetadata(t *testing.T) {
	g := startGateway(t)
	store := storeOf(t, g.client, g.bucket(t))
	if _, err := objectsOn(t, store).Put(t.Context(), "a", tok(7), nil); err != nil {
		t.Fatal(err)
	}
	object, err := store.Get(t.Context(), "app/a")
	if err != nil {
		t.Fatal(err)
	}
	defer object.Body.Close()
	if got := object.Metadata[s3fence.TokenMetadata]; got != tok(7).Decimal() {
		t.Fatalf("got %q in %v", got, object.Metadata)
	}
}

// A writer that is paused between reading and writing, for any time, does not write once the object has been touched.
func TestZombiePausedBeforeItsWrite(t *testing.T) {
	writes := map[string]func(*s3fence.Objects, string) error{
		"put": func(o *s3fence.Objects, key string) error {
			_, err := o.Put(context.Background(), key, tok(1), []byte("zombie"))
			return err
		},
		"append": func(o *s3fence.Objects, key string) error {
			_, err := o.Update(context.Background(), key, tok(1), func(i s3fence.Item) ([]byte, error) {
				return append(i.Body, "zombie"...), nil
			})
			return err
		},
		"delete": func(o *s3fence.Objects, key string) error {
			_, err := o.Delete(context.Background(), key, tok(1))
			return err
		},
	}
	onEach(t, func(t *testing.T, store s3fence.Store) {
		for name, write := range writes {
			for _, exists := range []bool{true, false} {
				key := fmt.Sprintf("%s-%v", name, exists)
				objects := objectsOn(t, store)
				if exists {
					if _, err := objects.Put(t.Context(), key, tok(1), []byte("kept")); err != nil {
						t.Fatal(err)
					}
				}
				paused, reached, release := pauseBeforePut(store, key)
				result := make(chan error, 1)
				go func() { result <- write(objectsOn(t, paused), key) }()
				<-reached
				touched, err := objects.Touch(t.Context(), key, tok(2))
				if err != nil {
					t.Fatal(err)
				}
				close(release)
				wantStale(t, <-result, tok(1), tok(2))
				after, err := objects.Get(t.Context(), key)
				if after.ETag != touched.ETag || after.Token != tok(2) || after.Exists() != exists || errors.Is(err, s3fence.ErrNotFound) == exists {
					t.Fatalf("%s: got %+v, %v after %+v", key, after, err, touched)
				}
			}
		}
	})
}

// The bytes are the same before and after, and with them a plain ETag; see TestLimitIdenticalBytesKeepTheirETag.
func TestZombieIsRefusedAfterIdenticalBytes(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		for name, rewrite := range map[string]func(*s3fence.Objects, string) error{
			"same bytes": func(o *s3fence.Objects, key string) error {
				_, err := o.Put(t.Context(), key, tok(2), []byte("same"))
				return err
			},
			"other bytes and back": func(o *s3fence.Objects, key string) error {
				_, err := o.Put(t.Context(), key, tok(2), []byte("other"))
				if err == nil {
					_, err = o.Put(t.Context(), key, tok(2), []byte("same"))
				}
				return err
			},
		} {
			objects := objectsOn(t, store)
			if _, err := objects.Put(t.Context(), name, tok(1), []byte("same")); err != nil {
				t.Fatal(err)
			}
			paused, reached, release := pauseBeforePut(store, name)
			result := make(chan error, 1)
			go func() {
				_, err := objectsOn(t, paused).Put(context.Background(), name, tok(1), []byte("zombie"))
				result <- err
			}()
			<-reached
			if err := rewrite(objects, name); err != nil {
				t.Fatal(err)
			}
			close(release)
			wantStale(t, <-result, tok(1), tok(2))
			wantBody(t, objects, name, "same", tok(2))
		}
	})
}

// Under one token there is no zombie, but the same trap: another process of the holder writes other bytes and the first
// ones again, and an update that was computed before all that must not slip in between unnoticed.
func TestUpdateNoticesBytesThatCameBack(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		objects := objectsOn(t, store)
		if _, err := objects.Put(t.Context(), "k", tok(1), []byte("a")); err != nil {
			t.Fatal(err)
		}
		calls := 0
		paused, reached, release := pauseBeforePut(store, "k")
		result := make(chan error, 1)
		go func() {
			_, err := objectsOn(t, paused).Update(context.Background(), "k", tok(1), func(i s3fence.Item) ([]byte, error) {
				calls++
				return append(i.Body, '+'), nil
			})
			result <- err
		}()
		<-reached
		for _, body := range []string{"b", "a"} {
			if _, err := objects.Put(t.Context(), "k", tok(1), []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		close(release)
		if err := <-result; err != nil || calls != 2 {
			t.Fatalf("got %v after %d calls, want 2", err, calls)
		}
		wantBody(t, objects, "k", "a+", tok(1))
	})
}

func TestTouchIsIdempotent(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		objects := objectsOn(t, store)
		first, err := objects.Touch(t.Context(), "k", tok(2))
		if err != nil || !first.Deleted {
			t.Fatalf("got %+v, %v", first, err)
		}
		again, err := objects.Touch(t.Context(), "k", tok(2))
		if err != nil || again.ETag != first.ETag {
			t.Fatalf("got %+v, %v", again, err)
		}
		_, err = objects.Touch(t.Context(), "k", tok(1))
		wantStale(t, err, tok(1), tok(2))
	})
}

func TestRaise(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		ctx, objects := t.Context(), objectsOn(t, store)
		if floor, err := objects.Floor(ctx); err != nil || !floor.IsZero() {
			t.Fatal(floor, err)
		}
		for range 2 {
			if err := objects.Raise(ctx, tok(5)); err != nil {
				t.Fatal(err)
			}
		}
		// A key that nobody has written or touched is refused all the same.
		_, err := objects.Put(ctx, "never seen", tok(4), nil)
		wantStale(t, err, tok(4), tok(5))
		wantStale(t, objects.Raise(ctx, tok(4)), tok(4), tok(5))
		if floor, err := objects.Floor(ctx); err != nil || floor != tok(5) {
			t.Fatal(floor, err)
		}
		for _, token := range []fence.Token{tok(5), tok(6)} {
			if _, err := objects.Put(ctx, "never seen", token, nil); err != nil {
				t.Fatal(err)
			}
		}
		cfg := config()
		cfg.Unfenced = true
		unfenced, err := s3fence.NewObjects(store, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unfenced.Put(ctx, "elsewhere", tok(4), nil); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTouchAll(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		ctx, objects := t.Context(), objectsOn(t, store)
		for _, key := range []string{"a", "b/c", "d"} {
			if _, err := objects.Put(ctx, key, tok(1), []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := objects.Delete(ctx, "d", tok(1)); err != nil {
			t.Fatal(err)
		}
		if err := objects.Raise(ctx, tok(1)); err != nil {
			t.Fatal(err)
		}
		if n, err := objects.TouchAll(ctx, tok(2)); err != nil || n != 3 {
			t.Fatal(n, err)
		}
		wantBody(t, objects, "a", "a", tok(2))
		wantBody(t, objects, "b/c", "b/c", tok(2))
		if item, _ := objects.Get(ctx, "d"); !item.Deleted || item.Token != tok(2) {
			t.Fatalf("got %+v", item)
		}
	})
}

func TestContended(t *testing.T) {
	store := newMemory()
	objects := objectsOn(t, store)
	n := 0
	busy := &intercepted{Store: store, beforePut: func(string) {
		n++
		if _, err := objects.Put(context.Background(), "k", tok(1), nil); err != nil {
			t.Error(err)
		}
	}}
	cfg := config()
	cfg.Attempts = 3
	slow, err := s3fence.NewObjects(busy, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Put(t.Context(), "k", tok(1), nil); !errors.Is(err, s3fence.ErrContended) || n != 3 {
		t.Fatal(n, err)
	}
}

// Whatever happens between a writer's read and its write, the object's tokens never decrease, what an update was
// computed from is what it replaced, and each is refused or counts exactly once.
func TestInterleavings(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		store := newMemory()
		quiet := objectsOn(t, store)
		ids := 0
		var counted []string // what must be in the list, in this order
		highest := fence.Token(0)
		var act func(depth int)
		act = func(depth int) {
			token := tok(uint64(rapid.IntRange(1, 4).Draw(r, "token")))
			nested := &intercepted{Store: store, beforePut: func(string) {
				for range rapid.IntRange(0, 2-depth).Draw(r, "others meanwhile") {
					act(depth + 1)
				}
			}}
			objects := objectsOn(t, nested)
			var err error
			entry := ""
			switch rapid.SampledFrom([]string{"append", "append", "touch"}).Draw(r, "what") {
			case "append":
				ids++
				entry = fmt.Sprintf("%d@%s;", ids, token)
				_, err = objects.Update(context.Background(), "list", token, func(i s3fence.Item) ([]byte, error) {
					return append(slices.Clone(i.Body), entry...), nil
				})
			case "touch":
				_, err = objects.Touch(context.Background(), "list", token)
			}
			switch {
			case errors.Is(err, fence.ErrStale):
				if token >= highest {
					r.Fatalf("%s refused, though %s is the highest", token, highest)
				}
			case err != nil:
				r.Fatal(err)
			case token < highest:
				r.Fatalf("a write under %s went through after %s", token, highest)
			default:
				highest = token
				if entry != "" {
					counted = append(counted, entry)
				}
			}
		}
		for range rapid.IntRange(1, 6).Draw(r, "writers") {
			act(0)
		}
		item, err := quiet.Get(context.Background(), "list")
		if err != nil && !errors.Is(err, s3fence.ErrNotFound) {
			r.Fatal(err)
		}
		if got, want := string(item.Body), strings.Join(counted, ""); got != want {
			r.Fatalf("got %q, want %q", got, want)
		}
	})
}
