package fence_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
)

var b64 = base64.RawURLEncoding

// testKey returns a key that is the same in every run.
func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
}

func newSigner(t testing.TB, seed byte) (*fence.Signer, fence.KeySet) {
	t.Helper()
	signer, err := fence.NewSigner(testKey(seed))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer, keys
}

func testWrit() fence.Writ {
	return fence.Writ{
		Issuer: "prod", Resource: "billing/nightly", Holder: "cron/eu-1", Region: "eu",
		Token: 4<<48 | 7, IssuedAt: time.Unix(1_800_000_000, 0).UTC(), RequestID: "r-1",
	}
}

func mustSign(t testing.TB, s *fence.Signer, w fence.Writ) string {
	t.Helper()
	compact, err := s.Sign(w)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// forge signs any header and payload, unlike Signer.
func forge(private ed25519.PrivateKey, header, payload string) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	return input + "." + b64.EncodeToString(ed25519.Sign(private, []byte(input)))
}

func header(kid string) string { return `{"alg":"EdDSA","kid":"` + kid + `","typ":"writ+jwt"}` }

const goodPayload = `{"iss":"prod","res":"billing/nightly","hld":"cron/eu-1","rgn":"eu","tok":"1125899906842631","iat":1800000000,"rid":"r-1"}`

func TestWritOnTheWire(t *testing.T) {
	signer, _ := newSigner(t, 'a')
	compact := mustSign(t, signer, testWrit())
	if want := forge(testKey('a'), header(signer.KeyID()), goodPayload); compact != want {
		t.Errorf("the wire form changed:\ngot  %s\nwant %s", compact, want)
	}
}

// What we issue is an ordinary JWS to other implementations.
func TestWritIsAnOrdinaryJWS(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	jwks, err := keys.MarshalJWKS()
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		t.Fatal(err)
	}
	parsed, err := jose.ParseSignedCompact(mustSign(t, signer, testWrit()), []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	if payload, err := parsed.Verify(set); err != nil || string(payload) != goodPayload {
		t.Errorf("another implementation reads %s, %v", payload, err)
	}
}

func TestWritRoundTrips(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string, least, most int) string {
			return rapid.StringOfN(rapid.RuneFrom(nil, unicode.L, unicode.N, unicode.P, unicode.S, unicode.M), least, most, most).Draw(t, label)
		}
		w := fence.Writ{
			Issuer: text("iss", 1, 256), Resource: text("res", 1, 512), Holder: text("hld", 1, 1024),
			Region: text("rgn", 0, 128), RequestID: text("rid", 0, 256), Token: drawToken(t, "tok"),
			IssuedAt: time.Unix(rapid.Int64Range(1, 253402300799).Draw(t, "iat"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")),
		}
		compact, err := signer.Sign(w)
		if err != nil {
			t.Fatalf("Sign(%+v): %v", w, err)
		}
		got, err := keys.Verify(compact)
		if err != nil {
			t.Fatalf("Verify: %v", err)
		}
		w.IssuedAt = time.Unix(w.IssuedAt.Unix(), 0).UTC()
		if got != w {
			t.Fatalf("got  %+v\nwant %+v", got, w)
		}
	})
}

func TestLongestWritFits(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	for _, char := range []string{`"`, `\`, "<", "€"} {
		fill := func(n int) string { return strings.Repeat(char, n/len(char)) }
		w := testWrit()
		w.Issuer, w.Resource, w.Holder, w.Region, w.RequestID = fill(256), fill(512), fill(1024), fill(128), fill(256)
		if got, err := keys.Verify(mustSign(t, signer, w)); err != nil || got != w {
			t.Errorf("names of %s: %v", char, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	signer, _ := newSigner(t, 'a')
	cases := []struct {
		claim  string
		change func(*fence.Writ)
	}{
		{"iss", func(w *fence.Writ) { w.Issuer = "" }},
		{"iss", func(w *fence.Writ) { w.Issuer = strings.Repeat("x", 257) }},
		{"res", func(w *fence.Writ) { w.Resource = "" }},
		{"res", func(w *fence.Writ) { w.Resource = strings.Repeat("x", 513) }},
		{"res", func(w *fence.Writ) { w.Resource = "a\nb" }},
		{"res", func(w *fence.Writ) { w.Resource = "\xff" }},
		{"res", func(w *fence.Writ) { w.Resource = "a\u202eb" }},
		{"hld", func(w *fence.Writ) { w.Holder = "" }},
		{"hld", func(w *fence.Writ) { w.Holder = strings.Repeat("x", 1025) }},
		{"rgn", func(w *fence.Writ) { w.Region = strings.Repeat("x", 129) }},
		{"rid", func(w *fence.Writ) { w.RequestID = "\x00" }},
		{"tok", func(w *fence.Writ) { w.Token = 0 }},
		{"tok", func(w *fence.Writ) { w.Token = -1 }},
		{"tok", func(w *fence.Writ) { w.Token = 1 << 48 }},
		{"iat", func(w *fence.Writ) { w.IssuedAt = time.Time{} }},
		{"iat", func(w *fence.Writ) { w.IssuedAt = time.Unix(253402300800, 0) }},
	}
	for _, c := range cases {
		w := testWrit()
		c.change(&w)
		compact, err := signer.Sign(w)
		wantInvalid(t, err, fence.ErrInvalidWrit, c.claim)
		if compact != "" {
			t.Errorf("%s: signed", c.claim)
		}
	}
}

func wantInvalid(t testing.TB, err, kind error, field string) {
	t.Helper()
	var bad *fence.InvalidError
	if !errors.Is(err, kind) || !errors.As(err, &bad) || bad.Field != field || bad.Fix == "" {
		t.Errorf("got %v, want %v that names %s", err, kind, field)
	}
}

func TestRequire(t *testing.T) {
	w := testWrit()
	for _, want := range []fence.Expected{{}, {Issuer: "prod"}, {Resource: "billing/nightly"}, {Issuer: "prod", Resource: "billing/nightly"}} {
		if err := w.Require(want); err != nil {
			t.Errorf("%+v: %v", want, err)
		}
	}
	wantInvalid(t, w.Require(fence.Expected{Issuer: "staging", Resource: w.Resource}), fence.ErrInvalidWrit, "iss")
	wantInvalid(t, w.Require(fence.Expected{Issuer: "prod", Resource: "billing"}), fence.ErrInvalidWrit, "res")
}

func TestSignerIsConcurrent(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	want := mustSign(t, signer, testWrit())
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 50 {
				got, err := signer.Sign(testWrit())
				if err != nil || got != want {
					t.Errorf("Sign: %v", err)
				}
				if _, err := keys.Verify(got); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
}

func BenchmarkSign(b *testing.B) {
	signer, _ := newSigner(b, 'a')
	w := testWrit()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signer.Sign(w); err != nil {
			b.Fatal(err)
		}
	}
}
