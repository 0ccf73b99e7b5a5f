package approval

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCanonical(t *testing.T) {
	type inner struct {
		N uint64 `json:"n,string"`
	}
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"scalars":   {[]any{nil, true, false, 0, -1, int64(maxInteger), uint64(maxInteger), "x"}, `[null,true,false,0,-1,9007199254740991,9007199254740991,"x"]`},
		"sorted":    {map[string]any{"b": 1, "a": 2, "": 3, "aa": 4}, `{"":3,"a":2,"aa":4,"b":1}`},
		"utf-16":    {map[string]any{"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "\r": 4, "1": 5, "\u00f6": 6, "\u0080": 7}, "{\"\\r\":4,\"1\":5,\"\u0080\":7,\"\u00f6\":6,\"\u20ac\":3,\"\U0001f600\":2,\"\ufb33\":1}"},
		"escapes":   {"\x00\b\t\n\f\r\x1f\"\\/<>&\u007f\u2028é\ufffd", "\"\\u0000\\b\\t\\n\\f\\r\\u001f\\\"\\\\/<>&\u007f\u2028é\ufffd\""},
		"struct":    {struct{ B, A any }{inner{1 << 60}, []string{"z", "y"}}, `{"A":["z","y"],"B":{"n":"1152921504606846976"}}`},
		"raw":       {map[string]any{"r": json.RawMessage(` { "b" : [ ] , "a" : "\u00e9\/" } `)}, `{"r":{"a":"é/","b":[]}}`},
		"time":      {time.Date(2026, 11, 21, 3, 12, 0, 0, time.UTC), `"2026-11-21T03:12:00Z"`},
		"bytes":     {[]byte{0xff}, `"/w=="`},
		"left out":  {struct{ f float64 }{1}, `{}`},
		"no number": {[]any{}, `[]`},
	} {
		got, err := Canonical(test.value)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, test.want)
		}
		if err := CheckCanonical(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	deep := any("x")
	for range maxDepth + 1 {
		deep = []any{deep}
	}
	for name, value := range map[string]any{
		"float": 1.0, "float in a field": struct{ F float32 }{1}, "float below": map[string]any{"a": []any{&[]float64{2}[0]}},
		"NaN": math.NaN(), "too large": int64(maxInteger + 1), "too small": int64(-maxInteger - 1), "uint64": uint64(math.MaxUint64),
		"fraction": json.Number("1.5"), "exponent": json.Number("1e3"), "minus zero": json.Number("-0"),
		"invalid UTF-8": "a\xff", "in a field": struct{ S string }{"\xff"}, "in a name": map[string]any{"\xff": 1}, "raw": json.RawMessage("\"\xff\""),
		"twice": json.RawMessage(`{"a":1,"a":2}`), "twice below": json.RawMessage(`[{"a":1,"\u0061":2}]`),
		"function": func() {}, "deep": deep,
	} {
		if got, err := Canonical(value); err == nil {
			t.Errorf("%s: taken as %s", name, got)
		}
	}
}

func TestCheckCanonicalRefuses(t *testing.T) {
	for _, doc := range []string{
		"", " ", "{}x", "{} ", " {}", "{}\n", "{}{}", `{"a":1,"a":2}`, `{"b":1,"a":2}`, `{"a": 1}`, `[1,]`, `[1`, `{"a"}`, `{"a":1`, `{"a":}`, `[}`,
		"1.0", "1e2", "-0", "01", "+1", "9007199254740992", "-9007199254740992", "1E400", "true false", "nul",
		`"\u0041"`, `"\/"`, `"\u001F"`, `"\u0008"`, `"\ud800"`, `"\u2028"`, "\"\xff\"", "\"\xed\xa0\x80\"", "\"\n\"", "{\"\U0001f600\":1,\"\ufb33\":1,\"\u20ac\":1}", "\ufeff{}",
		strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2),
		`"` + strings.Repeat("x", MaxDocument) + `"`,
	} {
		if err := CheckCanonical([]byte(doc)); err == nil {
			t.Errorf("%.60q is taken", doc)
		}
	}
	for _, doc := range []string{"{}", "null", "0", `"/"`, "\"\u007f\U0001f600\"", `{"":[{}]}`, strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)} {
		if err := CheckCanonical([]byte(doc)); err != nil {
			t.Errorf("%q: %v", doc, err)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{`{"b":[1,true,null,"\u00e9"],"a":{}}`, `{"a":1,"a":2}`, "[1e5]", `"\ud83d\ude00"`, "-0", `{"a":`, "{} {}", "\"\xff\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		once, err := Canonical(json.RawMessage(raw))
		checked := CheckCanonical(raw)
		if err != nil {
			if checked == nil {
				t.Fatalf("%q cannot be written, and is canonical", raw)
			}
			return
		}
		if (checked == nil) != bytes.Equal(once, raw) {
			t.Fatalf("%q is written as %q, and checking it says %v", raw, once, checked)
		}
		if err := CheckCanonical(once); err != nil {
			t.Fatalf("%q: %v", once, err)
		}
		twice, err := Canonical(json.RawMessage(once))
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q, then %q, %v", once, twice, err)
		}
		var a, b any
		if json.Unmarshal(raw, &a) != nil || json.Unmarshal(once, &b) != nil {
			t.Fatalf("%q: not JSON", once)
		}
	})
}

func document() Document {
	return Document{
		Format: Format, Cluster: "prod", Incarnation: "i-1", Epoch: 3, ID: "billing-3.7", Kind: KindPromotion, Group: "billing",
		Requester: "spiffe://prod/sre/ada",
		Created:   time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC), Expires: time.Date(2026, 11, 21, 4, 0, 0, 500, time.UTC),
		PolicyVersion: 12, Body: json.RawMessage(`{"to":"west","from":"east"}`),
	}
}

func TestDocument(t *testing.T) {
	d := document()
	doc, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"body":{"from":"east","to":"west"},"cluster":"prod","created":"2026-11-21T03:00:00Z","epoch":3,"expires":"2026-11-21T04:00:00.0000005Z",` +
		`"format":"writ-approval@v1","group":"billing","id":"billing-3.7","incarnation":"i-1","kind":"promotion","policy_version":"12","requester":"spiffe://prod/sre/ada"}`
	if string(doc) != want {
		t.Fatalf("encoded as\n%s\nwant\n%s", doc, want)
	}
	got, err := ParseDocument(doc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Body) != `{"from":"east","to":"west"}` || got.PolicyVersion != 12 || !got.Expires.Equal(d.Expires) || got.ID != d.ID {
		t.Errorf("parsed as %+v", got)
	}
	d.Created = d.Created.In(time.FixedZone("", 3600))
	if again, err := d.Encode(); err != nil || !bytes.Equal(again, doc) {
		t.Errorf("in another zone encoded as %s, %v", again, err)
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	doc, err := document().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"epoch":3,`, ``}, {`"epoch":3`, `"epoch":"3"`}, {`"epoch":3`, `"epoch":-3`}, {`"epoch":3`, `"epoch":4294967296`}, {`"group":"billing",`, ``},
		{`"12"`, `12`}, {`"12"`, `"012"`}, {`"12"`, `"x"`}, {`03:00:00Z`, `03:00:00+00:00`}, {`03:00:00Z`, `03:00:00.0Z`}, {`03:00:00Z`, `04:00:00+01:00`},
		{`03:00:00Z`, `05:00:00Z`}, {`"format":"writ-approval@v1"`, `"format":"writ-approval@v2"`}, {`"id":"billing-3.7"`, `"id":""`},
		{`"cluster"`, `"Cluster"`}, {`"requester":`, `"requester2":`}, {`"spiffe://prod/sre/ada"`, `null`}, {`"spiffe://prod/sre/ada"`, `""`},
		{`{"from":"east","to":"west"}`, `[]`}, {`{"from":"east","to":"west"}`, `null`}, {`{"body":{"from":"east","to":"west"},`, `{`},
		{`"requester"`, ` "requester"`}, {`ada"}`, `ada"} `}, {`ada"}`, `ada","zone":"x"}`},
	} {
		bad := strings.Replace(string(doc), change[0], change[1], 1)
		if bad == string(doc) {
			t.Fatalf("%q does not change the document", change)
		}
		if d, err := ParseDocument([]byte(bad)); err == nil {
			t.Errorf("with %s for %s it is taken as %+v", change[1], change[0], d)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	doc, err := document().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"body":{}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		d, err := ParseDocument(doc)
		if err != nil {
			return
		}
		again, err := d.Encode()
		if err != nil || !bytes.Equal(again, doc) {
			t.Fatalf("%q is encoded again as %q, %v", doc, again, err)
		}
	})
}

func TestCompareUTF16(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		if compareUTF16(a, b) != -compareUTF16(b, a) || (compareUTF16(a, b) == 0) != (a == b) {
			t.Fatalf("%q and %q", a, b)
		}
	})
}
