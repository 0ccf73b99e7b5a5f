package agent

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/region/agent"
	"github.com/writ-io/writ/region/agent/postgres"
	"github.com/writ-io/writ/region/agent/shift"
)

// group assembles what is done for one group, and answers everything that is wrong with its section.
func (c Config) group(field string, g Group) (agent.Group, error) {
	var all error
	if !agent.IsName(g.Name) {
		all = wrong(field+".name", fmt.Sprintf("is %.80q", g.Name), naming)
	}
	built := agent.Group{Name: g.Name, Hooks: make(map[writv1.HookKind]agent.Hook)}
	for _, p := range g.Peers {
		built.Peers = append(built.Peers, agent.Peer{Region: p.Region, Address: p.Address})
	}
	all = errors.Join(all, checkPeers(field+".peers", g.Peers), c.addPostgres(field+".postgres", g.Postgres, &built))
	if probe, err := g.Probe.build(field + ".probe"); err != nil {
		all = errors.Join(all, err)
	} else if probe != nil {
		built.Probe = probe
	}
	all = errors.Join(all, addHooks(field+".hooks", g.Hooks, &built))
	if built.Probe == nil && len(built.Hooks) == 0 && all == nil {
		all = wrong(field, "has neither probe nor hooks", "add postgres, probe or hooks")
	}
	if len(g.ConfigFiles) > 0 {
		digest := func() (string, error) { return digestOf(field+".config_files", g.ConfigFiles) }
		_, err := digest()
		built.Digest, all = digest, errors.Join(all, err)
	}
	return built, all
}

// addHooks adds what a list of the configuration says.
func addHooks(field string, hooks []Hook, to *agent.Group) error {
	var all error
	own := make(map[writv1.HookKind]bool)
	for i, h := range hooks {
		at := fmt.Sprintf("%s[%d]", field, i)
		kind, ok := agent.KindOf(h.Kind)
		switch {
		case !ok:
			all = errors.Join(all, wrong(at+".kind", fmt.Sprintf("is %.80q", h.Kind), "use drain, undrain, promote, demote, shift, verify or reinstate"))
			continue
		case own[kind]:
			all = errors.Join(all, wrong(at+".kind", h.Kind+" is there twice", "join the two"))
		}
		own[kind] = true
		hook, err := h.build(at, kind)
		all = errors.Join(all, err)
		to.Hooks[kind] = hook
	}
	return all
}

// drill assembles what is done in drills of a group: the hooks for drills, and nothing of the group's own. What the agent
// reports of the group counts for its drills. Without such hooks there is nothing to do.
func drill(field string, g Group) (built agent.Group, any bool, err error) {
	built = agent.Group{Name: region.DrillName(g.Name), Hooks: make(map[writv1.HookKind]agent.Hook)}
	if len(g.Drill.Hooks) == 0 {
		return built, false, nil
	}
	if !agent.IsName(built.Name) {
		err = wrong(field+".drill", fmt.Sprintf("makes the name %.80q", built.Name), "leave it out: the group's name is too long for drills")
	}
	return built, true, errors.Join(err, addHooks(field+".drill.hooks", g.Drill.Hooks, &built))
}

func (c Config) addPostgres(field string, p Postgres, to *agent.Group) error {
	if p.DSN == "" {
		if p.DataDir != "" || len(p.Sources) > 0 || len(p.Hooks) > 0 {
			return wrong(field+".dsn", "is missing", "write it like host=/var/run/postgresql user=postgres dbname=orders")
		}
		return nil
	}
	server, err := postgres.New(postgres.Config{
		DSN: p.DSN, Region: c.Region, Sources: p.Sources, DataDir: p.DataDir, KeepDir: p.KeepDir, BinDir: p.BinDir, As: p.As,
		Start: p.Start, Stop: p.Stop, StopOnDemote: p.StopOnDemote, Method: p.Method, Slot: p.Slot, Fence: p.Fence,
		FenceSchema: p.FenceSchema, MaxConnections: p.MaxConnections, Grace: p.Grace,
	})
	if err != nil {
		return renamed(err, below(field))
	}
	to.Probe = server.Probe()
	hooks := server.Hooks()
	if len(p.Hooks) == 0 {
		for kind, hook := range hooks {
			to.Hooks[kind] = hook
		}
		return nil
	}
	for i, name := range p.Hooks {
		kind, ok := agent.KindOf(name)
		if !ok || hooks[kind] == nil {
			return wrong(fmt.Sprintf("%s.hooks[%d]", field, i), fmt.Sprintf("is %.80q", name), "use drain, undrain, promote, demote, verify or reinstate")
		}
		to.Hooks[kind] = hooks[kind]
	}
	return nil
}

// build answers nil if there is nothing configured.
func (p Probe) build(field string) (agent.Probe, error) {
	switch {
	case len(p.Command) > 0 && p.URL != "":
		return nil, wrong(field, "has command and url", "choose one")
	case len(p.Command) > 0:
		return &agent.CommandProbe{Args: p.Command}, nil
	case p.URL != "":
		client, err := p.TLS.client(field + ".tls")
		return &agent.RequestProbe{URL: p.URL, Header: p.Headers, Client: client}, errors.Join(checkURL(field+".url", p.URL), err)
	}
	return nil, nil
}

func (h Hook) build(field string, kind writv1.HookKind) (agent.Hook, error) {
	ways := []string{}
	for name, set := range map[string]bool{
		"command": len(h.Command) > 0, "url": h.URL != "", "guard": h.Guard != "", "dns": h.DNS.Server != "" || h.DNS.Zone != "",
		"weights": h.Weights.URL != "",
	} {
		if set {
			ways = append(ways, name)
		}
	}
	if len(ways) != 1 {
		return nil, wrong(field, fmt.Sprintf("has %d of command, url, guard, dns and weights", len(ways)), "choose exactly one")
	}
	way := ways[0]
	switch {
	case way == "guard" && kind != writv1.HookKind_HOOK_KIND_VERIFY:
		return nil, wrong(field+".guard", "is for verify alone", "use it there, or choose another way")
	case (way == "dns" || way == "weights") && kind != writv1.HookKind_HOOK_KIND_SHIFT:
		return nil, wrong(field+"."+way, "is for shift alone", "use it there, or choose another way")
	case way != "command" && (len(h.Env) > 0 || h.Dir != ""):
		return nil, wrong(field+".env", "or dir means nothing without command", "remove it")
	}
	client, err := h.TLS.client(field + ".tls")
	switch way {
	case "command":
		for i, e := range h.Env {
			if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
				err = errors.Join(err, wrong(fmt.Sprintf("%s.env[%d]", field, i), fmt.Sprintf("is %.80q", e), "write it like KEY=value"))
			}
		}
		return &agent.Command{Args: h.Command, Env: h.Env, Dir: h.Dir, Again: h.Idempotent}, err
	case "url":
		return &agent.Request{URL: h.URL, Header: h.Headers, Again: h.Idempotent, Client: client}, errors.Join(err, checkURL(field+".url", h.URL))
	case "guard":
		return &agent.Canary{URL: h.Guard, Header: h.Headers, Client: client}, errors.Join(err, checkURL(field+".guard", h.Guard))
	case "weights":
		w := &shift.Weights{URL: h.Weights.URL, Method: h.Weights.Method, Header: h.Headers, Backends: h.Weights.Backends, Client: client}
		return w, errors.Join(err, renamed(w.Validate(), below(field+".weights")), checkURL(field+".weights.url", h.Weights.URL))
	}
	hook, wrongs := h.DNS.build(field + ".dns")
	return hook, errors.Join(err, wrongs)
}

func (d DNS) build(field string) (agent.Hook, error) {
	hook := &shift.DNS{Server: d.Server, Zone: d.Zone, Key: d.Key, Algorithm: d.Algorithm}
	if d.SecretFile != "" {
		if err := config.CheckFile(field+".secret_file", d.SecretFile, true); err != nil {
			return nil, err
		}
		secret, err := os.ReadFile(d.SecretFile)
		if err != nil {
			return nil, wrong(field+".secret_file", oneLine(err), "name a file that this process may read")
		}
		hook.Secret = strings.TrimSpace(string(secret))
	}
	for _, r := range d.Records {
		hook.Records = append(hook.Records, shift.Record{Name: r.Name, Type: r.Type, TTL: r.TTL, Values: r.Values})
	}
	return hook, renamed(hook.Validate(), below(field))
}

// client answers nil if nothing is configured.
func (t ClientTLS) client(field string) (*http.Client, error) {
	if t == (ClientTLS{}) {
		return nil, nil
	}
	if err := t.check(field); err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, wrong(field+".ca", oneLine(err), "name a PEM file")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, wrong(field+".ca", t.CA+" holds no certificate", "name a PEM file")
		}
	}
	if t.Cert != "" {
		if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			return nil, wrong(field+".cert", "and key cannot be used: "+oneLine(err), "name a PEM certificate and its key")
		}
		// Read anew for each connection, so that they may be replaced.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
			return &pair, err
		}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, Proxy: http.ProxyFromEnvironment}}, nil
}

// digestOf names the content of files, in their order.
func digestOf(field string, paths []string) (string, error) {
	sum := sha256.New()
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", wrong(fmt.Sprintf("%s[%d]", field, i), oneLine(err), "name a file that this process may read")
		}
		_, _ = fmt.Fprintf(sum, "%d\n", len(data))
		_, _ = sum.Write(data)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
