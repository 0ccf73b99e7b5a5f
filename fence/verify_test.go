package fence_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
)

func TestVerifyRefusesHeaders(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	kid := signer.KeyID()
	other, _ := newSigner(t, 'b')
	edit := func(from, to string) string { return strings.Replace(header(kid), from, to, 1) }
	cases := []struct {
		name, header, field string
		kind                error
	}{
		{"alg none", edit("EdDSA", "none"), "alg", fence.ErrInvalidWrit},
		{"alg None", edit("EdDSA", "None"), "alg", fence.ErrInvalidWrit},
		{"alg HS256", edit("EdDSA", "HS256"), "alg", fence.ErrInvalidWrit},
		{"alg in lower case", edit("EdDSA", "eddsa"), "alg", fence.ErrInvalidWrit},
		{"alg missing", edit(`"alg":"EdDSA",`, ""), "alg", fence.ErrInvalidWrit},
		{"alg twice", edit(`"alg"`, `"alg":"none","alg"`), "alg", fence.ErrInvalidWrit},
		{"alg not a string", edit(`"EdDSA"`, `["EdDSA"]`), "alg", fence.ErrInvalidWrit},
		{"alg null", edit(`"EdDSA"`, `null`), "alg", fence.ErrInvalidWrit},
		{"ALG", edit(`"alg"`, `"ALG"`), "alg", fence.ErrInvalidWrit},
		{"typ JWT", edit("writ+jwt", "JWT"), "typ", fence.ErrInvalidWrit},
		{"typ missing", edit(`,"typ":"writ+jwt"`, ""), "typ", fence.ErrInvalidWrit},
		{"kid missing", edit(`"kid":"`+kid+`",`, ""), "kid", fence.ErrInvalidWrit},
		{"kid unknown", header("nobody"), "kid", fence.ErrUnknownKey},
		{"kid empty", header(""), "kid", fence.ErrUnknownKey},
		{"kid of another key", header(other.KeyID()), "kid", fence.ErrUnknownKey},
		{"crit", edit("{", `{"crit":["exp"],`), "crit", fence.ErrInvalidWrit},
		{"empty crit", edit("{", `{"crit":[],`), "crit", fence.ErrInvalidWrit},
		{"b64", edit("{", `{"b64":false,`), "b64", fence.ErrInvalidWrit},
		{"own key", edit("{", `{"jwk":{},`), "jwk", fence.ErrInvalidWrit},
		{"own key address", edit("{", `{"jku":"https://x",`), "jku", fence.ErrInvalidWrit},
		{"own certificate", edit("{", `{"x5c":[],`), "x5c", fence.ErrInvalidWrit},
		{"empty", "", "header", fence.ErrInvalidWrit},
		{"not JSON", "{", "header", fence.ErrInvalidWrit},
		{"array", "[]", "header", fence.ErrInvalidWrit},
		{"two objects", header(kid) + "{}", "header", fence.ErrInvalidWrit},
		{"not UTF-8", edit("{", "{\"x\":\"\xff\","), "header", fence.ErrInvalidWrit},
		{"too many members", edit("{", "{"+manyMembers(64)), "header", fence.ErrInvalidWrit},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w, err := keys.Verify(forge(testKey('a'), c.header, goodPayload))
			wantInvalid(t, err, c.kind, c.field)
			if w != (fence.Writ{}) {
				t.Errorf("a refused writ was returned: %+v", w)
			}
		})
	}
	if _, err := keys.Verify(forge(testKey('a'), edit("{", `{"cty":"later",`), goodPayload)); err != nil {
		t.Errorf("an unknown header parameter: %v", err)
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"m` + string(rune('a'+i%26)) + string(rune('a'+i/26)) + `":1,`)
	}
	return b.String()
}

func TestVerifyRefusesClaims(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	edit := func(from, to string) string {
		if !strings.Contains(goodPayload, from) {
			t.Fatalf("%s is not in the payload", from)
		}
		return strings.Replace(goodPayload, from, to, 1)
	}
	cases := []struct{ name, payload, claim string }{
		{"tok a number", edit(`"1125899906842631"`, `1125899906842631`), "tok"},
		{"tok dotted", edit(`1125899906842631`, `4.7`), "tok"},
		{"tok zero", edit(`1125899906842631`, `0`), "tok"},
		{"tok signed", edit(`1125899906842631`, `+1125899906842631`), "tok"},
		{"tok beyond 63 bits", edit(`1125899906842631`, `18446744073709551615`), "tok"},
		{"tok twice", edit(`"tok"`, `"tok":"281474976710657","tok"`), "tok"},
		{"tok twice, escaped", edit(`"tok"`, `"t\u006fk":"281474976710657","tok"`), "tok"},
		{"TOK", edit(`"tok"`, `"TOK"`), "tok"},
		{"iat text", edit(`1800000000`, `"1800000000"`), "iat"},
		{"iat fraction", edit(`1800000000`, `1800000000.5`), "iat"},
		{"iat exponent", edit(`1800000000`, `18e8`), "iat"},
		{"iat negative", edit(`1800000000`, `-1`), "iat"},
		{"iat zero", edit(`1800000000`, `0`), "iat"},
		{"iat too late", edit(`1800000000`, `253402300800`), "iat"},
		{"iat null", edit(`1800000000`, `null`), "iat"},
		{"iss empty", edit(`"prod"`, `""`), "iss"},
		{"iss null", edit(`"prod"`, `null`), "iss"},
		{"res array", edit(`"billing/nightly"`, `["billing/nightly"]`), "res"},
		{"res control character", edit(`billing/`, `billing\n`), "res"},
		{"res too long", edit(`billing`, strings.Repeat("x", 513)), "res"},
		{"hld empty", edit(`"cron/eu-1"`, `""`), "hld"},
		{"unknown claim twice", edit(`{`, `{"new":1,"new":2,`), "new"},
		{"empty", "", "payload"},
		{"null", "null", "payload"},
		{"not JSON", goodPayload[:20], "payload"},
		{"more after it", goodPayload + "x", "payload"},
		{"not UTF-8", edit("prod", "\xff"), "payload"},
	}
	for _, claim := range []string{"iss", "res", "hld", "rgn", "tok", "iat", "rid"} {
		cases = append(cases, struct{ name, payload, claim string }{claim + " missing", edit(`"`+claim+`"`, `"x"`), claim})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w, err := keys.Verify(forge(testKey('a'), header(signer.KeyID()), c.payload))
			wantInvalid(t, err, fence.ErrInvalidWrit, c.claim)
			if w != (fence.Writ{}) {
				t.Errorf("a refused writ was returned: %+v", w)
			}
		})
	}
	newer := edit("{", `{"exp":1,"sub":null,"new":{"a":[1]},`)
	if got, err := keys.Verify(forge(testKey('a'), header(signer.KeyID()), newer)); err != nil || got != testWrit() {
		t.Errorf("unknown claims: %+v, %v", got, err)
	}
}

func TestVerifyRefusesForgery(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	good := mustSign(t, signer, testWrit())
	parts := strings.Split(good, ".")
	hs256 := b64.EncodeToString([]byte(strings.Replace(header(signer.KeyID()), "EdDSA", "HS256", 1))) + "." + parts[1]
	mac := hmac.New(sha256.New, signer.Public())
	mac.Write([]byte(hs256))
	higher := b64.EncodeToString([]byte(strings.Replace(goodPayload, "1125899906842631", "1125899906842632", 1)))
	cases := map[string]struct{ writ, field string }{
		"empty":                     {"", "writ"},
		"dots":                      {"..", "signature"},
		"HMAC keyed by public key":  {hs256 + "." + b64.EncodeToString(mac.Sum(nil)), "signature"},
		"unsigned":                  {parts[0] + "." + parts[1] + ".", "signature"},
		"two parts":                 {parts[0] + "." + parts[1], "writ"},
		"four parts":                {good + ".x", "writ"},
		"higher token":              {parts[0] + "." + higher + "." + parts[2], "signature"},
		"signed by another key":     {forge(testKey('b'), header(signer.KeyID()), goodPayload), "signature"},
		"space before":              {" " + good, "header"},
		"line break after":          {good + "\n", "signature"},
		"line break within":         {good[:len(good)-5] + "\r\n" + good[len(good)-5:], "signature"},
		"padded":                    {good + "==", "signature"},
		"JSON form":                 {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "writ"},
		"over 8 KiB":                {forge(testKey('a'), header(signer.KeyID()), `{"new":"`+strings.Repeat("x", fence.MaxWritBytes)+`",`+goodPayload[1:]), "writ"},
		"signature of another writ": {parts[0] + "." + parts[1] + "." + strings.Split(forge(testKey('a'), header(signer.KeyID()), "{}"), ".")[2], "signature"},
	}
	for name, compact := range cases {
		w, err := keys.Verify(compact.writ)
		wantInvalid(t, err, fence.ErrInvalidWrit, compact.field)
		if w != (fence.Writ{}) {
			t.Errorf("%s: a refused writ was returned: %+v", name, w)
		}
	}
	for n := range good {
		if _, err := keys.Verify(good[:n]); err == nil {
			t.Errorf("accepted the first %d of %d bytes", n, len(good))
		}
	}
	if _, err := (fence.KeySet{}).Verify(good); !errors.Is(err, fence.ErrUnknownKey) {
		t.Errorf("an empty key set: %v, want ErrUnknownKey", err)
	}
}

// Every altered byte is refused, including those that decode to the same
// bytes: there is one spelling of each writ.
func TestVerifyRefusesEveryAlteration(t *testing.T) {
	signer, keys := newSigner(t, 'a')
	good := mustSign(t, signer, testWrit())
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/\n "
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(good)-1).Draw(t, "at")
		with := rapid.SampledFrom([]byte(alphabet)).Draw(t, "with")
		altered := good[:at] + string(with) + good[at+1:]
		if _, err := keys.Verify(altered); (err == nil) != (altered == good) {
			t.Fatalf("byte %d altered to %q: %v", at, with, err)
		}
	})
	// The last character of the signature carries two unused bits.
	for _, with := range alphabet[:64] {
		altered := good[:len(good)-1] + string(with)
		if _, err := keys.Verify(altered); (err == nil) != (altered == good) {
			t.Errorf("last character altered to %q: %v", with, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	signer, keys := newSigner(f, 'a')
	good := mustSign(f, signer, testWrit())
	f.Add(good)
	f.Add("")
	f.Add("..")
	f.Add(good[:len(good)-1])
	f.Add(forge(testKey('a'), strings.Replace(header(signer.KeyID()), "EdDSA", "none", 1), goodPayload))
	f.Add(forge(testKey('b'), header(signer.KeyID()), goodPayload))
	f.Add(b64.EncodeToString([]byte(`{"alg":"EdDSA","crit":["b64"],"b64":false}`)) + "..")
	f.Fuzz(func(t *testing.T, compact string) {
		w, err := keys.Verify(compact)
		switch {
		case err == nil && compact != good:
			t.Fatalf("accepted a writ that was never issued: %q", compact)
		case err != nil && !errors.Is(err, fence.ErrInvalidWrit) && !errors.Is(err, fence.ErrUnknownKey):
			t.Fatalf("an error without a kind: %v", err)
		case err != nil && w != (fence.Writ{}):
			t.Fatalf("a refused writ was returned: %+v", w)
		}
	})
}

// Behind a valid signature: whatever is accepted says one thing only.
func FuzzVerifyPayload(f *testing.F) {
	signer, keys := newSigner(f, 'a')
	for _, payload := range []string{goodPayload, "{}", "null", `{"iss":1}`, goodPayload + " ", `{"new":[[[[]]]],` + goodPayload[1:]} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		w, err := keys.Verify(forge(testKey('a'), header(signer.KeyID()), payload))
		if err != nil {
			if !errors.Is(err, fence.ErrInvalidWrit) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if again, err := keys.Verify(mustSign(t, signer, w)); err != nil || again != w {
			t.Fatalf("signed again it says %+v, %v instead of %+v", again, err, w)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	signer, keys := newSigner(b, 'a')
	compact := mustSign(b, signer, testWrit())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Verify(compact); err != nil {
			b.Fatal(err)
		}
	}
}
