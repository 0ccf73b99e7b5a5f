package s3fence_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/s3fence"
)

func TestBadConfig(t *testing.T) {
	for name, cfg := range map[string]s3fence.Config{
		"Resource":  {},
		"Resource ": {Resource: strings.Repeat("x", 513)},
		"Prefix":    {Resource: "r", Prefix: "a"},
		"Prefix ":   {Resource: "r", Prefix: "a/../"},
		"Prefix  ":  {Resource: "r", Prefix: "/"},
		"MaxBytes":  {Resource: "r", MaxBytes: -1},
		"Attempts":  {Resource: "r", Attempts: -1},
	} {
		_, err := s3fence.NewObjects(newMemory(), cfg)
		if !errors.Is(err, s3fence.ErrInvalid) || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s3fence.OpenManifest(t.Context(), newMemory(), cfg, tok(1)); !errors.Is(err, s3fence.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, cfg := range []s3fence.Config{{Resource: "r"}, {Resource: "r", Prefix: "a/b c/"}} {
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestBadKeys(t *testing.T) {
	store := newMemory()
	objects := objectsOn(t, store)
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../b", "a/../b", "a/./b", "a\x00b", "a\nb", "\xff", "\u200b",
		".writ-fence", ".writ-manifest", ".writ-data/x", strings.Repeat("x", 1021),
	} {
		_, get := objects.Get(t.Context(), key)
		_, put := objects.Put(t.Context(), key, tok(1), nil)
		_, touch := objects.Touch(t.Context(), key, tok(1))
		_, adopt := objects.Adopt(t.Context(), key, tok(1))
		_, remove := objects.Delete(t.Context(), key, tok(1))
		for _, err := range []error{get, put, touch, adopt, remove} {
			if !errors.Is(err, s3fence.ErrInvalid) {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
	if len(store.objects) != 0 {
		t.Fatalf("wrote %v", store.objects)
	}
	for _, key := range []string{"a", "a/b", "é/ü.txt", "a b", "...", "x/.writ-x", strings.Repeat("x", 1020)} {
		if _, err := objects.Put(t.Context(), key, tok(1), nil); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestBadTokens(t *testing.T) {
	store := newMemory()
	objects := objectsOn(t, store)
	for _, token := range []fence.Token{0, -1, 1, 1 << 48, math.MinInt64, fence.Token(math.MaxInt64) &^ (1<<48 - 1)} {
		_, put := objects.Put(t.Context(), "k", token, nil)
		_, remove := objects.Delete(t.Context(), "k", token)
		_, open := s3fence.OpenManifest(t.Context(), store, config(), token)
		for _, err := range []error{put, remove, open, objects.Raise(t.Context(), token)} {
			if !errors.Is(err, fence.ErrInvalidToken) {
				t.Errorf("%d: %v", token, err)
			}
		}
	}
	if len(store.objects) != 0 {
		t.Fatalf("wrote %v", store.objects)
	}
}

// sealed is a good object under token 1.1; tests spoil it.
const nonce = "0123456789abcdef0123456789abcdef"

func sealed(token fence.Token, body string) string {
	return "writ-seal/1 " + token.Decimal() + " " + nonce + " live\n" + body
}

// Nothing that cannot be interpreted is believed, or written over.
func TestBadObjects(t *testing.T) {
	good, other := tok(1).Decimal(), tok(2).Decimal()
	type stored struct {
		body     string
		metadata []string
		want     error
	}
	cases := map[string]stored{
		"no seal, no metadata":   {"hello", nil, s3fence.ErrForeign},
		"no seal":                {"hello", []string{"writ-token", good}, s3fence.ErrForeign},
		"empty":                  {"", nil, s3fence.ErrForeign},
		"no metadata":            {sealed(tok(1), "x"), nil, s3fence.ErrForeign},
		"they differ":            {sealed(tok(1), "x"), []string{"writ-token", other}, s3fence.ErrDamaged},
		"two tokens":             {sealed(tok(1), "x"), []string{"writ-token", good + "," + good}, s3fence.ErrDamaged},
		"two tokens, spaced":     {sealed(tok(1), "x"), []string{"writ-token", good + ", " + other}, s3fence.ErrDamaged},
		"not a number":           {sealed(tok(1), "x"), []string{"writ-token", "newest"}, s3fence.ErrDamaged},
		"empty metadata":         {sealed(tok(1), "x"), []string{"writ-token", ""}, s3fence.ErrDamaged},
		"zero":                   {sealed(tok(1), "x"), []string{"writ-token", "0"}, s3fence.ErrDamaged},
		"negative":               {sealed(tok(1), "x"), []string{"writ-token", "-" + good}, s3fence.ErrDamaged},
		"2^63":                   {sealed(tok(1), "x"), []string{"writ-token", "9223372036854775808"}, s3fence.ErrDamaged},
		"for people":             {sealed(tok(1), "x"), []string{"writ-token", "1.1"}, s3fence.ErrDamaged},
		"leading zero":           {sealed(tok(1), "x"), []string{"writ-token", "0" + good}, s3fence.ErrDamaged},
		"truncated seal":         {sealed(tok(1), "")[:40], []string{"writ-token", good}, s3fence.ErrDamaged},
		"seal without an end":    {strings.TrimSuffix(sealed(tok(1), ""), "\n"), []string{"writ-token", good}, s3fence.ErrDamaged},
		"seal of token zero":     {sealed(0, ""), []string{"writ-token", good}, s3fence.ErrDamaged},
		"seal of negative token": {sealed(-5, ""), []string{"writ-token", good}, s3fence.ErrDamaged},
		"upper-case nonce":       {strings.Replace(sealed(tok(1), ""), "abcdef", "ABCDEF", 1), []string{"writ-token", good}, s3fence.ErrDamaged},
		"unknown kind":           {strings.Replace(sealed(tok(1), ""), "live", "lazy", 1), []string{"writ-token", good}, s3fence.ErrDamaged},
		"endless first line":     {"writ-seal/1 " + strings.Repeat("9", 1<<16), []string{"writ-token", good}, s3fence.ErrDamaged},
	}
	g := startGateway(t)
	bucket := g.bucket(t)
	for name, c := range cases {
		if _, err := g.rawPut(t, bucket, "app/"+name, c.body, withMetadata(c.metadata...)); err != nil {
			t.Fatal(err)
		}
	}
	objects := objectsOn(t, storeOf(t, g.client, bucket))
	for name, c := range cases {
		_, get := objects.Get(t.Context(), name)
		_, put := objects.Put(t.Context(), name, tok(9), []byte("over it"))
		_, touch := objects.Touch(t.Context(), name, tok(9))
		_, remove := objects.Delete(t.Context(), name, tok(9))
		for _, err := range []error{get, put, touch, remove} {
			if !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		}
		adopted, err := objects.Adopt(t.Context(), name, tok(9))
		if errors.Is(c.want, s3fence.ErrDamaged) {
			if !errors.Is(err, s3fence.ErrDamaged) {
				t.Errorf("%s: adopted: %v", name, err)
			}
			continue
		}
		if err != nil || adopted.Token != tok(9) {
			t.Errorf("%s: adopt: %+v, %v", name, adopted, err)
			continue
		}
		want := c.body
		if strings.HasPrefix(want, "writ-seal/1") {
			want = "x"
		}
		wantBody(t, objects, name, want, tok(9))
	}
}

// A token that only one of seal and metadata names counts.
func TestAdoptGoesByTheTokensThereAre(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	for key, c := range map[string]struct {
		body     string
		metadata []string
	}{
		"metadata": {"hello", []string{"writ-token", tok(5).Decimal()}},
		"seal":     {sealed(tok(5), "hello"), nil},
	} {
		if _, err := g.rawPut(t, bucket, "app/"+key, c.body, withMetadata(c.metadata...)); err != nil {
			t.Fatal(err)
		}
		objects := objectsOn(t, storeOf(t, g.client, bucket))
		_, err := objects.Adopt(t.Context(), key, tok(4))
		wantStale(t, err, tok(4), tok(5))
		if _, err := objects.Adopt(t.Context(), key, tok(5)); err != nil {
			t.Fatal(err)
		}
		wantBody(t, objects, key, "hello", tok(5))
	}
}

// Metadata whose name comes in two spellings, as some storage may answer it.
func TestTokenTwiceInTheMetadata(t *testing.T) {
	store := newMemory()
	body := sealed(tok(1), "x")
	if _, err := store.Put(t.Context(), "app/k", s3fence.Input{
		Body: strings.NewReader(body), Size: int64(len(body)), If: s3fence.Condition{Absent: true},
		Metadata: map[string]string{"writ-token": tok(1).Decimal(), "Writ-Token": tok(1).Decimal()},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := objectsOn(t, store).Get(t.Context(), "k"); !errors.Is(err, s3fence.ErrDamaged) {
		t.Fatal(err)
	}
}

func TestTooLarge(t *testing.T) {
	store := newMemory()
	cfg := config()
	cfg.MaxBytes = 10
	small, err := s3fence.NewObjects(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := small.Put(t.Context(), "k", tok(1), make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := small.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := small.Put(t.Context(), "k", tok(1), make([]byte, 11)); !errors.Is(err, s3fence.ErrTooLarge) {
		t.Fatal(err)
	}
	if _, err := objectsOn(t, store).Put(t.Context(), "k", tok(1), make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := small.Put(t.Context(), "k", tok(1), nil); !errors.Is(err, s3fence.ErrTooLarge) {
		t.Fatal(err)
	}
	if err := update(openManifest(t, store, tok(1)), set("a", "123456789012345")); err != nil {
		t.Fatal(err)
	}
	cfg.MaxBytes = 1 << 10
	reader, err := s3fence.NewReader(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := update(openManifest(t, store, tok(1)), set("b", strings.Repeat("x", 1<<11))); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Get(t.Context(), "b"); !errors.Is(err, s3fence.ErrTooLarge) {
		t.Fatal(err)
	}
}

// A storage that does not change the ETag is found out by the first write, not by the first zombie.
func TestConstantETagIsRefused(t *testing.T) {
	store := newMemory()
	store.constantETag = true
	objects := objectsOn(t, store)
	if _, err := objects.Put(t.Context(), "k", tok(1), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Put(t.Context(), "k", tok(1), []byte("2")); !errors.Is(err, s3fence.ErrUnsafe) {
		t.Fatal(err)
	}
}
