package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/fence/guard/external/check"
	"github.com/writ-io/writ/fence/guard/route"
	"github.com/writ-io/writ/lease"
)

// Bounds of fields.
const (
	maxNameBytes   = 64
	minSlack       = 100 * time.Millisecond
	maxStopTimeout = time.Hour
	maxTimeout     = time.Minute
	maxParkTime    = 10 * time.Minute
	maxFiles       = 64 // listeners or upstreams
)

// Validate checks every field and how they relate, and answers everything that is wrong. It expects the defaults to be
// filled in, and looks at the files that are named but changes nothing.
func (c Config) Validate() error {
	return errors.Join(
		c.checkNames(), c.Quorum.Check(), c.checkBounds(), c.checkServed(), c.checkAddresses(), c.checkRoutes(), c.checkCheck(), c.checkPostgres(), c.Tracing.Check(),
	)
}

func (c Config) checkNames() error {
	var all error
	switch {
	case c.Name == "":
		all = wrong("name", "is missing", `give it, such as "name: guard-eu-1"`)
	case !isName(c.Name):
		all = wrong("name", fmt.Sprintf("is %.80q", c.Name), `use up to 64 letters, digits, ".", "_" and "-"`)
	}
	if c.Region != "" && !isName(c.Region) {
		all = errors.Join(all, wrong("region", fmt.Sprintf("is %.80q", c.Region), `use up to 64 letters, digits, ".", "_" and "-"`))
	}
	if c.DataDir == "" {
		all = errors.Join(all, wrong("data_dir", "is missing", "name a directory of this guard's own, such as /var/lib/writ-guard"))
	}
	return all
}

// isName keeps names such that they fit into keys, log lines and file names.
func isName(name string) bool {
	if name == "" || len(name) > maxNameBytes {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}) < 0
}

func (c Config) checkBounds() error {
	var all error
	for _, f := range []struct {
		field        string
		value, least time.Duration
		most         time.Duration
	}{
		{"slack", c.Slack, minSlack, lease.MaxGuardSlack},
		{"stop_timeout", c.StopTimeout, time.Millisecond, maxStopTimeout},
		{"envoy.timeout", c.Envoy.Timeout, 0, maxTimeout},
		{"nginx.timeout", c.Nginx.Timeout, 0, maxTimeout},
		{"limits.max_park_time", c.Limits.MaxParkTime, 0, maxParkTime},
	} {
		if f.value < f.least || f.value > f.most {
			all = errors.Join(all, wrong(f.field, fmt.Sprintf("is %v", f.value), fmt.Sprintf("use %v to %v", max(f.least, time.Millisecond), f.most)))
		}
	}
	if c.Limits.MaxParked < 0 {
		all = errors.Join(all, wrong("limits.max_parked", fmt.Sprintf("is %d", c.Limits.MaxParked), "use 1 or more, or leave it out"))
	}
	if info, err := os.Stat(c.BreakglassFile); c.BreakglassFile != "" && err == nil && !info.Mode().IsRegular() {
		all = errors.Join(all, wrong("breakglass_file", c.BreakglassFile+" is not a regular file", "name a file; it need not be there yet"))
	}
	if c.Isolation != isolationQuorum && c.Isolation != isolationClose {
		all = errors.Join(all, wrong("isolation", fmt.Sprintf("is %.80q", c.Isolation), "use quorum or close: a guard can only be stricter than the quorum's rules"))
	}
	if hclog.LevelFromString(c.Log.Level) == hclog.NoLevel {
		all = errors.Join(all, wrong("log.level", fmt.Sprintf("is %.80q", c.Log.Level), "use trace, debug, info, warn or error"))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		all = errors.Join(all, wrong("log.format", fmt.Sprintf("is %.80q", c.Log.Format), "use text or json"))
	}
	return all
}

// checkServed asks that the guard does something, and can.
func (c Config) checkServed() error {
	var all error
	fronts := len(c.Listeners) > 0 || c.Envoy.Listen != "" || c.Nginx.Listen != ""
	switch {
	case c.Postgres.used() && (fronts || c.Check.Socket != "" || len(c.Routes) > 0):
		all = wrong("postgres", "is set beside other forms", "give the database a guard of its own: what it promises is not what they do")
	case c.Postgres.used():
	case !fronts && c.Check.Socket == "":
		all = wrong("listeners", "is missing, and so are envoy, nginx, check and postgres", "say in which form the guard is to be asked")
	case fronts && len(c.Routes) == 0:
		all = wrong("routes", "is missing", "say which requests are for which resource")
	case !fronts && len(c.Routes) > 0:
		all = wrong("routes", "leads nowhere: nothing that takes requests is configured", "add listeners, envoy or nginx, or remove the routes")
	}
	if len(c.Listeners) > 0 && len(c.Upstreams) == 0 {
		all = errors.Join(all, wrong("upstreams", "is missing", "name the storages that the listeners are for"))
	}
	if len(c.Listeners) == 0 && len(c.Upstreams) > 0 {
		all = errors.Join(all, wrong("upstreams", "is set without listeners", "add listeners, or remove it: only the proxy forwards"))
	}
	if len(c.Listeners) > maxFiles || len(c.Upstreams) > maxFiles {
		all = errors.Join(all, wrong("listeners", "or upstreams are too many", fmt.Sprintf("use at most %d of each", maxFiles)))
	}
	return all
}

func (c Config) checkAddresses() error {
	var all error
	taken := map[string]string{}
	claim := func(field, address string) {
		if other, ok := taken[address]; ok && !strings.HasSuffix(address, ":0") {
			all = errors.Join(all, wrong(field, fmt.Sprintf("%s is %s's too", address, other), "give each an address of its own"))
		}
		taken[address] = field
	}
	names := map[string]bool{envoyName: true, nginxName: true}
	for i, l := range c.Listeners {
		field := fmt.Sprintf("listeners[%d]", i)
		if !isName(l.Name) || names[l.Name] {
			all = errors.Join(all, wrong(field+".name", fmt.Sprintf("%.80q is no name, is taken, or stands for another form", l.Name), "choose one for routes to refer to, such as main"))
		}
		names[l.Name] = true
		all = errors.Join(all, checkListen(field+".listen", l.Listen), l.TLS.check(field+".tls"))
		claim(field+".listen", l.Listen)
	}
	for _, f := range []struct{ field, address string }{
		{"envoy.listen", c.Envoy.Listen}, {"nginx.listen", c.Nginx.Listen}, {"admin.listen", c.Admin.Listen},
	} {
		if f.address != "" && (f.field != "admin.listen" || f.address != adminOff) {
			all = errors.Join(all, checkListen(f.field, f.address))
			claim(f.field, f.address)
		}
	}
	if c.Check.Socket != "" {
		claim("check.socket", unixPrefix+c.Check.Socket)
	}
	for i, u := range c.Upstreams {
		all = errors.Join(all, u.ClientTLS.check(fmt.Sprintf("upstreams[%d].tls", i), u.URL))
	}
	return all
}

// unixPrefix begins the address of a unix socket.
const unixPrefix = "unix:"

func checkListen(field, address string) error {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if !strings.HasPrefix(path, "/") {
			return wrong(field, fmt.Sprintf("%q is not the path of a socket", address), "write it like unix:/run/writ-guard/main.sock")
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil || !config.IsPort(port, 0) {
		return wrong(field, fmt.Sprintf("%q is not host:port", address), "write it like 127.0.0.1:8080, :8080 for all addresses, or unix:/path")
	}
	return nil
}

func (t ServerTLS) check(field string) error {
	switch {
	case t == ServerTLS{}:
		return nil
	case t.Cert == "" || t.Key == "":
		return wrong(field, "lacks cert or key", "name both, or leave the section out for plain HTTP")
	}
	err := errors.Join(config.CheckFile(field+".cert", t.Cert, false), config.CheckFile(field+".key", t.Key, true))
	if t.ClientCA != "" {
		err = errors.Join(err, config.CheckFile(field+".client_ca", t.ClientCA, false))
	}
	return err
}

func (t ClientTLS) check(field, url string) error {
	switch {
	case t == ClientTLS{}:
		return nil
	case !strings.HasPrefix(url, "https://"):
		return wrong(field, "is set for an upstream without https", "write its url with https://, or remove the section")
	case (t.Cert == "") != (t.Key == ""):
		return wrong(field, "has one of cert and key", "name both or neither")
	}
	var err error
	for _, f := range []struct {
		field, path string
		secret      bool
	}{{".ca", t.CA, false}, {".cert", t.Cert, false}, {".key", t.Key, true}} {
		if f.path != "" {
			err = errors.Join(err, config.CheckFile(field+f.field, f.path, f.secret))
		}
	}
	return err
}

// checkRoutes checks the routes as they stand in the file, so that errors name them by their place in it.
func (c Config) checkRoutes() error {
	if len(c.Routes) == 0 {
		return nil // checkServed
	}
	table, err := route.New(c.Routes, route.Known{Listeners: c.listenerNames()})
	if err != nil {
		return asConfigError(err)
	}
	var all error
	for i, r := range c.Routes {
		field := fmt.Sprintf("routes[%d].upstream", i)
		known := slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Name == r.Upstream })
		switch {
		case c.proxied(r) && !known:
			all = errors.Join(all, wrong(field, fmt.Sprintf("%.80q is not an upstream", r.Upstream), "name one of upstreams"))
		case !c.proxied(r) && r.Upstream != "":
			all = errors.Join(all, wrong(field, "means nothing where another program forwards", "remove it"))
		}
	}
	if len(table.Stamps()) > 0 && c.Region == "" {
		all = errors.Join(all, wrong("region", "is missing", "name the region whose grants routes in mode stamp present"))
	}
	if all == nil && len(c.Listeners) > 0 {
		all = asConfigError(c.proxy().Validate())
	}
	return all
}

// asConfigError takes off what the packages below put before the name of a field.
func asConfigError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, prefix := range []string{"route: invalid configuration: ", "proxy: invalid configuration: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	parts := strings.SplitN(text, ": ", 3)
	if len(parts) < 3 {
		return err
	}
	return wrong(parts[0], parts[1], parts[2])
}

// listenerNames are those that routes may refer to.
func (c Config) listenerNames() []string {
	names := []string{}
	for _, l := range c.Listeners {
		names = append(names, l.Name)
	}
	if c.Envoy.Listen != "" {
		names = append(names, envoyName)
	}
	if c.Nginx.Listen != "" {
		names = append(names, nginxName)
	}
	return names
}

// proxied reports whether requests that a route is for come in by the proxy.
func (c Config) proxied(r route.Route) bool {
	return len(c.Listeners) > 0 && r.Listener != envoyName && r.Listener != nginxName
}

func (c Config) checkCheck() error {
	k := c.Check
	if k.Socket == "" {
		if len(k.Covers) > 0 || len(k.UIDs) > 0 || len(k.GIDs) > 0 || k.TrustTokens {
			return wrong("check.socket", "is missing", "name the socket, or leave the section out")
		}
		return nil
	}
	var all error
	if _, err := socketMode(k.Mode); err != nil {
		all = wrong("check.mode", fmt.Sprintf("is %.80q", k.Mode), `use an octal mode in quotes, such as "0660"`)
	}
	if len(c.Routes) == 0 && len(k.Covers) == 0 {
		all = errors.Join(all, wrong("check.covers", "is missing", "name the resources that are guarded, such as orders-db or tenants/*"))
	}
	for i, pattern := range k.Covers {
		if prefix := strings.TrimSuffix(pattern, "*"); pattern == "" || len(pattern) > lease.MaxResourceBytes || strings.Contains(prefix, "*") {
			all = errors.Join(all, wrong(fmt.Sprintf("check.covers[%d]", i), fmt.Sprintf("is %.80q", pattern), "use a resource, or a prefix that ends in its only asterisk"))
		}
	}
	if k.MaxOpenPerUID < 0 || k.MaxOpenPerUID > check.MaxMaxOpen {
		all = errors.Join(all, wrong("check.max_open_per_uid", fmt.Sprintf("is %d", k.MaxOpenPerUID), fmt.Sprintf("use 1 to %d", check.MaxMaxOpen)))
	}
	if c.Slack <= check.MinTicketTTL {
		all = errors.Join(all, wrong("slack", fmt.Sprintf("is %v", c.Slack), fmt.Sprintf("use more than %v: a ticket of the check API is shorter than slack", check.MinTicketTTL)))
	}
	if k.TicketTTL != 0 && (k.TicketTTL < check.MinTicketTTL || k.TicketTTL >= c.Slack) {
		all = errors.Join(all, wrong("check.ticket_ttl", fmt.Sprintf("is %v", k.TicketTTL), fmt.Sprintf("use at least %v and less than slack, %v", check.MinTicketTTL, c.Slack)))
	}
	if k.CutGrace < 0 || k.CutGrace >= c.Slack {
		all = errors.Join(all, wrong("check.cut_grace", fmt.Sprintf("is %v", k.CutGrace), fmt.Sprintf("use less than slack, %v", c.Slack)))
	}
	return all
}

func socketMode(text string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 || !strings.HasPrefix(text, "0") {
		return 0, errors.New("not an octal mode")
	}
	return fs.FileMode(mode), nil
}
