package fence_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/writ-io/writ/fence"
)

// The key and its thumbprint are those of RFC 8037, appendix A.
func TestKeyIDIsTheThumbprint(t *testing.T) {
	public, err := b64.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	const want = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
	if got, err := fence.KeyID(public); err != nil || got != want {
		t.Errorf("KeyID = %s, %v; want %s", got, err, want)
	}
	_, err = fence.KeyID(public[:31])
	wantInvalid(t, err, fence.ErrInvalidKey, "public key")
}

func TestNewSignerRefuses(t *testing.T) {
	mixed := slices.Concat(testKey('a')[:32], testKey('b')[32:])
	for name, key := range map[string]ed25519.PrivateKey{"nil": nil, "short": testKey('a')[:63], "mixed": mixed} {
		if _, err := fence.NewSigner(key); !errors.Is(err, fence.ErrInvalidKey) {
			t.Errorf("%s: %v, want ErrInvalidKey", name, err)
		}
	}
	if _, err := fence.NewKeySet(testKey('a').Public().(ed25519.PublicKey), nil); !errors.Is(err, fence.ErrInvalidKey) {
		t.Errorf("a nil public key: %v, want ErrInvalidKey", err)
	}
}

func TestSignerHidesItsKey(t *testing.T) {
	signer, _ := newSigner(t, 'a')
	want := "signer " + signer.KeyID()
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, signer); got != want {
			t.Errorf("%s prints %s", format, got)
		}
		if got := fmt.Sprintf(format, *signer); got != want {
			t.Errorf("%s of the value prints %s", format, got)
		}
	}
}

func TestKeySet(t *testing.T) {
	a, setA := newSigner(t, 'a')
	b, setB := newSigner(t, 'b')
	both := setA.Merge(setB)
	want := []string{a.KeyID(), b.KeyID()}
	slices.Sort(want)
	if got := both.KeyIDs(); !slices.Equal(got, want) || both.Len() != 2 || setA.Len() != 1 {
		t.Errorf("merged: %v, want %v", got, want)
	}
	rest := both.Without(a.KeyID())
	if rest.Has(a.KeyID()) || !rest.Has(b.KeyID()) || !both.Has(a.KeyID()) {
		t.Errorf("without %s: %v", a.KeyID(), rest.KeyIDs())
	}
	var none fence.KeySet
	if none.Len() != 0 || none.Has("") || none.Without("x").Len() != 0 || none.Merge(setA).Len() != 1 {
		t.Error("the zero KeySet is not an empty set")
	}
	a.Public()[0]++ // a copy
	if _, err := both.Verify(mustSign(t, a, testWrit())); err != nil {
		t.Error(err)
	}
}

func TestJWKSRoundTrips(t *testing.T) {
	a, setA := newSigner(t, 'a')
	_, setB := newSigner(t, 'b')
	for _, set := range []fence.KeySet{{}, setA, setA.Merge(setB)} {
		text, err := set.MarshalJWKS()
		if err != nil {
			t.Fatal(err)
		}
		got, err := fence.ParseJWKS(text)
		if err != nil || !slices.Equal(got.KeyIDs(), set.KeyIDs()) {
			t.Errorf("%s came back as %v, %v", text, got.KeyIDs(), err)
		}
		if again, err := got.MarshalJWKS(); err != nil || string(again) != string(text) {
			t.Errorf("%s was written again as %s", text, again)
		}
		if _, err := got.Verify(mustSign(t, a, testWrit())); (err == nil) != set.Has(a.KeyID()) {
			t.Errorf("verify with %v: %v", got.KeyIDs(), err)
		}
	}
}

func jwkOf(t testing.TB, seed byte) string {
	t.Helper()
	signer, _ := newSigner(t, seed)
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":"%s","kid":"%s","alg":"EdDSA","use":"sig"}`,
		b64.EncodeToString(signer.Public()), signer.KeyID())
}

func TestParseJWKS(t *testing.T) {
	good := jwkOf(t, 'a')
	edit := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	const ec = `{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"1"}`
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"one":              {`{"keys":[` + good + `]}`, 1},
		"same key twice":   {`{"keys":[` + good + `,` + good + `]}`, 1},
		"another kind":     {`{"keys":[` + ec + `,` + good + `]}`, 1},
		"future kind":      {`{"keys":[{"kty":"AKP","new":[]},` + good + `]}`, 1},
		"another curve":    {`{"keys":[` + edit("Ed25519", "X25519") + `]}`, 0},
		"for encryption":   {`{"keys":[` + edit(`"sig"`, `"enc"`) + `]}`, 0},
		"another alg":      {`{"keys":[` + edit(`"EdDSA"`, `"ES256"`) + `]}`, 0},
		"without alg, use": {`{"keys":[` + strings.Replace(good, `,"alg":"EdDSA","use":"sig"`, "", 1) + `]}`, 1},
		"more members":     {`{"expires":7,"keys":[` + edit("{", `{"x5t":"x",`) + `]}`, 1},
		"none":             {`{"keys":[]}`, 0},
	} {
		if set, err := fence.ParseJWKS([]byte(c.text)); err != nil || set.Len() != c.want {
			t.Errorf("%s: %d keys, %v; want %d", name, set.Len(), err, c.want)
		}
	}
	for field, text := range map[string]string{
		"keys":        `{}`,
		"keys ":       `{"keys":null}`,
		"keys  ":      `{"keys":{}}`,
		"keys   ":     `{"keys":[],"keys":[]}`,
		"jwks":        ``,
		"jwks ":       `[]`,
		"jwks  ":      `{"keys":[` + strings.Repeat(" ", fence.MaxJWKSBytes) + `]}`,
		"keys[0]":     `{"keys":[null]}`,
		"kty":         `{"keys":[{}]}`,
		"keys[1].kid": `{"keys":[` + ec + `,` + edit(`"kid":"`, `"kid":"x`) + `]}`,
		"x":           `{"keys":[` + edit(`"x"`, `"y"`) + `]}`,
		"keys[0].x":   `{"keys":[` + edit(`"x":"`, `"x":"AAAA`) + `]}`,
		"keys[0].d":   `{"keys":[` + edit("{", `{"d":"AAAA",`) + `]}`,
		"keys[0].k":   `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
	} {
		set, err := fence.ParseJWKS([]byte(text))
		wantInvalid(t, err, fence.ErrInvalidKey, strings.TrimSpace(field))
		if set.Len() != 0 {
			t.Errorf("%s: a refused set has keys", field)
		}
	}
}

func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[` + jwkOf(f, 'a') + `]}`))
	f.Add([]byte(`{"keys":[` + jwkOf(f, 'a') + `,` + jwkOf(f, 'b') + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := fence.ParseJWKS(data)
		if err != nil {
			if !errors.Is(err, fence.ErrInvalidKey) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		text, err := set.MarshalJWKS()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := fence.ParseJWKS(text); err != nil || !slices.Equal(again.KeyIDs(), set.KeyIDs()) {
			t.Fatalf("%s: %v", text, err)
		}
	})
}

func TestRotation(t *testing.T) {
	first, _ := newSigner(t, 'a')
	_, peers := newSigner(t, 'p')
	ring, err := fence.NewKeyRing(first, peers)
	if err != nil {
		t.Fatal(err)
	}
	verifies := func(compact string, want error) {
		t.Helper()
		if _, err := ring.Verify(compact); !errors.Is(err, want) {
			t.Fatalf("Verify: %v, want %v", err, want)
		}
	}
	sign := func() string {
		t.Helper()
		compact, err := ring.Sign(testWrit())
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	_, err = ring.Rotate()
	wantInvalid(t, err, fence.ErrInvalidKey, "rotation")
	old := sign()

	next, err := ring.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ring.Stage(); err != nil || again != next {
		t.Fatalf("a second Stage made another key: %v", err)
	}
	if !ring.Keys().Has(next.KeyID()) || ring.Current() != first || sign() != old {
		t.Fatal("a staged key must be listed and not used")
	}
	verifies(mustSign(t, next, testWrit()), nil)
	wantInvalid(t, ring.Remove(next.KeyID()), fence.ErrInvalidKey, "kid")

	if oldID, err := ring.Rotate(); err != nil || oldID != first.KeyID() {
		t.Fatalf("Rotate = %s, %v", oldID, err)
	}
	if _, staged := ring.Staged(); staged || ring.Current() != next {
		t.Fatal("the staged key is not the current one")
	}
	current := sign()
	verifies(old, nil)
	verifies(current, nil)
	wantInvalid(t, ring.Remove(next.KeyID()), fence.ErrInvalidKey, "kid")
	if ring.Keys().Len() != 3 {
		t.Fatalf("the set holds %v", ring.Keys().KeyIDs())
	}

	if err := ring.Remove(first.KeyID()); err != nil {
		t.Fatal(err)
	}
	verifies(old, fence.ErrUnknownKey)
	verifies(current, nil)
	wantInvalid(t, ring.Remove(first.KeyID()), fence.ErrUnknownKey, "kid")
}

func TestRestage(t *testing.T) {
	current, _ := newSigner(t, 'a')
	next, _ := newSigner(t, 'b')
	other, _ := newSigner(t, 'c')
	ring, err := fence.NewKeyRing(current, fence.KeySet{})
	if err != nil {
		t.Fatal(err)
	}
	wantInvalid(t, ring.Restage(nil), fence.ErrInvalidKey, "signer")
	wantInvalid(t, ring.Restage(current), fence.ErrInvalidKey, "kid")
	if err := errors.Join(ring.Restage(next), ring.Restage(next)); err != nil {
		t.Fatal(err)
	}
	wantInvalid(t, ring.Restage(other), fence.ErrInvalidKey, "kid")
	if staged, ok := ring.Staged(); !ok || staged != next || !ring.Keys().Has(next.KeyID()) {
		t.Error("the staged key is not listed")
	}
	_, err = fence.NewKeyRing(nil, fence.KeySet{})
	wantInvalid(t, err, fence.ErrInvalidKey, "signer")
}

// At no moment of a rotation is a writ refused that the ring just signed.
func TestRotationUnderLoad(t *testing.T) {
	first, _ := newSigner(t, 'a')
	ring, err := fence.NewKeyRing(first, fence.KeySet{})
	if err != nil {
		t.Fatal(err)
	}
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 50 {
				compact, err := ring.Sign(testWrit())
				if err == nil {
					_, err = ring.Verify(compact)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if _, err := ring.Stage(); err != nil {
			t.Error(err)
		}
		if _, err := ring.Rotate(); err != nil {
			t.Error(err)
		}
	}
	workers.Wait()
}
