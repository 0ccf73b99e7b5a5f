package route

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/writ-io/writ/fence"
)

// Request is what routes look at.
type Request struct {
	// Listener that it came in by.
	Listener string
	// Host as in the Host header: a port and case do not matter.
	Host   string
	Method string
	// Path as it was sent: escaped, without query.
	Path string
	// Overridden says that a header asks for the request to be taken for another method: see [OverrideHeaders].
	Overridden bool
}

// OverrideHeaders are the headers by which programs let a request be taken for one of another method.
var OverrideHeaders = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// Match is what a request is for.
type Match struct {
	// Route is the one that counts. It must not be changed.
	Route *Route
	// Guarded says that the route has a resource.
	Guarded bool
	// Checked says that the request has to be admitted, under Resource.
	Checked bool
	// Resource is set if Checked.
	Resource string
}

// Table is a set of routes.
type Table struct {
	rules  []rule // the most specific first
	covers []string
	stamps []string
}

// rule is a route in the form in which it is compared.
type rule struct {
	Route
	host     string // in small letters; of a wildcard what follows the asterisk
	wildcard bool
	prefix   string    // path without a final slash
	resource *template // nil: unguarded
	index    int       // in the configuration
}

// New makes a table. Errors are [ErrConfig], and name the field and the fix.
func New(routes []Route, known Known) (*Table, error) {
	if len(routes) == 0 {
		return nil, fmt.Errorf("%w: routes: there is none: name at least one", ErrConfig)
	}
	t := &Table{}
	for i, r := range routes {
		r = r.withDefaults(i)
		if err := r.validate(i, known); err != nil {
			return nil, err
		}
		compiled, err := compile(r, i)
		if err != nil {
			return nil, err
		}
		if err := t.checkNew(compiled); err != nil {
			return nil, err
		}
		t.rules = append(t.rules, compiled)
	}
	slices.SortStableFunc(t.rules, compareRules)
	t.covers = t.patterns(func(r *rule) bool { return true })
	t.stamps = t.patterns(func(r *rule) bool { return r.Mode == Stamp })
	if len(t.covers) > MaxCovers {
		return nil, fmt.Errorf("%w: routes: they name %d resources, and a guard covers at most %d: use templates such as tenants/{1}",
			ErrConfig, len(t.covers), MaxCovers)
	}
	return t, nil
}

func compile(r Route, i int) (rule, error) {
	c := rule{Route: r, index: i, prefix: strings.TrimSuffix(r.Path, "/")}
	c.Methods = slices.Clone(r.Methods)
	if suffix, ok := strings.CutPrefix(r.Host, "*"); ok {
		c.host, c.wildcard = strings.ToLower(suffix), true
	} else if r.Host != "" {
		host := r.Host
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		c.host, _ = cleanHost(host)
	}
	if r.Unguarded == "" {
		resource, err := parseTemplate(r.Resource)
		if err != nil {
			return c, fieldError(i, "resource", err.Error(), "use a name or a template")
		}
		c.resource = resource
	}
	return c, nil
}

// checkNew refuses a rule that is as specific as one that is there, or has its name.
func (t *Table) checkNew(c rule) error {
	for i := range t.rules {
		r := &t.rules[i]
		if r.Name == c.Name {
			return fieldError(c.index, "name", fmt.Sprintf("%q is also that of routes[%d]", c.Name, r.index), "choose another one")
		}
		if r.Listener != c.Listener || r.host != c.host || r.wildcard != c.wildcard || r.prefix != c.prefix {
			continue
		}
		if len(r.Methods) == 0 && len(c.Methods) == 0 {
			return fieldError(c.index, "path", fmt.Sprintf("routes[%d] matches the same requests", r.index), "remove one, or make one more specific")
		}
		for _, method := range c.Methods {
			if slices.Contains(r.Methods, method) {
				return fieldError(c.index, "methods", fmt.Sprintf("routes[%d] matches the same requests with %s", r.index, method), "name it in one of them")
			}
		}
	}
	return nil
}

// compareRules puts the more specific rule first.
func compareRules(a, b rule) int {
	return cmp.Or(
		compareTrue(a.Listener != "", b.Listener != ""),
		compareTrue(a.host != "" && !a.wildcard, b.host != "" && !b.wildcard),
		-cmp.Compare(len(a.host), len(b.host)),
		-cmp.Compare(len(a.prefix), len(b.prefix)),
		compareTrue(len(a.Methods) > 0, len(b.Methods) > 0),
	)
}

func compareTrue(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// IsRead reports whether requests with that method do not write.
func IsRead(method string) bool { return method == "GET" || method == "HEAD" || method == "OPTIONS" }

// Match answers what q is for. Errors: [fence.ErrUnguarded] if no route matches, and [fence.ErrUnsupported] if it cannot be
// said which does.
func (t *Table) Match(q Request) (Match, error) {
	host, hostOK := cleanHost(q.Host)
	if !hostOK {
		return Match{}, unsupported("host", q.Host, "is not a host: use a name or an address")
	}
	if q.Method == "CONNECT" || q.Method == "TRACE" {
		return Match{}, unsupported("method", q.Method, "cannot be guarded: use another method")
	}
	path, problem := cleanPath(q.Path)
	if problem != "" {
		if t.guards(q.Listener, host) {
			return Match{}, unsupported("path", q.Path, problem+", so that it could mean two things: send it in its plain form")
		}
		path = looseDecode(q.Path)
	}
	for i := range t.rules {
		if r := &t.rules[i]; r.matchesSite(q.Listener, host) && r.matchesPath(path) && r.matchesMethod(q.Method) {
			return r.match(q, path)
		}
	}
	return Match{}, noRoute("no route for %s %q at host %q", q.Method, q.Path, host)
}

// guards reports whether any route for that listener and host is guarded.
func (t *Table) guards(listener, host string) bool {
	return slices.ContainsFunc(t.rules, func(r rule) bool { return r.resource != nil && r.matchesSite(listener, host) })
}

func (r *rule) matchesSite(listener, host string) bool {
	if r.Listener != "" && r.Listener != listener {
		return false
	}
	if r.wildcard {
		return len(host) > len(r.host) && strings.HasSuffix(host, r.host)
	}
	return r.host == "" || r.host == host
}

func (r *rule) matchesPath(path string) bool {
	if !strings.HasPrefix(path, r.prefix) {
		return false
	}
	return len(path) == len(r.prefix) && path != "" || len(path) > len(r.prefix) && path[len(r.prefix)] == '/'
}

func (r *rule) matchesMethod(method string) bool {
	return len(r.Methods) == 0 || slices.Contains(r.Methods, method)
}

// match answers a request that the rule matches.
func (r *rule) match(q Request, path string) (Match, error) {
	m := Match{Route: &r.Route, Guarded: r.resource != nil}
	if !m.Guarded {
		return m, nil
	}
	m.Checked = !IsRead(q.Method) || r.Reads == ReadsCheck || q.Overridden
	if !m.Checked {
		return m, nil
	}
	name, missing := r.resource.expand(path[len(r.prefix):])
	if missing > 0 {
		return Match{}, noRoute("route %s names its resource after segment %d behind %q, which %q does not have", r.Name, missing, r.Path, q.Path)
	}
	if !r.resource.fixed() {
		if problem := nameProblem(name); problem != "" {
			return Match{}, unsupported("path", q.Path, problem+", which is not the name of a resource: use another path")
		}
	}
	m.Resource = name
	return m, nil
}

// shownBytes bounds how much of an address an error repeats.
const shownBytes = 128

func noRoute(format string, args ...any) error {
	for i, a := range args {
		if s, ok := a.(string); ok && len(s) > shownBytes {
			args[i] = strings.ToValidUTF8(s[:shownBytes], "") + "…"
		}
	}
	return fmt.Errorf("%w: %s", fence.ErrUnguarded, fmt.Sprintf(format, args...))
}

func unsupported(field, value, fix string) error {
	if len(value) > shownBytes {
		value = strings.ToValidUTF8(value[:shownBytes], "") + "…"
	}
	return &fence.InvalidError{Kind: fence.ErrUnsupported, Field: field, Value: value, Fix: fix}
}

// Covers lists the resources of guarded routes in order: names, and prefixes with an asterisk.
func (t *Table) Covers() []string { return slices.Clone(t.covers) }

// Stamps lists the resources of routes in mode stamp, as Covers does.
func (t *Table) Stamps() []string { return slices.Clone(t.stamps) }

// patterns lists the resources of some rules, without those that another pattern includes.
func (t *Table) patterns(wanted func(*rule) bool) []string {
	var all []string
	for i := range t.rules {
		if r := &t.rules[i]; r.resource != nil && wanted(r) {
			all = append(all, r.resource.pattern())
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(slices.Clone(all), func(p string) bool {
		return slices.ContainsFunc(all, func(other string) bool {
			prefix, isPrefix := strings.CutSuffix(other, "*")
			return isPrefix && other != p && strings.HasPrefix(p, prefix)
		})
	})
}

// Sample returns a request that is checked under resource, and what it matches; ok is false if there is none. Routes in
// mode check come before others, and among them those that take a bare token if bare is set.
func (t *Table) Sample(resource string, bare bool) (q Request, m Match, ok bool) {
	order := make([]*rule, 0, len(t.rules))
	for i := range t.rules {
		if t.rules[i].resource != nil {
			order = append(order, &t.rules[i])
		}
	}
	slices.SortStableFunc(order, func(a, b *rule) int {
		return cmp.Or(
			compareTrue(a.Mode == Check, b.Mode == Check),
			compareTrue(a.Trusted == bare, b.Trusted == bare),
		)
	})
	for _, r := range order {
		q, fits := r.sample(resource)
		if !fits {
			continue
		}
		// A more specific route may get what was meant for this one.
		if m, err := t.Match(q); err == nil && m.Checked && m.Resource == resource && m.Route == &r.Route {
			return q, m, true
		}
	}
	return Request{}, Match{}, false
}

// sample makes a request for resource out of the rule.
func (r *rule) sample(resource string) (Request, bool) {
	segments, ok := r.resource.segments(resource)
	if !ok {
		return Request{}, false
	}
	q := Request{Listener: r.Listener, Host: r.host, Method: "PUT"}
	switch {
	case r.wildcard:
		q.Host = "probe" + r.host
	case r.host == "":
		q.Host = "probe.invalid"
	case strings.Contains(r.host, ":"):
		q.Host = "[" + r.host + "]"
	}
	if len(r.Methods) > 0 {
		q.Method = r.Methods[0]
		for _, method := range r.Methods {
			if !IsRead(method) {
				q.Method = method
				break
			}
		}
	}
	path := ""
	for segment := range strings.SplitSeq(strings.TrimPrefix(r.prefix, "/"), "/") {
		if segment != "" {
			path += "/" + url.PathEscape(segment)
		}
	}
	for _, segment := range segments {
		path += "/" + url.PathEscape(segment)
	}
	q.Path = cmp.Or(path, "/")
	return q, true
}
