package route

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
)

// What is accepted means the same thing to everybody: decoding, cleaning and cutting it into segments in any order changes
// nothing.
func FuzzMatch(f *testing.F) {
	for _, address := range ambiguous {
		f.Add("PUT", "x", address)
	}
	f.Add("GET", "a.example.com:80", "/tenants/a%20b/c")
	f.Add("DELETE", "[::1]", "/free/../tenants/a")
	f.Add("PUT", "EXAMPLE.com.", "/tenants/%C3%BC/")
	table := mustTable(f,
		Route{Name: "t", Path: "/tenants", Resource: "tenants/{1}"},
		Route{Name: "h", Host: "*.example.com", Resource: "h/{1}/{2}"},
		Route{Name: "free", Path: "/free", Unguarded: UnguardedPass},
	)
	f.Fuzz(func(t *testing.T, method, host, escaped string) {
		m, err := table.Match(Request{Host: host, Method: method, Path: escaped})
		if err != nil {
			if !errors.Is(err, fence.ErrUnguarded) && !errors.Is(err, fence.ErrUnsupported) {
				t.Fatalf("%v", err)
			}
			return
		}
		plain, err := url.PathUnescape(escaped)
		if err != nil {
			t.Fatalf("%q is not escaped properly", escaped)
		}
		if cleaned := path.Clean(plain); cleaned != strings.TrimSuffix(plain, "/") && plain != "/" {
			t.Fatalf("%q is cleaned to %q", plain, cleaned)
		}
		if strings.Count(plain, "/") != strings.Count(escaped, "/") || strings.ContainsAny(plain, "\\\x00\r\n") {
			t.Fatalf("%q has other segments than %q", plain, escaped)
		}
		if again, err := url.PathUnescape(plain); err == nil && again != plain {
			t.Fatalf("%q is escaped twice", escaped)
		}
		under := func(prefix string) bool { return plain == prefix || strings.HasPrefix(plain, prefix+"/") }
		if m.Route.Name == "free" && (!under("/free") || m.Guarded) || m.Route.Name == "t" && !under("/tenants") {
			t.Fatalf("%q went to %s", escaped, m.Route.Name)
		}
		if m.Checked && nameProblem(m.Resource) != "" {
			t.Fatalf("%q is for %q", escaped, m.Resource)
		}
		if m.Guarded && !m.Checked && method != "GET" && method != "HEAD" && method != "OPTIONS" {
			t.Fatalf("%s passes", method)
		}
		// What net/http makes of it and sends on is the same again.
		r, err := http.NewRequest("PUT", "http://x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := url.ParseRequestURI(escaped); err == nil && !strings.Contains(escaped, "?") {
			r.URL = u
			if u.EscapedPath() != escaped {
				sent, _ := url.PathUnescape(u.EscapedPath())
				if sent != plain {
					t.Fatalf("%q is sent on as %q", escaped, u.EscapedPath())
				}
			}
		}
	})
}
