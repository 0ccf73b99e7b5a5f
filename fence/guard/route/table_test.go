package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
)

func mustTable(t testing.TB, routes ...Route) *Table {
	t.Helper()
	table, err := New(routes, Known{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTheMostSpecificRouteCounts(t *testing.T) {
	routes := []Route{
		{Name: "all", Resource: "all"},
		{Name: "get", Methods: []string{"GET", "POST"}, Resource: "get"},
		{Name: "path", Path: "/a", Resource: "path"},
		{Name: "longer", Path: "/a/b", Resource: "longer"},
		{Name: "wild", Host: "*.example.com", Resource: "wild"},
		{Name: "wilder", Host: "*.eu.example.com", Path: "/x", Resource: "wilder"},
		{Name: "host", Host: "s3.eu.example.com", Resource: "host"},
		{Name: "hostpath", Host: "S3.eu.Example.com", Path: "/a", Resource: "hostpath"},
		{Name: "listener", Listener: "admin", Path: "/a", Resource: "listener"},
		{Name: "ip6", Host: "::1", Resource: "ip6"},
	}
	for _, c := range []struct{ listener, host, method, path, want string }{
		{"", "x", "PUT", "/", "all"},
		{"", "", "PUT", "/q", "all"},
		{"", "x", "POST", "/q", "get"},
		{"", "x", "PUT", "/a", "path"},
		{"", "x", "POST", "/a", "path"},
		{"", "x", "PUT", "/a/", "path"},
		{"", "x", "PUT", "/ab", "all"},
		{"", "x", "PUT", "/a/bc", "path"},
		{"", "x", "PUT", "/a/b", "longer"},
		{"", "x", "PUT", "/%61/%62/c", "longer"},
		{"", "x", "PUT", "/A/b", "all"},
		{"", "example.com", "PUT", "/a", "path"},
		{"", "www.example.com", "PUT", "/a", "wild"},
		{"", "notexample.com", "PUT", "/q", "all"},
		{"", "A.EU.EXAMPLE.COM:8080", "PUT", "/x/y", "wilder"},
		{"", "a.eu.example.com", "PUT", "/y", "wild"},
		{"", "s3.eu.example.com.", "PUT", "/x", "host"},
		{"", "S3.EU.example.com:443", "PUT", "/a/b", "hostpath"},
		{"admin", "s3.eu.example.com", "PUT", "/a", "listener"},
		{"admin", "s3.eu.example.com", "PUT", "/q", "host"},
		{"other", "x", "PUT", "/a", "path"},
		{"", "[::1]:80", "PUT", "/", "ip6"},
		{"", "[0:0::1]", "PUT", "/", "ip6"},
	} {
		// The order in which they are written must not matter.
		for range 2 {
			slices.Reverse(routes)
			m, err := mustTable(t, routes...).Match(Request{Listener: c.listener, Host: c.host, Method: c.method, Path: c.path})
			if err != nil || m.Route.Name != c.want || m.Resource != c.want || !m.Checked {
				t.Errorf("%+v: %+v %v, want %s", c, m, err, c.want)
			}
		}
	}
}

func TestWhatIsChecked(t *testing.T) {
	table := mustTable(t,
		Route{Name: "w", Path: "/w", Resource: "r"},
		Route{Name: "rw", Path: "/rw", Resource: "r", Reads: ReadsCheck},
		Route{Name: "free", Path: "/free", Unguarded: UnguardedPass},
	)
	for _, c := range []struct {
		method, path     string
		override         bool
		guarded, checked bool
	}{
		{"GET", "/w", false, true, false},
		{"HEAD", "/w", false, true, false},
		{"OPTIONS", "/w", false, true, false},
		{"GET", "/w", true, true, true},
		{"get", "/w", false, true, true}, // not a method that anybody says is safe
		{"PUT", "/w", false, true, true},
		{"PROPFIND", "/w", false, true, true},
		{"DELETE", "/w", false, true, true},
		{"GET", "/rw", false, true, true},
		{"PUT", "/free", true, false, false},
	} {
		m, err := table.Match(Request{Host: "x", Method: c.method, Path: c.path, Overridden: c.override})
		if err != nil || m.Guarded != c.guarded || m.Checked != c.checked || (m.Resource != "") != c.checked {
			t.Errorf("%+v: %+v %v", c, m, err)
		}
	}
	for _, method := range []string{"CONNECT", "TRACE"} {
		for _, path := range []string{"/w", "/free"} {
			if _, err := table.Match(Request{Host: "x", Method: method, Path: path}); !errors.Is(err, fence.ErrUnsupported) {
				t.Errorf("%s %s: %v", method, path, err)
			}
		}
	}
}

func TestUnmatchedIsRefused(t *testing.T) {
	table := mustTable(t,
		Route{Path: "/a", Methods: []string{"PUT"}, Resource: "r"},
		Route{Host: "other", Resource: "r2"},
		Route{Path: "/t", Resource: "tenants/{2}/x"},
	)
	for _, q := range []Request{
		{Host: "x", Method: "PUT", Path: "/b"},
		{Host: "x", Method: "DELETE", Path: "/a"},
		{Host: "x", Method: "PUT", Path: "/"},
		{Host: "x", Method: "PUT", Path: "/t"},
		{Host: "x", Method: "PUT", Path: "/t/"},
		{Host: "x", Method: "PUT", Path: "/t/a"},
		{Host: "x", Method: "PUT", Path: "/t/a/"},
	} {
		if m, err := table.Match(q); !errors.Is(err, fence.ErrUnguarded) {
			t.Errorf("%+v: %+v %v", q, m, err)
		}
	}
	if m, err := table.Match(Request{Host: "x", Method: "GET", Path: "/t"}); err != nil || m.Checked {
		t.Errorf("a read that needs no resource: %+v %v", m, err)
	}
}

// ambiguous are addresses that programs are known to read in more than one way.
var ambiguous = []string{
	"", "*", "a", "http:a", "//a", "/x//a", "/./a", "/x/../a", "/..", "/.", "/a/.", "/%2e/a", "/x/%2E%2e/a", "/.%2e/a",
	"/x%2Fa", "/x%2fa", "/x%5Ca", "/x%5ca", `/x\a`, "/a;x=1", "/;/a", "/..;/a", "/a%00", "/a%0a", "/a%7F", "/%c0%af", "/%ff", "/\xff",
	"/%", "/%4", "/%zz", "/a%", "/%2561", "/%252e%252e/a", "/%255c", "/a\x00", "/a\x7f",
}

func TestAmbiguousAddressesAreRefused(t *testing.T) {
	guarded := mustTable(t, Route{Path: "/a", Resource: "r"}, Route{Unguarded: UnguardedPass})
	for _, path := range ambiguous {
		for _, method := range []string{"PUT", "GET"} {
			m, err := guarded.Match(Request{Host: "x", Method: method, Path: path})
			if !errors.Is(err, fence.ErrUnsupported) || !strings.Contains(err.Error(), "path") {
				t.Errorf("%s %q: %+v %v", method, path, m, err)
			}
		}
	}
	for _, path := range []string{"/", "/a", "/a/", "/a%20b", "/a%3Bb", "/a%25", "/a%25zz", "/%C3%BC", "/ü", "/a:b@c,d+e=f&g!$'()*", "/...", "/.a", "/a.", "/%3f%23"} {
		if _, err := guarded.Match(Request{Host: "x", Method: "PUT", Path: path}); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	// Where nothing is guarded nothing is at stake.
	free := mustTable(t, Route{Host: "free", Unguarded: UnguardedPass}, Route{Host: "guarded", Resource: "r"})
	if _, err := free.Match(Request{Host: "free", Method: "PUT", Path: "/x//..%2F;a%"}); err != nil {
		t.Error(err)
	}
}

func TestHostsThatAreNone(t *testing.T) {
	table := mustTable(t, Route{Resource: "r"})
	for _, host := range []string{
		":", ":80", "a:b", "a:80:80", "a:123456", "a b", "a/b", "u@a", "a,b", "[::1", "::1", "[fe80::1%25eth0]", "[1.2.3.4]", "[::1]x", "[::1]:x",
		".", "ü", "a\x00", strings.Repeat("a", 254),
	} {
		if m, err := table.Match(Request{Host: host, Method: "PUT", Path: "/"}); !errors.Is(err, fence.ErrUnsupported) {
			t.Errorf("%q: %+v %v", host, m, err)
		}
	}
}

func TestTemplates(t *testing.T) {
	table := mustTable(t,
		Route{Name: "t", Path: "/tenants", Resource: "tenants/{1}"},
		Route{Name: "two", Path: "/two", Resource: "b-{2}/{1}"},
		Route{Name: "any", Path: "/any", Resource: "{1}"},
	)
	for path, want := range map[string]string{
		"/tenants/acme":         "tenants/acme",
		"/tenants/acme/":        "tenants/acme",
		"/tenants/acme/orders":  "tenants/acme",
		"/tenants/%61cme":       "tenants/acme",
		"/tenants/a%20b%3Fc":    "tenants/a b?c",
		"/tenants/%7B1%7D":      "tenants/{1}",
		"/two/a/b/c":            "b-b/a",
		"/any/" + rep("x", 512): rep("x", 512),
		"/tenants/%F0%9F%90%98": "tenants/🐘",
	} {
		if m, err := table.Match(Request{Host: "x", Method: "PUT", Path: path}); err != nil || m.Resource != want {
			t.Errorf("%q: %+v %v", path, m, err)
		}
	}
	for _, path := range []string{
		"/any/" + rep("x", 513), "/tenants/" + rep("x", 505), "/tenants/%C2%85", "/tenants/%E2%80%AE", "/tenants/%C2%A0", "/any/%E2%80%8B",
	} {
		if m, err := table.Match(Request{Host: "x", Method: "PUT", Path: path}); !errors.Is(err, fence.ErrUnsupported) {
			t.Errorf("%q: %+v %v", path, m, err)
		}
	}
}

func rep(s string, n int) string { return strings.Repeat(s, n) }

func TestCovers(t *testing.T) {
	table := mustTable(t,
		Route{Path: "/1", Resource: "tenants/{1}"},
		Route{Path: "/2", Resource: "tenants/{1}/{2}", Mode: Stamp},
		Route{Path: "/3", Resource: "tenants/acme"},
		Route{Path: "/4", Resource: "orders", Mode: Stamp},
		Route{Path: "/5", Resource: "orders"},
		Route{Path: "/6", Unguarded: UnguardedPass},
		Route{Path: "/7", Resource: "bucket-{1}"},
	)
	if got, want := fmt.Sprint(table.Covers()), "[bucket-* orders tenants/*]"; got != want {
		t.Errorf("covers %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(table.Stamps()), "[orders tenants/*]"; got != want {
		t.Errorf("stamps %s, want %s", got, want)
	}
	if got := mustTable(t, Route{Resource: "{1}"}, Route{Path: "/x", Resource: "x"}).Covers(); fmt.Sprint(got) != "[*]" {
		t.Errorf("covers %s", got)
	}
}

func TestConfigErrorsNameFieldAndFix(t *testing.T) {
	ok := Route{Resource: "r", Upstream: "up"}
	with := func(change func(*Route)) []Route {
		r := Route{Path: "/x", Resource: "x", Upstream: "up"}
		change(&r)
		return []Route{ok, r}
	}
	many := []Route{}
	for i := range 257 {
		many = append(many, Route{Path: fmt.Sprintf("/%d", i), Resource: fmt.Sprintf("r%d", i), Upstream: "up"})
	}
	for _, c := range []struct {
		routes      []Route
		field, says string
	}{
		{nil, "routes", "at least one"},
		{many, "routes", "templates"},
		{with(func(r *Route) { r.Listener = "nowhere" }), "routes[1].listener", "main"},
		{with(func(r *Route) { r.Host = "a:80" }), "routes[1].host", "without port"},
		{with(func(r *Route) { r.Host = "*" }), "routes[1].host", "*.example.com"},
		{with(func(r *Route) { r.Host = "a.*" }), "routes[1].host", "is not a host"},
		{with(func(r *Route) { r.Host = "*..a" }), "routes[1].host", "empty label"},
		{with(func(r *Route) { r.Host = "a." }), "routes[1].host", "final dot"},
		{with(func(r *Route) { r.Path = "x" }), "routes[1].path", "does not begin with a slash"},
		{with(func(r *Route) { r.Path = "/x/" }), "routes[1].path", "ends in a slash"},
		{with(func(r *Route) { r.Path = "/x//y" }), "routes[1].path", "empty segment"},
		{with(func(r *Route) { r.Path = "/x/../y" }), "routes[1].path", "dot segment"},
		{with(func(r *Route) { r.Path = "/x%20" }), "routes[1].path", "escaped"},
		{with(func(r *Route) { r.Path = "/x\n" }), "routes[1].path", "cannot be printed"},
		{with(func(r *Route) { r.Path = "/" }), "routes[1].path", "routes[0] matches the same"},
		{with(func(r *Route) { r.Path, r.Methods = "", []string{"PUT"}; r.Name = "routes[0]" }), "routes[1].name", "choose another"},
		{with(func(r *Route) { r.Methods = []string{"put"} }), "routes[1].methods[0]", "capital"},
		{with(func(r *Route) { r.Methods = []string{"PUT", "CONNECT"} }), "routes[1].methods[1]", "remove it"},
		{with(func(r *Route) { r.Methods = []string{"PUT", "PUT"} }), "routes[1].methods[1]", "twice"},
		{append(with(func(r *Route) { r.Methods = []string{"PUT", "GET"} }), Route{Path: "/x", Methods: []string{"GET"}, Resource: "y", Upstream: "up"}),
			"routes[2].methods", "routes[1] matches the same requests with GET"},
		{with(func(r *Route) { r.Upstream = "" }), "routes[1].upstream", "use one of up"},
		{with(func(r *Route) { r.Resource = "" }), "routes[1].resource", "unguarded: pass"},
		{with(func(r *Route) { r.Resource = "/a" }), "routes[1].resource", "empty segment"},
		{with(func(r *Route) { r.Resource = "a/{1}/" }), "routes[1].resource", "empty segment"},
		{with(func(r *Route) { r.Resource = "a/../{1}" }), "routes[1].resource", ".."},
		{with(func(r *Route) { r.Resource = "a/*" }), "routes[1].resource", "asterisk"},
		{with(func(r *Route) { r.Resource = "a/{0}" }), "routes[1].resource", "{1} to {9}"},
		{with(func(r *Route) { r.Resource = "a/{12}" }), "routes[1].resource", "{1} to {9}"},
		{with(func(r *Route) { r.Resource = "a/{" }), "routes[1].resource", "{1} to {9}"},
		{with(func(r *Route) { r.Resource = "a/1}" }), "routes[1].resource", "} without a {"},
		{with(func(r *Route) { r.Resource = "a\n" }), "routes[1].resource", "unprintable"},
		{with(func(r *Route) { r.Resource = rep("a", 513) }), "routes[1].resource", "513 bytes"},
		{with(func(r *Route) { r.Mode = "stomp" }), "routes[1].mode", "check or stamp"},
		{with(func(r *Route) { r.Reads = "deny" }), "routes[1].reads", "pass or check"},
		{with(func(r *Route) { r.Mode, r.Trusted = Stamp, true }), "routes[1].trusted", "mode stamp"},
		{with(func(r *Route) { r.Mode, r.ForwardWrit = Stamp, true }), "routes[1].forward_writ", "mode stamp"},
		{with(func(r *Route) { r.Unguarded = "yes" }), "routes[1].unguarded", "use pass"},
		{with(func(r *Route) { r.Unguarded = "pass" }), "routes[1].resource", "means nothing"},
		{with(func(r *Route) { r.Resource, r.Unguarded, r.Trusted = "", "pass", true }), "routes[1].trusted", "means nothing"},
		{with(func(r *Route) { r.Resource, r.Unguarded, r.Reads = "", "pass", "check" }), "routes[1].reads", "means nothing"},
	} {
		_, err := New(c.routes, Known{Listeners: []string{"main"}, Upstreams: []string{"up"}})
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), ": "+c.field+": ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, %q: %v", c.field, c.says, err)
		}
	}
	if _, err := New(with(func(r *Route) { r.Methods, r.Path = []string{"PUT"}, "/" }), Known{Upstreams: []string{"up"}}); err != nil {
		t.Errorf("a route with methods beside one without: %v", err)
	}
}

func TestSample(t *testing.T) {
	table := mustTable(t,
		Route{Name: "stamp", Path: "/s", Resource: "orders", Mode: Stamp},
		Route{Name: "check", Path: "/c c/x", Host: "*.b.example", Resource: "orders", Methods: []string{"GET", "POST"}, Reads: ReadsCheck},
		Route{Name: "trusted", Path: "/t", Resource: "orders", Trusted: true},
		Route{Name: "tenants", Listener: "l", Path: "/tenants", Resource: "tenants/{2}"},
		Route{Name: "shadow", Path: "/tenants2", Resource: "shadowed/{1}"},
		Route{Name: "covers", Path: "/tenants2/a", Unguarded: UnguardedPass},
		Route{Name: "twice", Path: "/twice", Resource: "twice/{1}/{1}"},
	)
	for _, c := range []struct {
		resource string
		bare     bool
		want     string
		request  Request
	}{
		{"orders", false, "check", Request{Host: "probe.b.example", Method: "POST", Path: "/c%20c/x"}},
		{"orders", true, "trusted", Request{Host: "probe.invalid", Method: "PUT", Path: "/t"}},
		{"tenants/a b", false, "tenants", Request{Listener: "l", Host: "probe.invalid", Method: "PUT", Path: "/tenants/x/a%20b"}},
		{"shadowed/b", false, "shadow", Request{Host: "probe.invalid", Method: "PUT", Path: "/tenants2/b"}},
		{"shadowed/a", false, "", Request{}},
		{"twice/a/a", false, "twice", Request{Host: "probe.invalid", Method: "PUT", Path: "/twice/a"}},
		{"twice/a/b", false, "", Request{}},
		{"nobody", false, "", Request{}},
		{"tenants/a/b", false, "", Request{}},
	} {
		q, m, ok := table.Sample(c.resource, c.bare)
		if ok != (c.want != "") || ok && (m.Route.Name != c.want || m.Resource != c.resource) || q != c.request {
			t.Errorf("%+v: %+v %+v %v", c, q, m, ok)
		}
	}
}

// Whatever a table answers is covered, and is a name; and what it makes of a resource leads back to it.
func TestCoversWhatItAnswers(t *testing.T) {
	word := rapid.StringMatching(`[a-c]{1,2}`)
	rapid.Check(t, func(t *rapid.T) {
		var routes []Route
		for i := range rapid.IntRange(1, 6).Draw(t, "routes") {
			r := Route{Name: fmt.Sprint(i)}
			if rapid.Bool().Draw(t, "path") {
				r.Path = "/" + strings.Join(rapid.SliceOfN(word, 1, 2).Draw(t, "prefix"), "/")
			}
			if rapid.Bool().Draw(t, "host") {
				r.Host = rapid.SampledFrom([]string{"a", "*.a", "b.a"}).Draw(t, "hostname")
			}
			if rapid.IntRange(0, 3).Draw(t, "free") == 0 {
				r.Unguarded = UnguardedPass
			} else {
				r.Resource = rapid.SampledFrom([]string{"r", "a/{1}", "{2}", "{1}/{2}", "a/{1}-{2}", "q/{1}/{1}"}).Draw(t, "resource")
			}
			routes = append(routes, r)
		}
		table, err := New(routes, Known{})
		if err != nil {
			t.Skip(err)
		}
		m, err := table.Match(Request{
			Host:   rapid.SampledFrom([]string{"a", "b.a", "c.b.a", "x"}).Draw(t, "to"),
			Method: rapid.SampledFrom([]string{"GET", "PUT"}).Draw(t, "method"),
			Path:   "/" + strings.Join(rapid.SliceOfN(word, 0, 4).Draw(t, "segments"), "/"),
		})
		if err != nil || !m.Checked {
			return
		}
		if nameProblem(m.Resource) != "" || !slices.ContainsFunc(table.Covers(), func(p string) bool { return includes(p, m.Resource) }) {
			t.Fatalf("answers %q, covers %q", m.Resource, table.Covers())
		}
		q, found, ok := table.Sample(m.Resource, false)
		if !ok {
			t.Fatalf("answers %q and finds no request for it", m.Resource)
		}
		if again, err := table.Match(q); err != nil || again != found || again.Resource != m.Resource {
			t.Fatalf("sample %+v leads to %+v %v", q, again, err)
		}
	})
}

func includes(pattern, name string) bool {
	prefix, ok := strings.CutSuffix(pattern, "*")
	return name == pattern || ok && strings.HasPrefix(name, prefix)
}

func BenchmarkMatch(b *testing.B) {
	table := mustTable(b,
		Route{Path: "/tenants", Resource: "tenants/{1}"}, Route{Path: "/orders", Resource: "orders"}, Route{Host: "*.example.com", Unguarded: UnguardedPass})
	q := Request{Host: "127.0.0.1:8080", Method: "PUT", Path: "/tenants/acme/orders/17"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := table.Match(q); err != nil {
			b.Fatal(err)
		}
	}
}
