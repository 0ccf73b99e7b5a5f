package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-io/writ/fence/guard/route"
)

// ErrConfig means that a configuration cannot be used; the text names the field and the fix.
var ErrConfig = errors.New("proxy: invalid configuration")

// Config is what a proxy depends on. The names in its errors are those of the tags.
type Config struct {
	// Routes say which requests are for which resource; at least one.
	Routes []route.Route `koanf:"routes"`
	// Upstreams are the storages behind the proxy; at least one.
	Upstreams []Upstream `koanf:"upstreams"`
	// Listeners that routes may name; nil: any.
	Listeners []string `koanf:"-"`
	// Limits bound what one proxy takes on.
	Limits Limits `koanf:"limits"`
	// Registerer takes the metrics; nil: none.
	Registerer prometheus.Registerer `koanf:"-"`
	// ErrorLog is told what callers cannot be told; nil: nobody.
	ErrorLog *log.Logger `koanf:"-"`
}

// Upstream is a storage behind the proxy.
type Upstream struct {
	// Name that routes refer to it by.
	Name string `koanf:"name"`
	// URL is http://host:port or https://host:port, with a path that goes before every request's if need be.
	URL string `koanf:"url"`
	// Host replaces the Host header of requests; default: as the caller sent it.
	Host string `koanf:"host"`
	// DialTimeout bounds connecting; default 5 s.
	DialTimeout time.Duration `koanf:"dial_timeout"`
	// ResponseTimeout bounds the wait for the header of a response after the request was sent; default: none. A write that
	// runs into it counts as broken.
	ResponseTimeout time.Duration `koanf:"response_timeout"`
	// IdleTimeout is how long an unused connection is kept; default 60 s. It should be shorter than the upstream's own.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// MaxIdle bounds the unused connections that are kept; default 256.
	MaxIdle int `koanf:"max_idle"`
	// TLS is for https; nil: the system's roots.
	TLS *tls.Config `koanf:"-"`
}

// Limits bound what one proxy takes on.
type Limits struct {
	// MaxConcurrent requests at a time; default 10,000.
	MaxConcurrent int `koanf:"max_concurrent"`
	// MaxHeaderBytes of a request; default 64 KiB, at least 16 KiB, because a writ may be 8 KiB long.
	MaxHeaderBytes int `koanf:"max_header_bytes"`
	// HeaderTimeout bounds how long a caller may take to send a header; default 10 s.
	HeaderTimeout time.Duration `koanf:"header_timeout"`
	// IdleTimeout is how long a caller's unused connection is kept; default 120 s.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// MaxBodyBytes of a write; default: no limit.
	MaxBodyBytes int64 `koanf:"max_body_bytes"`
	// Linger bounds how long the answer to a write is waited for after its caller has gone; default 30 s. A write that
	// runs into it counts as broken.
	Linger time.Duration `koanf:"linger"`
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	l := &c.Limits
	setDefault(&l.MaxConcurrent, 10_000)
	setDefault(&l.MaxHeaderBytes, 64<<10)
	setDefault(&l.HeaderTimeout, 10*time.Second)
	setDefault(&l.IdleTimeout, 120*time.Second)
	setDefault(&l.Linger, 30*time.Second)
	upstreams := make([]Upstream, len(c.Upstreams))
	for i, u := range c.Upstreams {
		setDefault(&u.DialTimeout, 5*time.Second)
		setDefault(&u.IdleTimeout, 60*time.Second)
		setDefault(&u.MaxIdle, 256)
		upstreams[i] = u
	}
	c.Upstreams = upstreams
	return c
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Validate reports the first field that cannot be used: [ErrConfig], or route.ErrConfig for one of the routes.
func (c Config) Validate() error {
	c = c.withDefaults()
	if _, err := c.table(); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for i, u := range c.Upstreams {
		if err := u.validate(i); err != nil {
			return err
		}
		if seen[u.Name] {
			return fieldError(fmt.Sprintf("upstreams[%d].name", i), fmt.Sprintf("%q is there twice", u.Name), "choose another one")
		}
		seen[u.Name] = true
	}
	return c.Limits.validate()
}

// table makes the table of the routes.
func (c Config) table() (*route.Table, error) {
	known := route.Known{Listeners: c.Listeners, Upstreams: make([]string, 0, len(c.Upstreams))}
	for _, u := range c.Upstreams {
		known.Upstreams = append(known.Upstreams, u.Name)
	}
	if len(known.Upstreams) == 0 {
		return nil, fieldError("upstreams", "there is none", "name at least one")
	}
	return route.New(c.Routes, known)
}

func fieldError(field, problem, fix string) error {
	return fmt.Errorf("%w: %s: %s: %s", ErrConfig, field, problem, fix)
}

func (u Upstream) validate(i int) error {
	field := func(name string) string { return fmt.Sprintf("upstreams[%d].%s", i, name) }
	if u.Name == "" {
		return fieldError(field("name"), "is missing", "choose a name for routes to refer to")
	}
	if _, err := u.parseURL(); err != nil {
		return fieldError(field("url"), err.Error(), "use an address such as http://127.0.0.1:9000")
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"dial_timeout", u.DialTimeout}, {"response_timeout", u.ResponseTimeout}, {"idle_timeout", u.IdleTimeout}} {
		if d.value < 0 {
			return fieldError(field(d.name), fmt.Sprintf("%s is negative", d.value), "use a duration such as 10s")
		}
	}
	if u.MaxIdle < 1 {
		return fieldError(field("max_idle"), fmt.Sprintf("%d is too low", u.MaxIdle), "use at least 1")
	}
	return nil
}

func (u Upstream) parseURL() (*url.URL, error) {
	parsed, err := url.Parse(u.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a URL", u.URL)
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return nil, fmt.Errorf("%q has not the scheme http or https", u.URL)
	case parsed.Host == "" || parsed.Hostname() == "":
		return nil, fmt.Errorf("%q has no host", u.URL)
	case parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "" || parsed.Opaque != "":
		return nil, fmt.Errorf("%q has more than a host and a path", u.Name)
	}
	return parsed, nil
}

func (l Limits) validate() error {
	const field = "limits."
	if l.MaxConcurrent < 1 {
		return fieldError(field+"max_concurrent", fmt.Sprintf("%d is too low", l.MaxConcurrent), "use at least 1")
	}
	if l.MaxHeaderBytes < 16<<10 || l.MaxHeaderBytes > 16<<20 {
		return fieldError(field+"max_header_bytes", fmt.Sprintf("%d is out of range", l.MaxHeaderBytes), "use 16384 to 16777216")
	}
	if l.MaxBodyBytes < 0 {
		return fieldError(field+"max_body_bytes", fmt.Sprintf("%d is negative", l.MaxBodyBytes), "use 0 for no limit")
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"header_timeout", l.HeaderTimeout}, {"idle_timeout", l.IdleTimeout}, {"linger", l.Linger}} {
		if d.value < time.Millisecond {
			return fieldError(field+d.name, fmt.Sprintf("%s is too short", d.value), "use a duration such as 10s")
		}
	}
	return nil
}
