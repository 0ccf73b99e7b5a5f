package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrConfig means that a configuration cannot be used; the text names the field and the fix.
var ErrConfig = errors.New("route: invalid configuration")

// Mode says where the token of a write comes from.
type Mode string

const (
	// Check has the caller present its writ. The default.
	Check Mode = "check"
	// Stamp has the guard add the token of its own region's grant.
	Stamp Mode = "stamp"
)

// Reads says what becomes of requests that do not write.
type Reads string

const (
	// ReadsPass lets them pass unchecked. The default.
	ReadsPass Reads = "pass"
	// ReadsCheck has them admitted as writes are.
	ReadsCheck Reads = "check"
)

// UnguardedPass is the value of Route.Unguarded.
const UnguardedPass = "pass"

// MaxCovers is how many patterns a guard can enrol for.
const MaxCovers = 256

// Route says what one kind of requests is for. The names in its errors are those of the tags.
type Route struct {
	// Name stands in metrics and logs; default: routes[3] for the fourth.
	Name string `koanf:"name"`
	// Listener that the request came in by; default: any.
	Listener string `koanf:"listener"`
	// Host of the request without port: a name, or a wildcard such as *.example.com for the names below example.com;
	// default: any.
	Host string `koanf:"host"`
	// Path prefix, unescaped and in whole segments, such as /tenants; default: /, which is every path.
	Path string `koanf:"path"`
	// Methods that the route is for; default: all.
	Methods []string `koanf:"methods"`
	// Resource that is guarded: a name, or a template in which {1} stands for the first segment of the path behind Path,
	// {2} for the second, up to {9}.
	Resource string `koanf:"resource"`
	// Mode: check or stamp; default: check.
	Mode Mode `koanf:"mode"`
	// Reads: pass or check; default: pass. GET, HEAD and OPTIONS are reads.
	Reads Reads `koanf:"reads"`
	// Trusted accepts a bare token from callers, which proves nothing.
	Trusted bool `koanf:"trusted"`
	// ForwardWrit leaves what the caller presented on the request; it is taken off otherwise.
	ForwardWrit bool `koanf:"forward_writ"`
	// Unguarded: "pass" lets requests pass without a resource.
	Unguarded string `koanf:"unguarded"`
	// Upstream that requests go to.
	Upstream string `koanf:"upstream"`
}

// Known lists the names that routes may refer to; nil: not checked.
type Known struct{ Listeners, Upstreams []string }

// fieldError names field of the route number i.
func fieldError(i int, field, problem, fix string) error {
	return fmt.Errorf("%w: routes[%d].%s: %s: %s", ErrConfig, i, field, problem, fix)
}

// withDefaults fills in what was left out.
func (r Route) withDefaults(i int) Route {
	if r.Name == "" {
		r.Name = fmt.Sprintf("routes[%d]", i)
	}
	if r.Path == "" {
		r.Path = "/"
	}
	if r.Unguarded == "" {
		if r.Mode == "" {
			r.Mode = Check
		}
		if r.Reads == "" {
			r.Reads = ReadsPass
		}
	}
	return r
}

// validate checks a route with defaults as number i.
func (r Route) validate(i int, known Known) error {
	if known.Listeners != nil && r.Listener != "" && !slices.Contains(known.Listeners, r.Listener) {
		return fieldError(i, "listener", fmt.Sprintf("%q is not a listener", r.Listener), "use one of "+strings.Join(known.Listeners, ", "))
	}
	if problem := hostProblem(r.Host); problem != "" {
		return fieldError(i, "host", fmt.Sprintf("%q %s", r.Host, problem), "use a host without port such as store.internal or *.example.com")
	}
	if problem := prefixProblem(r.Path); problem != "" {
		return fieldError(i, "path", fmt.Sprintf("%q %s", r.Path, problem), "use an unescaped path in whole segments such as /tenants")
	}
	if err := r.validateMethods(i); err != nil {
		return err
	}
	if known.Upstreams != nil && !slices.Contains(known.Upstreams, r.Upstream) {
		return fieldError(i, "upstream", fmt.Sprintf("%q is not an upstream", r.Upstream), "use one of "+strings.Join(known.Upstreams, ", "))
	}
	if r.Unguarded != "" {
		return r.validateUnguarded(i)
	}
	return r.validateGuarded(i)
}

func (r Route) validateMethods(i int) error {
	for j, method := range r.Methods {
		field := fmt.Sprintf("methods[%d]", j)
		switch {
		case method == "" || strings.ContainsFunc(method, func(c rune) bool { return (c < 'A' || c > 'Z') && c != '-' && c != '_' }):
			return fieldError(i, field, fmt.Sprintf("%q is not a method", method), "use capital letters such as PUT")
		case method == "CONNECT" || method == "TRACE":
			return fieldError(i, field, method+" cannot be guarded and never passes", "remove it")
		case slices.Index(r.Methods, method) != j:
			return fieldError(i, field, method+" is there twice", "remove it")
		}
	}
	return nil
}

func (r Route) validateUnguarded(i int) error {
	if r.Unguarded != UnguardedPass {
		return fieldError(i, "unguarded", fmt.Sprintf("%q is not known", r.Unguarded), "use pass, or remove it")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"resource", r.Resource != ""}, {"mode", r.Mode != ""}, {"reads", r.Reads != ""},
		{"trusted", r.Trusted}, {"forward_writ", r.ForwardWrit},
	} {
		if f.set {
			return fieldError(i, f.name, "means nothing on an unguarded route", "remove it, or remove unguarded")
		}
	}
	return nil
}

func (r Route) validateGuarded(i int) error {
	if r.Resource == "" {
		return fieldError(i, "resource", "is missing", "name the resource that is guarded, or set unguarded: pass")
	}
	if _, err := parseTemplate(r.Resource); err != nil {
		return fieldError(i, "resource", err.Error(), "use a name such as orders-db, or a template such as tenants/{1}")
	}
	if r.Mode != Check && r.Mode != Stamp {
		return fieldError(i, "mode", fmt.Sprintf("%q is not known", r.Mode), "use check or stamp")
	}
	if r.Reads != ReadsPass && r.Reads != ReadsCheck {
		return fieldError(i, "reads", fmt.Sprintf("%q is not known", r.Reads), "use pass or check")
	}
	if r.Mode == Stamp && r.Trusted {
		return fieldError(i, "trusted", "means nothing in mode stamp, which takes no token from callers", "remove it, or use mode check")
	}
	if r.Mode == Stamp && r.ForwardWrit {
		return fieldError(i, "forward_writ", "means nothing in mode stamp, which replaces what callers present", "remove it, or use mode check")
	}
	return nil
}
