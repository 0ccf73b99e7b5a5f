package fence

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

// parseObject walks JSON by itself; encoding/json is the oracle.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{
		"", " ", "{", "{}", " { } ", "[]", "null", `""`, `{"a":1}`, "{\"a\" :\t1 ,\r\n\"b\":[{},\"]\"] }",
		`{"a":"\\","b":"\"}"}`, `{"a":{"b":{"c":[1,{"d":"}"}]}},"e":null}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`,
		`{"a":1}{}`, `{"a":true,"b":-1.5e3}`, `{"\ud800":1}`, "{\"\xff\":1}", `{"":{}}`, `{"a":[]}`, `{"a":"\u00e9é"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseObject(ErrInvalidWrit, "data", data)
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(data, &want)
		if err != nil {
			if !errors.Is(err, ErrInvalidWrit) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if wantErr != nil || len(got.members) != len(want) {
			t.Fatalf("%q: got %d members, want %d, %v", data, len(got.members), len(want), wantErr)
		}
		for name, value := range want {
			if !bytes.Equal(got.members[name], value) {
				t.Fatalf("%q: member %q is %q, want %q", data, name, got.members[name], value)
			}
			var text string
			read, err := got.text(name)
			isText := value[0] == '"' && json.Unmarshal(value, &text) == nil
			if (err == nil) != isText || read != text {
				t.Fatalf("%q: text %q is %q, %v; want %q", data, name, read, err, text)
			}
		}
	})
}

// What the fuzz test must not miss: a plain object is accepted.
func TestParseObjectAccepts(t *testing.T) {
	for _, text := range []string{"{}", " {\n} ", `{"a" : {"b":"}"} , "c":"\\" , "d":[ ] }`} {
		if _, err := parseObject(ErrInvalidWrit, "data", []byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
