package agent

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/agent"
)

const naming = `use 1 to 64 letters, digits, ".", "_" and "-"`

// Validate checks every field and how they relate, and answers everything that is wrong. It expects the defaults to be filled
// in, and looks at the files that are named but changes nothing.
func (c Config) Validate() error {
	err := errors.Join(c.checkNames(), c.Quorum.Check(), c.checkRest(), checkPeers("peers", c.Peers), c.Tracing.Check())
	if len(c.Groups) == 0 {
		err = errors.Join(err, wrong("groups", "is missing", "name the failover groups that the agent looks after"))
	}
	for i, g := range c.Groups {
		field := fmt.Sprintf("groups[%d]", i)
		if slices.IndexFunc(c.Groups, func(o Group) bool { return o.Name == g.Name }) != i {
			err = errors.Join(err, wrong(field+".name", fmt.Sprintf("%q is there twice", g.Name), "join the two"))
		}
		_, wrongs := c.group(field, g)
		_, _, inDrill := drill(field, g)
		err = errors.Join(err, wrongs, inDrill)
	}
	return err
}

func (c Config) checkNames() error {
	var all error
	for _, f := range []struct{ field, value string }{{"name", c.Name}, {"region", c.Region}} {
		if !agent.IsName(f.value) {
			all = errors.Join(all, wrong(f.field, fmt.Sprintf("is %.80q", f.value), naming))
		}
	}
	if c.DataDir == "" {
		all = errors.Join(all, wrong("data_dir", "is missing", "name a directory of this agent's own, such as /var/lib/writ-agent"))
	}
	return all
}

func checkPeers(field string, peers []Peer) error {
	var all error
	for i, p := range peers {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !agent.IsName(p.Region) {
			all = errors.Join(all, wrong(at+".region", fmt.Sprintf("is %.80q", p.Region), naming))
		}
		if !config.IsAddress(p.Address) {
			all = errors.Join(all, wrong(at+".address", fmt.Sprintf("%q is not host:port", p.Address), "write it like db.us.example:5432"))
		}
	}
	return all
}

func (c Config) checkRest() error {
	var all error
	limits := agent.Config{Name: "a", Region: "r", DataDir: "d", Quorum: (*agent.Remote)(nil), Groups: []agent.Group{{Name: "g"}}}
	limits.Interval, limits.ProbeTimeout, limits.Failures = c.Interval, c.ProbeTimeout, c.Failures
	names := map[string]string{"Interval": "interval", "ProbeTimeout": "probe_timeout", "Failures": "failures"}
	if err := limits.Validate(); err != nil {
		all = renamed(err, func(field string) string { return names[field] })
	}
	if c.Admin.Listen != adminOff {
		if _, _, err := net.SplitHostPort(c.Admin.Listen); err != nil {
			all = errors.Join(all, wrong("admin.listen", fmt.Sprintf("%q is not host:port", c.Admin.Listen), "write it like 127.0.0.1:7421, or off"))
		}
	}
	if hclog.LevelFromString(c.Log.Level) == hclog.NoLevel {
		all = errors.Join(all, wrong("log.level", fmt.Sprintf("is %.80q", c.Log.Level), "use trace, debug, info, warn or error"))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		all = errors.Join(all, wrong("log.format", fmt.Sprintf("is %.80q", c.Log.Format), "use text or json"))
	}
	return all
}

// renamed makes an error of another package one of the configuration.
func renamed(err error, name func(string) string) error {
	var e *lease.Error
	if !errors.As(err, &e) {
		return err
	}
	return wrong(name(e.Field), strings.TrimPrefix(e.Message, e.Field+" "), e.Fix)
}

// below puts the path of a section before a field.
func below(section string) func(string) string {
	return func(field string) string { return section + "." + field }
}

func checkURL(field, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return wrong(field, fmt.Sprintf("%.80q is no URL", text), "write it like https://guard-eu-1.example:8080/orders/canary")
	}
	return nil
}

func (t ClientTLS) check(field string) error {
	if (t.Cert == "") != (t.Key == "") {
		return wrong(field, "has one of cert and key", "name both or neither")
	}
	var all error
	for _, f := range []struct {
		field, path string
		secret      bool
	}{{".ca", t.CA, false}, {".cert", t.Cert, false}, {".key", t.Key, true}} {
		if f.path != "" {
			all = errors.Join(all, config.CheckFile(field+f.field, f.path, f.secret))
		}
	}
	return all
}
