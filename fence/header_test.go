package fence_test

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
)

func TestParseHeader(t *testing.T) {
	long := strings.Repeat("a", fence.MaxWritBytes)
	for _, test := range []struct {
		name   string
		header http.Header
		plain  fence.Credential // on a route that trusts nobody
		err    error
		bare   fence.Credential // on a trusted one
		errT   error
	}{
		{"nothing", nil, fence.Credential{}, fence.ErrNoCredential, fence.Credential{}, fence.ErrNoCredential},
		{"others", http.Header{"Accept": {"a", "b"}}, fence.Credential{}, fence.ErrNoCredential, fence.Credential{}, fence.ErrNoCredential},
		{"writ", http.Header{"Writ": {"a.b-_.C9"}}, fence.Credential{Writ: "a.b-_.C9"}, nil, fence.Credential{Writ: "a.b-_.C9"}, nil},
		{"longest", http.Header{"Writ": {long}}, fence.Credential{Writ: long}, nil, fence.Credential{Writ: long}, nil},
		{"too long", http.Header{"Writ": {long + "a"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"empty", http.Header{"Writ": {""}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"twice", http.Header{"Writ": {"a", "a"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"list", http.Header{"Writ": {"a,b"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"quotes", http.Header{"Writ": {`"a"`}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"space", http.Header{"Writ": {"a b"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"line break", http.Header{"Writ": {"a\n b"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"scheme", http.Header{"Writ": {"Bearer a"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"padding", http.Header{"Writ": {"a="}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"beyond ASCII", http.Header{"Writ": {"a\u0430"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"dotted token", http.Header{"Writ-Token": {"4.7"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{Token: 4<<48 | 7}, nil},
		{"decimal token", http.Header{"Writ-Token": {"1125899906842631"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{Token: 4<<48 | 7}, nil},
		{"token 0", http.Header{"Writ-Token": {"0"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{}, fence.ErrInvalidToken},
		{"token -1", http.Header{"Writ-Token": {"-1"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{}, fence.ErrInvalidToken},
		{"token 2^63", http.Header{"Writ-Token": {"9223372036854775808"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{}, fence.ErrInvalidToken},
		{"token of letters", http.Header{"Writ-Token": {"nine"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{}, fence.ErrInvalidToken},
		{"two tokens", http.Header{"Writ-Token": {"4.7", "4.7"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{}, fence.ErrInvalidToken},
		{"list of tokens", http.Header{"Writ-Token": {"4.7, 4.8"}}, fence.Credential{}, fence.ErrInvalidToken, fence.Credential{}, fence.ErrInvalidToken},
		{"both", http.Header{"Writ": {"a"}, "Writ-Token": {"4.7"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"underscore beside", http.Header{"Writ": {"a"}, "Writ_token": {"4.9"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"underscore alone", http.Header{"Writ_token": {"4.9"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"small letters", http.Header{"writ": {"a"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"joined", http.Header{"Writtoken": {"4.9"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"dotted name", http.Header{"Writ.": {"a"}}, fence.Credential{}, fence.ErrInvalidWrit, fence.Credential{}, fence.ErrInvalidWrit},
		{"names that are others'", http.Header{"Writer": {"a"}, "Wri": {"a"}, "Writ-Tokens": {"a"}, "X-Writ": {"a"}, "Writ-Admitted": {"1"}}, fence.Credential{}, fence.ErrNoCredential, fence.Credential{}, fence.ErrNoCredential},
	} {
		t.Run(test.name, func(t *testing.T) {
			if c, err := fence.ParseHeader(test.header, false); c != test.plain || !errors.Is(err, test.err) {
				t.Errorf("trusting nobody: %+v, %v; want %+v, %v", c, err, test.plain, test.err)
			}
			if c, err := fence.ParseHeader(test.header, true); c != test.bare || !errors.Is(err, test.errT) {
				t.Errorf("trusting: %+v, %v; want %+v, %v", c, err, test.bare, test.errT)
			}
		})
	}
}

func TestCredentialSet(t *testing.T) {
	h := http.Header{"Writ": {"old", "older"}, "Writ-Token": {"1.1"}}
	fence.Credential{Writ: "a.b.c"}.Set(h)
	if want := (http.Header{"Writ": {"a.b.c"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("a writ: %v", h)
	}
	fence.Credential{Token: 4<<48 | 7}.Set(h)
	if want := (http.Header{"Writ-Token": {"1125899906842631"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("a token: %v", h)
	}
	fence.Credential{}.Set(h)
	if len(h) != 0 {
		t.Errorf("none: %v", h)
	}
}

// Whatever is accepted is one credential, and a second parser would find the same one.
func FuzzParseHeader(f *testing.F) {
	f.Add("Writ", "a.b.c", "Writ-Token", "4.7")
	f.Add("writ", "a", "Writ_Token", "4.7")
	f.Add("Writ", "a,b", "Accept", "x")
	f.Add("Writ-Token", "4.7", "Writ-Token", "4.8")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := http.Header{}
		h.Add(name1, value1)
		h.Add(name2, value2)
		for _, trusted := range []bool{false, true} {
			c, err := fence.ParseHeader(h, trusted)
			if err != nil {
				if !c.IsZero() || !errors.Is(err, fence.ErrNoCredential) && !errors.Is(err, fence.ErrInvalidWrit) && !errors.Is(err, fence.ErrInvalidToken) {
					t.Fatalf("%v: %+v, %v", h, c, err)
				}
				continue
			}
			if (c.Writ == "") == c.Token.IsZero() || !c.Token.IsZero() && (!trusted || !c.Token.Valid()) {
				t.Fatalf("%v: %+v", h, c)
			}
			// A lenient reader folds names and takes any of their values.
			found := 0
			for name, values := range h {
				folded := strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(name))
				if folded == "writ" || folded == "writtoken" {
					found += len(values)
				}
			}
			if found != 1 {
				t.Fatalf("%v holds %d credentials for a lenient reader, and was accepted", h, found)
			}
		}
	})
}
