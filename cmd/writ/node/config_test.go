package node

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/config"
)

// insecureYAML is the least that a node needs.
const insecureYAML = `
name: eu
region: europe
cluster: test
data_dir: data
insecure: true
bootstrap:
  members: {eu: "http://127.0.0.1:7413", us: "http://127.0.0.1:7423"}
`

func load(t *testing.T, text string, environ ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "writ.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, environ)
}

func TestDefaultsAreFilledIn(t *testing.T) {
	c, err := load(t, insecureYAML)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.DataDir) || filepath.Base(c.DataDir) != "data" {
		t.Errorf("data_dir is %q, want it beside the configuration", c.DataDir)
	}
	c.DataDir = ""
	want := Config{
		Name: "eu", Region: "europe", Cluster: "test", Insecure: true,
		API:       Address{":7411", "127.0.0.1:7411"},
		HTTP:      Address{":7412", "127.0.0.1:7412"},
		Peer:      Address{":7413", "127.0.0.1:7413"},
		Bootstrap: Bootstrap{Members: map[string]string{"eu": "http://127.0.0.1:7413", "us": "http://127.0.0.1:7423"}},
		Heartbeat: 100 * time.Millisecond, Election: time.Second,
		Lease:   Lease{Retention: 5 * time.Minute, GuardLease: 30 * time.Second},
		Audit:   Audit{SignEvery: time.Minute},
		Storage: Storage{2 << 30, 200_000},
		Log:     Log{"info", "text"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEnvironmentWins(t *testing.T) {
	c, err := load(t, insecureYAML,
		"HOME=/root", "WRIT_CA=for-clients",
		"WRIT_SERVER_NAME=n.1",
		"WRIT_SERVER_BOOTSTRAP__MEMBERS= n.1=http://10.0.0.1:7413, n.2=http://10.0.0.2:7413,",
		"WRIT_SERVER_BOOTSTRAP__JOIN=true",
		"WRIT_SERVER_API__LISTEN=127.0.0.1:9",
		"WRIT_SERVER_PREFERRED_REGIONS=eu, us",
		"WRIT_SERVER_ELECTION=2s",
		"WRIT_SERVER_LIMITS__RATE_PER_SECOND=0.5",
		"WRIT_SERVER_STORAGE__QUOTA_BYTES=33554432",
	)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "n.1" || !c.Bootstrap.Join || c.API.Listen != "127.0.0.1:9" || c.API.Advertise != "10.0.0.1:9" ||
		!slices.Equal(c.PreferredRegions, []string{"eu", "us"}) || c.Election != 2*time.Second ||
		c.Limits.RatePerSecond != 0.5 || c.Storage.QuotaBytes != 32<<20 {
		t.Errorf("got %+v", c)
	}
	if want := map[string]string{"n.1": "http://10.0.0.1:7413", "n.2": "http://10.0.0.2:7413"}; !maps.Equal(c.Bootstrap.Members, want) {
		t.Errorf("members %v, want %v: those of the environment take the place of those in the file", c.Bootstrap.Members, want)
	}
}

func TestWrongConfigurationsAreExplained(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open.pem")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, add, environ, want string }{
		{"misspelt key", "heartbeet: 100ms", "", "heartbeet: is not a known key: did you mean heartbeat?"},
		{"misspelt nested key", "api: {listn: ':1'}", "", "api.listn: is not a known key: did you mean api.listen?"},
		{"key in the wrong place", "quota_bytes: 1", "", "quota_bytes: is not a known key: did you mean storage.quota_bytes?"},
		{"unknown key", "colour: red", "", "colour: is not a known key: remove it; writ server --example shows every key"},
		{"misspelt variable", "", "WRIT_SERVER_API__LISTN=:1", "WRIT_SERVER_API__LISTN: is not a known key: did you mean WRIT_SERVER_API__LISTEN?"},
		{"variable of Kubernetes", "", "WRIT_SERVER_SERVICE_HOST=10.0.0.1", "WRIT_SERVER_SERVICE_HOST: is not a known key: Kubernetes sets it"},
		{"number for a duration", "election: 1000", "", "1000 has no unit"},
		{"text for a duration", "election: soon", "", `"soon" is no duration`},
		{"text for a number", "storage: {quota_bytes: many}", "", "wrong type"},
		{"list at the top", "- a", "", "is not a YAML mapping"},
		{"two documents", "---\nname: x", "", "more than one YAML document"},
		{"members without a URL", "", "WRIT_SERVER_BOOTSTRAP__MEMBERS=eu", "write name=value,name=value"},

		{"name", "name: 'a b'", "", `name: is "a b": use up to 64 letters`},
		{"no region", "region: ''", "", "region: is missing: give it"},
		{"no data directory", "data_dir: ''", "", "data_dir: is missing: name a directory"},
		{"no port", "api: {listen: 127.0.0.1}", "", `api.listen: "127.0.0.1" is not host:port: write it like`},
		{"port out of range", "http: {listen: ':65536'}", "", `http.listen: ":65536" is not host:port`},
		{"same port", "http: {listen: ':7411'}", "", "http.listen: :7411 is api.listen's too: give each a port of its own"},
		{"advertised anywhere", "api: {advertise: '0.0.0.0:7411'}", "", "api.advertise: \"0.0.0.0:7411\" is no address that others can connect to"},
		{"peer host name", "peer: {listen: 'eu.example:7413'}", "", "peer.listen: \"eu.example:7413\" has a name for its host: use an IP address"},
		{"peer elsewhere", "peer: {advertise: '127.0.0.1:9'}", "", "peer.advertise: is 127.0.0.1:9, but bootstrap.members.eu is http://127.0.0.1:7413"},
		{"not a member", "name: xx", "", `bootstrap.members: does not hold this node, "xx": add it, such as xx: http://`},
		{"no members", "bootstrap: {}", "", "bootstrap.members: is missing"},
		{"joins nobody", "bootstrap: {join: true, members: {eu: 'http://127.0.0.1:7413'}}", "", "holds no other node to join"},
		{"members share an address", "bootstrap: {members: {eu: 'http://127.0.0.1:1', us: 'http://127.0.0.1:1'}}", "", "bootstrap.members.us: has the address of eu"},
		{"https without TLS", "bootstrap: {members: {eu: 'https://127.0.0.1:1'}}", "", `bootstrap.members.eu: "https://127.0.0.1:1" must begin with http://`},
		{"member URL with a path", "bootstrap: {members: {eu: 'http://127.0.0.1:1/x'}}", "", "is not a peer URL"},
		{"TLS and insecure", "tls: {ca: x}", "", "tls.ca: is set together with insecure: remove one of them"},
		{"neither", "insecure: false", "", "peer_tls.key: is missing: name a PEM file"},
		{"nobody may do anything", "insecure: false", "", "policy_file: is missing"},
		{"no such file", "{insecure: false, tls: {ca: nowhere.pem}}", "", "nowhere.pem: no such file or directory"},
		{"key open to others", "{insecure: false, tls: {key: " + open + "}}", "", "tls.key: " + open + " has mode 0644, which lets others in: chmod 600 " + open},
		{"no policy there", "policy_file: nowhere.yaml", "", "policy_file: stat "},

		{"short heartbeat", "heartbeat: 1ms", "", "heartbeat: is 1ms: use whole milliseconds, at least 5ms"},
		{"short election", "election: 400ms", "", "election: 400ms is less than 5 heartbeats of 100ms: use at least 500ms, better 1s"},
		{"long election", "election: 1m", "", "election: is 1m0s: use at most 50s"},
		{"uneven election", "election: 1050ms", "", "election: 1.05s is no multiple of the heartbeat, 100ms: use 1.1s"},
		{"round trip above heartbeat", "{rtt: 150ms, election: 2s}", "", "heartbeat: 100ms is less than a round trip, rtt: 150ms: use at least 150ms"},
		{"round trip against election", "{rtt: 90ms, election: 800ms}", "", "election: 800ms is less than 10 round trips, rtt: 90ms: use at least 900ms"},
		{"negative round trip", "rtt: -1ms", "", "rtt: is -1ms"},
		{"signed heads", "audit: {sign_every: 10ms}", "", "audit.sign_every: is 10ms: use 1s to 1h0m0s"},
		{"guard lease", "lease: {guard_lease: 1h}", "", "lease.guard_lease: is 1h0m0s: use 1s to 10m0s"},
		{"retention", "lease: {retention: 1s}", "", "lease.retention: is 1s: use 10s to 720h0m0s"},
		{"rate", "limits: {rate_per_second: -2}", "", "limits.rate_per_second: is -2: use 0.001 or more"},
		{"rate that is no number", "limits: {rate_per_second: .nan}", "", "limits.rate_per_second: is NaN"},
		{"burst", "limits: {burst: -1}", "", "limits.burst: is -1"},
		{"concurrency", "limits: {max_concurrent: -2}", "", "limits.max_concurrent: is -2"},
		{"request size", "limits: {max_request_bytes: 1}", "", "limits.max_request_bytes: is 1: use 131072 to 67108864"},
		{"quota", "storage: {quota_bytes: 1}", "", "storage.quota_bytes: is 1: use 16777216 to 8589934592"},
		{"history", "storage: {keep_revisions: 1}", "", "storage.keep_revisions: is 1: use 1000 or more"},
		{"level", "log: {level: loud}", "", `log.level: is "loud": use trace, debug`},
		{"format", "log: {format: xml}", "", `log.format: is "xml": use text or json`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, overlay(t, insecureYAML, c.add), splitNonEmpty(c.environ)...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant …%s", err, c.want)
			}
			if strings.Contains(err.Error(), "writ.yaml: writ.yaml") {
				t.Errorf("%v: repeats itself", err)
			}
		})
	}
}

func splitNonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// overlay puts the keys of a YAML mapping over base, as text, so that what is wrong in it stays wrong.
func overlay(t *testing.T, base, add string) string {
	t.Helper()
	if strings.HasPrefix(add, "{") {
		add = strings.TrimSuffix(strings.TrimPrefix(add, "{"), "}")
		add = regexp.MustCompile(`, ([a-z_]+:)`).ReplaceAllString(add, "\n$1")
	}
	for line := range strings.Lines(add) {
		if key, _, ok := strings.Cut(line, ":"); ok {
			// A key may stand once: the base's own goes, with what is indented below it.
			base = regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(key)+`:.*\n(  .*\n)*`).ReplaceAllString(base, "")
		}
	}
	return base + add
}

func TestEveryProblemIsTold(t *testing.T) {
	_, err := load(t, "name: a b\nelection: 1m\n")
	for _, want := range []string{"name:", "region:", "cluster:", "data_dir:", "bootstrap.members:", "tls.ca:", "peer_tls.key:", "election:", "policy_file:"} {
		if err == nil || !strings.Contains(err.Error(), "\n"+want) && !strings.Contains(err.Error(), "writ.yaml: "+want) {
			t.Errorf("%v\ndoes not tell about %s", err, want)
		}
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nowhere.yaml")
	if _, err := Load(path, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

func TestExampleShowsEveryKey(t *testing.T) {
	if _, err := Parse([]byte(exampleYAML), nil); err != nil {
		t.Fatal(err)
	}
	// With the comments in front of keys gone, it is still a configuration, and it has every key.
	uncommented := regexp.MustCompile(`(?m)^( *)# ([a-z_]+: )`).ReplaceAllString(exampleYAML, "$1$2")
	c, err := Parse([]byte(uncommented), nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults := c.withDefaults()
	defaults.Limits.RatePerSecond, defaults.Limits.MaxConcurrent, defaults.Limits.MaxRequestBytes = 50_000, 50_000, 4<<20
	if !reflect.DeepEqual(c, defaults) {
		t.Errorf("the example shows other defaults\ngot  %+v\nwant %+v", c, defaults)
	}
	for _, key := range config.Keys[Config]() {
		name := key[strings.LastIndex(key, ".")+1:]
		if !regexp.MustCompile(`(?m)^ *` + name + `:`).MatchString(uncommented) {
			t.Errorf("%s is not in the example", key)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(insecureYAML), "WRIT_SERVER_API__LISTEN", ":1")
	f.Add([]byte(exampleYAML), "WRIT_SERVER_BOOTSTRAP__MEMBERS", "a=b,c=d")
	f.Add([]byte("api:\n  1: 2\n"), "WRIT_SERVER_API", "x")
	f.Add([]byte("heartbeat: 9223372036854775807ns\nrtt: -1h\n"), "WRIT_SERVER_", "")
	f.Add([]byte("? [a]\n: b\n"), "WRIT_SERVER___", "{")
	f.Add([]byte("a: &a [*a]\n"), "WRIT_SERVER_LIMITS__BURST", "!!binary x")
	f.Fuzz(func(t *testing.T, data []byte, name, value string) {
		c, err := Parse(data, []string{name + "=" + value})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		// What can be parsed can be judged.
		_ = c.withDefaults().Validate()
	})
}
