package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const good = `
name: agent-eu-1
region: eu
data_dir: data
quorum: {endpoints: ["127.0.0.1:7411"], insecure: true}
groups:
  - name: orders
    postgres: {dsn: host=/tmp, data_dir: pg, keep_dir: kept, sources: {us: host=/other}}
    hooks:
      - kind: shift
        weights: {url: "http://127.0.0.1:1/w", backends: {eu: a, us: b}}
`

func load(t *testing.T, text string, environ ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, environ)
}

func TestAGoodConfiguration(t *testing.T) {
	c, err := load(t, good, "WRIT_AGENT_INTERVAL=2s", "WRIT_AGENT_QUORUM__ENDPOINTS=a:1, b:2", "WRIT_AGENT_FAILURES=5", "WRIT_CA=/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if c.Interval != 2*time.Second || len(c.Quorum.Endpoints) != 2 || c.Failures != 5 || c.Admin.Listen != defaultAdmin || !filepath.IsAbs(c.DataDir) {
		t.Errorf("%+v", c)
	}
	g, err := c.group("groups[0]", c.Groups[0])
	if err != nil || g.Probe == nil || len(g.Hooks) != 7 {
		t.Errorf("%d hooks, %v", len(g.Hooks), err)
	}
	c.Groups[0].Postgres.Hooks = []string{"drain", "promote"}
	g, err = c.group("groups[0]", c.Groups[0])
	if err != nil || len(g.Hooks) != 3 || g.Hooks[writv1.HookKind_HOOK_KIND_DRAIN] == nil {
		t.Errorf("%d hooks, %v", len(g.Hooks), err)
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	const hooks = "    hooks:\n"
	for _, c := range []struct{ old, new, want string }{
		{"name: agent-eu-1", "", "name: is \"\": use 1 to 64"},
		{"region: eu", "region: e/u", "region: is"},
		{"data_dir: data", "", "data_dir: is missing"},
		{"data_dir: data", "data_dri: data", "data_dri: is not a known key: did you mean data_dir?"},
		{"name: orders", "name: orders\n    postgress: {}", "groups[0].postgress: is not a known key: did you mean groups.postgres?"},
		{`endpoints: ["127.0.0.1:7411"]`, `endpoints: ["a"]`, "quorum.endpoints[0]"},
		{"insecure: true", "insecure: true, ca: x", "quorum.ca: is set together"},
		{"insecure: true", "insecure: false", "quorum.key: is missing"},
		{"region: eu", "region: eu\ninterval: 5", "has no unit"},
		{"region: eu", "region: eu\ninterval: 5ms", "interval: is 5ms"},
		{"region: eu", "region: eu\nfailures: -1", "failures: is -1"},
		{"region: eu", "region: eu\npeers: [{region: us, address: db}]", "peers[0].address"},
		{"region: eu", "region: eu\nlog: {level: loud}", "log.level"},
		{"region: eu", "region: eu\nadmin: {listen: here}", "admin.listen"},
		{"dsn: host=/tmp, ", "", "groups[0].postgres.dsn: is missing"},
		{"dsn: host=/tmp", "method: copy, dsn: host=/tmp", "groups[0].postgres.method"},
		{"dsn: host=/tmp", "fence: maybe, dsn: host=/tmp", "groups[0].postgres.fence"},
		{"keep_dir: kept", "keep_dir: pg/kept", "groups[0].postgres.keep_dir"},
		{"dsn: host=/tmp", "hooks: [shift], dsn: host=/tmp", "groups[0].postgres.hooks[0]"},
		{"kind: shift", "kind: move", "groups[0].hooks[0].kind"},
		{"kind: shift", "kind: drain", "groups[0].hooks[0].weights: is for shift alone"},
		{"kind: shift", "kind: shift\n        command: [a]", "groups[0].hooks[0]: has 2 of command"},
		{"backends: {eu: a, us: b}", "backends: {eu: a}", "groups[0].hooks[0].weights.backends"},
		{hooks, hooks + "      - kind: drain\n        url: ftp://x\n", "groups[0].hooks[0].url"},
		{hooks, hooks + "      - kind: drain\n        guard: http://x/\n", "groups[0].hooks[0].guard: is for verify alone"},
		{hooks, hooks + "      - kind: drain\n        command: [a]\n        env: [b]\n", "groups[0].hooks[0].env[0]"},
		{hooks, hooks + "      - kind: shift\n        command: [a]\n", "groups[0].hooks[1].kind: shift is there twice"},
		{hooks, "    drill: {hooks: [{kind: move, url: 'http://x/'}]}\n" + hooks, "groups[0].drill.hooks[0].kind"},
		{hooks, "    drill: {hooks: [{kind: drain}]}\n" + hooks, "groups[0].drill.hooks[0]: has 0 of command"},
		{hooks, "    config_files: [/does/not/exist]\n" + hooks, "groups[0].config_files[0]"},
		{"groups:\n", "groups:\n  - name: orders\n    probe: {command: [a]}\n", `groups[1].name: "orders" is there twice`},
		{"region: eu", "region: eu\n---\nx: y", "more than one YAML document"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("the good one lacks %q", c.old)
		}
		if _, err := load(t, strings.Replace(good, c.old, c.new, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.new, err, c.want)
		}
	}
	for _, c := range []struct{ variable, want string }{
		{"WRIT_AGENT_NAMES=x", "WRIT_AGENT_NAMES: is not a known key: did you mean WRIT_AGENT_NAME?"},
		{"WRIT_AGENT_GROUPS=x", "WRIT_AGENT_GROUPS: stands for a list of sections: write groups in the file"},
		{"WRIT_AGENT_FAILURES=many", "wrong type"},
	} {
		if _, err := load(t, good, c.variable); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.variable, err, c.want)
		}
	}
}

// Files may change, and go, while the agent runs.
func TestTheDigestIsOfTheFilesAsTheyAre(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pool: 10")
	g, err := (Config{}).group("groups[0]", Group{Name: "orders", Probe: Probe{Command: []string{"a"}}, ConfigFiles: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := g.Digest()
	if err != nil || first == "" {
		t.Fatalf("%q, %v", first, err)
	}
	write("pool: 20")
	if second, err := g.Digest(); err != nil || second == first {
		t.Errorf("after a change: %q, %v", second, err)
	}
	write("pool: 10")
	if third, err := g.Digest(); err != nil || third != first {
		t.Errorf("after it was taken back: %q, want %q, %v", third, first, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Digest(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without the file: %v", err)
	}
}

// In drills no hook is run but those that are made for them.
func TestHooksOfDrills(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if d, any, err := drill("groups[0]", c.Groups[0]); any || err != nil || len(d.Hooks) != 0 {
		t.Errorf("without hooks for drills: %v, %v", d, err)
	}
	c, err = load(t, strings.Replace(good, "    hooks:\n", "    drill: {hooks: [{kind: verify, guard: 'http://x/drill/orders'}]}\n    hooks:\n", 1))
	if err != nil {
		t.Fatal(err)
	}
	d, any, err := drill("groups[0]", c.Groups[0])
	if err != nil || !any || d.Name != "orders-drill" || d.Probe != nil || len(d.Hooks) != 1 || d.Hooks[writv1.HookKind_HOOK_KIND_VERIFY] == nil {
		t.Errorf("%+v, %v", d, err)
	}
}

// The example has every key, as a comment or not, and what it says is accepted.
func TestTheExample(t *testing.T) {
	if _, err := Parse([]byte(Example), nil); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, kind reflect.Type)
	walk = func(path string, kind reflect.Type) {
		for field := range kind.Fields() {
			name := field.Tag.Get("koanf")
			if !strings.Contains(Example, name+":") {
				t.Errorf("the example lacks %s%s", path, name)
			}
			inner := field.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(path+name+".", inner)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(Example))
	f.Add([]byte("groups: 5"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := Parse(data, nil); err == nil {
			_ = c.withDefaults().checkNames()
		}
	})
}
