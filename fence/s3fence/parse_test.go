package s3fence

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
)

const someNonce = "0123456789abcdef0123456789abcdef"

func FuzzReadItem(f *testing.F) {
	for _, body := range []string{
		"", "hello", "writ-seal/1", "writ-seal/1 ", "writ-seal/1 281474976710657 " + someNonce + " live\nbody",
		"writ-seal/1 281474976710657 " + someNonce + " gone\n", "writ-seal/1  281474976710657 " + someNonce + " live\n",
		"writ-seal/1 281474976710657 " + someNonce + " live\r\n", "writ-seal/2 281474976710657 " + someNonce + " live\n",
		"writ-seal/1 1.1 " + someNonce + " live\n", "writ-seal/1 -1 " + someNonce + " live\n",
	} {
		for _, token := range []string{"", "281474976710657", "281474976710658", "0", "1.1", "281474976710657,281474976710657"} {
			f.Add([]byte(body), token)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, token string) {
		metadata := map[string]string{}
		if token != "" {
			metadata["Writ-Token"] = token
		}
		item, err := readItem(data, metadata)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if item.foreign != nil {
			if !errors.Is(item.foreign, ErrForeign) {
				t.Fatalf("an error without a kind: %v", item.foreign)
			}
			return
		}
		// What is believed has one spelling.
		k := live
		if item.Deleted {
			k = gone
		}
		again := append(seal{token: item.Token, nonce: item.nonce, kind: k}.line(), item.Body...)
		if !item.Token.Valid() || !bytes.Equal(again, data) || token != item.Token.Decimal() {
			t.Fatalf("read %+v from %q and %q, which would be written as %q", item, data, token, again)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	token := fence.Token(1<<48 | 7)
	key := dataKey(token, someNonce)
	sum := strings.Repeat("ab", 32)
	good := `{"revision":"3","objects":{"a":{"key":"` + key + `","size":1,"sha256":"` + sum + `"}}}`
	for _, seed := range []string{
		good, good + "\n", good + good, "", "{}", "null", "[]", `{"revision":"1","objects":{}}`, `{"revision":"0","objects":{}}`,
		`{"revision":1,"objects":{}}`, `{"revision":"1","objects":null}`, `{"revision":"1","objects":{},"more":1}`,
		strings.Replace(good, key, "other/object", 1), strings.Replace(good, key, dataKey(token+1, someNonce), 1),
		strings.Replace(good, key, strings.ToUpper(key), 1), strings.Replace(good, `"size":1`, `"size":-1`, 1),
		strings.Replace(good, sum, sum[1:], 1), strings.Replace(good, `"a"`, `""`, 1), strings.Replace(good, `"a"`, `"\n"`, 1),
		strings.Replace(good, key, dataPrefix+"../../"+someNonce, 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		snapshot, err := decodeSnapshot(token, data)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		for _, name := range snapshot.Names() {
			ref, ok := snapshot.Ref(name)
			if written, err := dataToken(ref.Key); !ok || err != nil || written > token || dataKey(written, ref.Key[len(ref.Key)-32:]) != ref.Key {
				t.Fatalf("%q: believed %+v: %v", data, ref, err)
			}
		}
		encoded, err := snapshot.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeSnapshot(token, encoded)
		if err != nil || again.Revision != snapshot.Revision || len(again.objects) != len(snapshot.objects) {
			t.Fatalf("%q: got %+v, %v", encoded, again, err)
		}
		for name, ref := range snapshot.objects {
			if again.objects[name] != ref {
				t.Fatalf("%q: %q is %+v, then %+v", data, name, ref, again.objects[name])
			}
		}
	})
}

// What the fuzz tests must not miss: what is good is read.
func TestReadsWhatItWrites(t *testing.T) {
	token := fence.Token(32767<<48 | 1<<48 - 1) // the longest
	s := seal{token: token, nonce: newNonce(), kind: gone}
	if n := int64(len(s.line())); n != maxSealBytes {
		t.Fatalf("the longest seal has %d bytes, want %d", n, maxSealBytes)
	}
	item, err := readItem(append(s.line(), "body\n"...), map[string]string{TokenMetadata: token.Decimal()})
	if err != nil || item.foreign != nil || item.Token != token || string(item.Body) != "body\n" || !item.Deleted {
		t.Fatalf("got %+v, %v", item, err)
	}
	for _, token := range []fence.Token{1<<48 | 1, token} {
		if got, err := dataToken(dataKey(token, newNonce())); err != nil || got != token {
			t.Fatalf("got %s, %v; want %s", got, err, token)
		}
	}
	if dataKey(1<<48|9, someNonce) >= dataKey(1<<48|10, someNonce) {
		t.Fatal("keys are not in the order of tokens")
	}
}
