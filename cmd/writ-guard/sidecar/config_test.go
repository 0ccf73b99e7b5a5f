package sidecar

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/writ-io/writ/cmd/config"
)

const plainYAML = `
name: g1
data_dir: data
quorum: {endpoints: ["127.0.0.1:7411"], insecure: true}
listeners: [{name: main, listen: "127.0.0.1:8080"}]
upstreams: [{name: store, url: "http://127.0.0.1:9000"}]
routes: [{path: /orders, resource: orders-db, upstream: store}]
`

// load writes a file of lines, of which later keys take the place of earlier ones, and loads it.
func load(t *testing.T, text string, environ ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guard.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, environ)
}

// with puts the keys of add in the place of those of plainYAML.
func with(t *testing.T, add string) string {
	t.Helper()
	base, err := yaml.Parser().Unmarshal([]byte(plainYAML))
	if err != nil {
		t.Fatal(err)
	}
	changes, err := yaml.Parser().Unmarshal([]byte(add))
	if err != nil || strings.HasPrefix(add, "---") {
		return plainYAML + add
	}
	for key, value := range changes {
		base[key] = value
	}
	text, err := yaml.Parser().Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, plainYAML)
	if err != nil {
		t.Fatal(err)
	}
	if c.Slack != 15*time.Second || c.StopTimeout != 30*time.Second || c.Isolation != "quorum" || c.Admin.Listen != "127.0.0.1:7420" ||
		c.Log != (Log{"info", "text"}) || !filepath.IsAbs(c.DataDir) {
		t.Errorf("got %+v", c)
	}
	if c.form() != "proxy" || !slices.Equal(c.covers(), []string{"orders-db"}) {
		t.Errorf("form %q, covers %q", c.form(), c.covers())
	}
}

// The example is what the documentation says it is: every key, and a configuration that works once its files are there.
func TestExample(t *testing.T) {
	for _, key := range config.Keys[Config]() {
		last := key[strings.LastIndex(key, ".")+1:]
		if !strings.Contains(exampleYAML, last+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "guard.yaml")
	if err := os.WriteFile(path, []byte(exampleYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "quorum.ca: ") {
		t.Errorf("without its files: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.pem", "guard-eu-1.pem", "guard-eu-1-key.pem"} {
		if err := os.WriteFile(filepath.Join(dir, "tls", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"orders-db", "tenants/*"}; !slices.Equal(c.covers(), want) {
		t.Errorf("covers %q, want %q", c.covers(), want)
	}
}

// What is commented out in the example can be put in.
func TestExampleUncommented(t *testing.T) {
	commented := regexp.MustCompile(`^( *)# ( *[a-z_]+:( |\n))`)
	var lines []string
	for line := range strings.Lines(exampleYAML) {
		lines = append(lines, commented.ReplaceAllString(line, "$1$2"))
	}
	text := strings.Join(lines, "")
	c, err := Parse([]byte(text), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if c.Check.Socket == "" || c.Envoy.Listen == "" || c.Upstreams[0].ClientTLS.ServerName == "" || c.Limits.MaxParked != 10000 || c.Limits.MaxConcurrent != 10000 {
		t.Errorf("not everything was uncommented: %+v", c)
	}
}

func TestEnvironmentWins(t *testing.T) {
	c, err := load(t, plainYAML,
		"HOME=/root", "WRIT_CA=for-clients",
		"WRIT_GUARD_NAME=g.2",
		"WRIT_GUARD_QUORUM__ENDPOINTS= a:1, b:2,",
		"WRIT_GUARD_SLACK=2s",
		"WRIT_GUARD_CHECK__SOCKET=/run/x.sock",
		"WRIT_GUARD_CHECK__UIDS=0, 1000",
		"WRIT_GUARD_CHECK__TRUST_TOKENS=true",
		"WRIT_GUARD_LIMITS__MAX_CONCURRENT=7",
		"WRIT_GUARD_LIMITS__MAX_PARKED=8",
	)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "g.2" || !slices.Equal(c.Quorum.Endpoints, []string{"a:1", "b:2"}) || c.Slack != 2*time.Second ||
		c.Check.Socket != "/run/x.sock" || !slices.Equal(c.Check.UIDs, []uint32{0, 1000}) || !c.Check.TrustTokens ||
		c.Limits.MaxConcurrent != 7 || c.Limits.MaxParked != 8 {
		t.Errorf("got %+v", c)
	}
}

func TestWrongConfigurationsAreExplained(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open.pem")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const sections = "{name: main, listen: ':8080'}"
	for _, c := range []struct{ name, add, environ, want string }{
		{"misspelt key", "slac: 1s", "", "slac: is not a known key: did you mean slack?"},
		{"misspelt nested key", "quorum: {endpoint: ['a:1']}", "", "quorum.endpoint: is not a known key: did you mean quorum.endpoints?"},
		{"misspelt key of a list", "routes: [{pth: /a}]", "", "routes[0].pth: is not a known key: did you mean routes.path?"},
		{"misspelt key of the embedded", "limits: {linge: 1s}", "", "limits.linge: is not a known key: did you mean limits.linger?"},
		{"unknown key", "colour: red", "", "colour: is not a known key: remove it; writ-guard --example shows every key"},
		{"misspelt variable", "", "WRIT_GUARD_ADMIN__LISTN=:1", "WRIT_GUARD_ADMIN__LISTN: is not a known key: did you mean WRIT_GUARD_ADMIN__LISTEN?"},
		{"variable of a list", "", "WRIT_GUARD_ROUTES__PATH=/", "WRIT_GUARD_ROUTES__PATH: stands for a list of sections: write routes in the file"},
		{"variable of Kubernetes", "", "WRIT_GUARD_SERVICE_HOST=10.0.0.1", "WRIT_GUARD_SERVICE_HOST: is not a known key: Kubernetes sets it"},
		{"number for a duration", "slack: 1000", "", "1000 has no unit"},
		{"text for a number", "limits: {max_parked: many}", "", "wrong type"},
		{"list at the top", "- a", "", "is not a YAML mapping"},
		{"two documents", "---\nname: x", "", "more than one YAML document"},

		{"no name", "name: ''", "", "name: is missing: give it"},
		{"name", "name: 'a b'", "", `name: is "a b": use up to 64 letters`},
		{"region", "region: 'a b'", "", `region: is "a b"`},
		{"no data directory", "data_dir: ''", "", "data_dir: is missing: name a directory"},
		{"no endpoints", "quorum: {insecure: true}", "", "quorum.endpoints: is missing: list the API addresses"},
		{"endpoint without port", "quorum: {insecure: true, endpoints: [a]}", "", `quorum.endpoints[0]: "a" is not host:port`},
		{"endpoint twice", "quorum: {insecure: true, endpoints: ['a:1', 'a:1']}", "", "quorum.endpoints[1]: a:1 is there twice"},
		{"no certificates", "quorum: {endpoints: ['a:1']}", "", "quorum.cert: is missing: name a PEM file, or set quorum.insecure"},
		{"insecure with certificates", "quorum: {endpoints: ['a:1'], insecure: true, ca: x}", "", "quorum.ca: is set together with quorum.insecure"},
		{"no such file", "quorum: {endpoints: ['a:1'], ca: nowhere.pem}", "", "nowhere.pem: no such file or directory"},
		{"key open to others", "quorum: {endpoints: ['a:1'], key: " + open + "}", "", "quorum.key: " + open + " has mode 0644, which lets others in: chmod 600 " + open},

		{"slack", "slack: 31s", "", "slack: is 31s: use 100ms to 30s"},
		{"no slack", "slack: 1ms", "", "slack: is 1ms: use 100ms to 30s"},
		{"stop timeout", "stop_timeout: 2h", "", "stop_timeout: is 2h0m0s: use 1ms to 1h0m0s"},
		{"isolation", "isolation: open", "", `isolation: is "open": use quorum or close: a guard can only be stricter`},
		{"file for certificates", "breakglass_file: " + filepath.Dir(open), "", "breakglass_file: " + filepath.Dir(open) + " is not a regular file: name a file; it need not be there yet"},
		{"files for certificates", "breakglass_file: [a, b]", "", "'breakglass_file' expected type"},
		{"file for certificates, misspelt", "break_glass_file: a", "", "break_glass_file: is not a known key: did you mean breakglass_file?"},
		{"log level", "log: {level: loud}", "", `log.level: is "loud": use trace`},
		{"log format", "log: {format: xml}", "", `log.format: is "xml": use text or json`},
		{"park time", "limits: {max_park_time: 1h}", "", "limits.max_park_time: is 1h0m0s"},
		{"parked", "limits: {max_parked: -1}", "", "limits.max_parked: is -1"},
		{"proxy limit", "limits: {max_header_bytes: 1}", "", "limits.max_header_bytes: 1 is out of range: use 16384"},

		{"nothing served", "{listeners: [], upstreams: [], routes: []}", "", "listeners: is missing, and so are envoy, nginx, check and postgres"},
		{"no routes", "routes: []", "", "routes: is missing: say which requests"},
		{"routes to nowhere", "{listeners: [], upstreams: [], check: {socket: /x}}", "", "routes: leads nowhere"},
		{"no upstreams", "upstreams: []", "", "upstreams: is missing: name the storages"},
		{"upstreams without listeners", "{listeners: [], nginx: {listen: ':1'}}", "", "upstreams: is set without listeners"},
		{"listener's name", "listeners: [{name: nginx, listen: ':1'}]", "", `listeners[0].name: "nginx" is no name, is taken`},
		{"listener twice", "listeners: [" + sections + ", {name: main, listen: ':1'}]", "", `listeners[1].name: "main" is no name, is taken`},
		{"no port", "listeners: [{name: main, listen: localhost}]", "", `listeners[0].listen: "localhost" is not host:port`},
		{"relative socket", "listeners: [{name: main, listen: 'unix:x'}]", "", `listeners[0].listen: "unix:x" is not the path of a socket`},
		{"same address", "admin: {listen: '127.0.0.1:8080'}", "", "admin.listen: 127.0.0.1:8080 is listeners[0].listen's too"},
		{"half of TLS", "listeners: [{name: main, listen: ':1', tls: {cert: x}}]", "", "listeners[0].tls: lacks cert or key"},
		{"TLS without https", "upstreams: [{name: store, url: 'http://a', tls: {server_name: x}}]", "", "upstreams[0].tls: is set for an upstream without https"},
		{"upstream's URL", "upstreams: [{name: store, url: 'ftp://a'}]", "", `upstreams[0].url: "ftp://a" has not the scheme http or https: use`},
		{"unknown upstream", "routes: [{path: /a, resource: r, upstream: x}]", "", `routes[0].upstream: "x" is not an upstream: name one of upstreams`},
		{"unknown listener", "routes: [{path: /a, resource: r, upstream: store, listener: envoy}]", "", `routes[0].listener: "envoy" is not a listener: use one of main`},
		{"no resource", "routes: [{path: /a, upstream: store}]", "", "routes[0].resource: is missing"},
		{"bad mode", "routes: [{path: /a, resource: r, upstream: store, mode: force}]", "", `routes[0].mode: "force" is not known: use check or stamp`},
		{"upstream of nginx", "{nginx: {listen: ':1'}, routes: [{path: /a, resource: r, upstream: store, listener: nginx}]}", "", "routes[0].upstream: means nothing where another program forwards"},
		{"the place of a route", "{nginx: {listen: ':1'}, routes: [{path: /a, resource: r, listener: nginx}, {path: /b, resource: r, upstream: x}]}", "", `routes[1].upstream: "x" is not an upstream`},
		{"stamp without region", "routes: [{path: /a, resource: r, upstream: store, mode: stamp}]", "", "region: is missing: name the region whose grants"},
		{"front's timeout", "{nginx: {listen: ':1', timeout: 2m}}", "", "nginx.timeout: is 2m0s"},

		{"check without socket", "check: {trust_tokens: true}", "", "check.socket: is missing"},
		{"check without resources", "{listeners: [], upstreams: [], routes: [], check: {socket: /x}}", "", "check.covers: is missing"},
		{"check's pattern", "check: {socket: /x, covers: ['a*b']}", "", `check.covers[0]: is "a*b"`},
		{"check's mode", "check: {socket: /x, mode: '660'}", "", `check.mode: is "660": use an octal mode`},
		{"check's limit", "check: {socket: /x, max_open_per_uid: -1}", "", "check.max_open_per_uid: is -1"},
		{"check's ticket", "check: {socket: /x, ticket_ttl: 1ms}", "", "check.ticket_ttl: is 1ms: use at least 100ms and less than slack, 15s"},
		{"check's ticket beyond slack", "{slack: 5s, check: {socket: /x, ticket_ttl: 5s}}", "", "check.ticket_ttl: is 5s: use at least 100ms and less than slack, 5s"},
		{"slack below any ticket", "{slack: 100ms, check: {socket: /x}}", "", "slack: is 100ms: use more than 100ms: a ticket"},
		{"check's grace", "{slack: 5s, check: {socket: /x, cut_grace: 5s}}", "", "check.cut_grace: is 5s: use less than slack, 5s"},
		{"check's user", "check: {socket: /x, uids: [-1]}", "", "wrong type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var environ []string
			if c.environ != "" {
				environ = []string{c.environ}
			}
			_, err := load(t, with(t, c.add), environ...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v\nwant %s", err, c.want)
			}
			if !strings.Contains(err.Error(), "configuration ") {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
}

// Everything that is wrong is told at once.
func TestAllProblemsAreTold(t *testing.T) {
	_, err := load(t, with(t, "{name: '', slack: 1h, quorum: {}, log: {level: loud}}"))
	for _, field := range []string{"name", "slack", "quorum.endpoints", "log.level"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	var wrong *config.Error
	if !errors.As(err, &wrong) || wrong.Fix == "" {
		t.Errorf("%v is no config.Error with a fix", err)
	}
}

// Every key that the file may have can be set in the environment, but for lists of sections.
func TestEveryKeyCanBeAVariable(t *testing.T) {
	keys := config.Keys[Config]()
	for _, key := range keys {
		if slices.ContainsFunc(keys, func(other string) bool { return strings.HasPrefix(other, key+".") }) {
			continue // a section, or a list of them
		}
		variable := format.Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
		var err error
		for _, value := range []string{"x", "true", "1s", "1"} {
			if _, err = Parse(nil, []string{variable + "=" + value}); err == nil {
				break
			}
		}
		if section, _, _ := strings.Cut(key, "."); slices.Contains([]string{"listeners", "upstreams", "routes"}, section) {
			if err == nil || !strings.Contains(err.Error(), "write "+section+" in the file") {
				t.Errorf("%s: %v", variable, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", variable, err)
		}
	}
}

// The file for certificates starts at the configuration, as every other does, and need not be there.
func TestFileForCertificates(t *testing.T) {
	c, err := load(t, with(t, "breakglass_file: glass/cert.json"))
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(c.DataDir), "glass", "cert.json"); c.BreakglassFile != want {
		t.Errorf("got %s, want %s", c.BreakglassFile, want)
	}
}

func TestLoadNeedsAFile(t *testing.T) {
	if _, err := Load("", nil); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(plainYAML), "WRIT_GUARD_SLACK=1s")
	f.Add([]byte(exampleYAML), "WRIT_GUARD_QUORUM__ENDPOINTS=a:1,b:2")
	f.Add([]byte("check: {uids: [1, -1, 5000000000], mode: 0660}"), "WRIT_GUARD_CHECK__UIDS=x")
	f.Add([]byte("listeners: [{}, null, 1]\nroutes: {a: b}"), "WRIT_GUARD_=")
	f.Add([]byte("routes: [{methods: PUT, path: [/], mode: {}}]\nlimits: []"), "WRIT_GUARD_ROUTES=x")
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		c, err := Parse(data, []string{variable})
		if err != nil {
			var wrong *config.Error
			if !errors.As(err, &wrong) || wrong.Field == "" || wrong.Fix == "" {
				t.Fatalf("%v names no field or no fix", err)
			}
			return
		}
		// Whatever could be read can be judged, and what is good can be used.
		if c = c.withDefaults(); c.Validate() == nil {
			_, _, _ = c.covers(), c.stamps(), c.form()
		}
	})
}
