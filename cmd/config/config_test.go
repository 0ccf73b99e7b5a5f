package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var sample = Format{Prefix: "WRIT_SAMPLE_", First: "name: a", Example: "sample --example"}

// limits is embedded, as the limits of another package are.
type limits struct {
	MaxOpen int `koanf:"max_open"`
}

type item struct {
	Path string `koanf:"path"`
	TLS  struct {
		Cert string `koanf:"cert"`
	} `koanf:"tls"`
	Inner []struct {
		Depth int `koanf:"depth"`
	} `koanf:"inner"`
}

type sampleConfig struct {
	Name   string            `koanf:"name"`
	Wait   time.Duration     `koanf:"wait"`
	Rate   float64           `koanf:"rate"`
	On     bool              `koanf:"on"`
	Mode   string            `koanf:"mode"`
	UIDs   []uint32          `koanf:"uids"`
	Names  []string          `koanf:"names"`
	Of     map[string]string `koanf:"of"`
	Hidden chan int          `koanf:"-"`
	Deep   struct {
		Wait   time.Duration `koanf:"wait"`
		limits `koanf:",squash"`
		Deeper struct {
			File string `koanf:"file"`
		} `koanf:"deeper"`
	} `koanf:"deep"`
	Items []item `koanf:"items"`
}

func parse(text string, environ ...string) (sampleConfig, error) {
	return Parse[sampleConfig](sample, []byte(text), environ)
}

func TestKeysAreThoseOfTheStruct(t *testing.T) {
	want := []string{
		"deep", "deep.deeper", "deep.deeper.file", "deep.max_open", "deep.wait", "items", "items.inner", "items.inner.depth", "items.path",
		"items.tls", "items.tls.cert", "mode", "name", "names", "of", "on", "rate", "uids", "wait",
	}
	if got := Keys[sampleConfig](); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Each kind of key means the same in a file and in the environment.
func TestFileAndEnvironmentSayTheSame(t *testing.T) {
	fromFile, err := parse(`
name: "1"
wait: 5s
rate: 0.5
on: true
mode: "0600"
uids: [0, 1000]
names: [a, "2"]
of: {eu.1: "http://a=b", us: c}
deep: {wait: 1m, max_open: 7, deeper: {file: x}}
`)
	if err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"WRIT_SAMPLE_NAME=1", "WRIT_SAMPLE_WAIT=5s", "WRIT_SAMPLE_RATE=0.5", "WRIT_SAMPLE_ON=true", "WRIT_SAMPLE_MODE=0600",
		"WRIT_SAMPLE_UIDS= 0, 1000,", "WRIT_SAMPLE_NAMES=a,2", "WRIT_SAMPLE_OF= eu.1 = http://a=b, us=c", "WRIT_SAMPLE_DEEP__WAIT=1m",
		"WRIT_SAMPLE_DEEP__MAX_OPEN=7", "WRIT_SAMPLE_DEEP__DEEPER__FILE=x", "WRIT_OTHER=1", "HOME=/",
	}
	for _, text := range []string{"", "name: z\nuids: [5, 6, 7]\nof: {asia: d}\ndeep: {wait: 1s}\n"} {
		got, err := parse(text, environ...)
		if err != nil || !reflect.DeepEqual(got, fromFile) {
			t.Errorf("over %q: %+v, %v\nwant %+v", text, got, err, fromFile)
		}
	}
	if fromFile.Wait != 5*time.Second || fromFile.Of["eu.1"] != "http://a=b" || fromFile.Deep.MaxOpen != 7 || fromFile.UIDs[1] != 1000 {
		t.Errorf("%+v", fromFile)
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for _, c := range []struct{ name, text, environ, want string }{
		{"misspelt", "namme: a", "", "namme: is not a known key: did you mean name?"},
		{"misspelt in a section", "deep: {wiat: 1s}", "", "deep.wiat: is not a known key: did you mean deep.wait?"},
		{"misspelt section", "deap: {wait: 1s}", "", "deap: is not a known key: did you mean deep?"},
		{"misspelt in an embedded one", "deep: {max_opn: 1}", "", "deep.max_opn: is not a known key: did you mean deep.max_open?"},
		{"misspelt in a list", "items: [{}, {pth: a}]", "", "items[1].pth: is not a known key: did you mean items.path?"},
		{"deeper in a list", "items: [{inner: [{dept: 1}]}]", "", "items[0].inner[0].dept: is not a known key: did you mean items.inner.depth?"},
		{"in the wrong place", "max_open: 1", "", "max_open: is not a known key: did you mean deep.max_open?"},
		{"strange", "colour: red", "", "colour: is not a known key: remove it; sample --example shows every key"},
		{"hidden", "Hidden: 1", "", "Hidden: is not a known key"},
		{"other case", "Name: a", "", "Name: is not a known key: did you mean name?"},
		{"without a unit", "wait: 5", "", "5 has no unit"},
		{"no duration", "wait: soon", "", `"soon" is no duration`},
		{"wrong type", "deep: {max_open: many}", "", "has a value of the wrong type"},
		{"wrong type, fix", "rate: x", "", "compare it with: sample --example"},
		{"list", "- a", "", `is not a YAML mapping`},
		{"list, fix", "- a", "", `write keys at the top, such as "name: a"`},
		{"two documents", "name: a\n---\nname: b", "", "more than one YAML document"},
		{"variable", "", "WRIT_SAMPLE_UIDZ=a", "WRIT_SAMPLE_UIDZ: is not a known key: did you mean WRIT_SAMPLE_UIDS?"},
		{"variable of a section", "", "WRIT_SAMPLE_DEEP__WIAT=1s", "did you mean WRIT_SAMPLE_DEEP__WAIT?"},
		{"variable that is a section", "", "WRIT_SAMPLE_DEEP=1", "WRIT_SAMPLE_DEEP: is not a known key"},
		{"variable like a key of a list", "", "WRIT_SAMPLE_COLOURS__PATH=x", "WRIT_SAMPLE_COLOURS__PATH: is not a known key: remove it"},
		{"variable that is a list", "", "WRIT_SAMPLE_ITEMS=a", "WRIT_SAMPLE_ITEMS: stands for a list of sections: write items in the file"},
		{"variable in a list", "", "WRIT_SAMPLE_ITEMS__TLS__CERT=a", "WRIT_SAMPLE_ITEMS__TLS__CERT: stands for a list of sections: write items in the file"},
		{"variable of a map", "", "WRIT_SAMPLE_OF=a", `WRIT_SAMPLE_OF: holds "a": write name=value,name=value`},
		{"variable of a wrong type", "", "WRIT_SAMPLE_ON=maybe", "has a value of the wrong type"},
		{"variable that is no YAML", "", "WRIT_SAMPLE_RATE=[", "has a value of the wrong type"},
		{"service of Kubernetes", "", "WRIT_SAMPLE_SERVICE_HOST=1", "WRIT_SAMPLE_SERVICE_HOST: is not a known key: Kubernetes sets it"},
		{"port of Kubernetes", "", "WRIT_SAMPLE_PORT_1_TCP=1", "Kubernetes sets it"},
	} {
		var environ []string
		if c.environ != "" {
			environ = []string{c.environ}
		}
		_, err := parse(c.text, environ...)
		var named *Error
		if !errors.As(err, &named) || named.Field == "" || named.Fix == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant …%s", c.name, err, c.want)
		}
	}
	if _, err := parse("namme: a\ncolour: b", "WRIT_SAMPLE_X=1"); err == nil || strings.Count(err.Error(), "known key") != 1 {
		t.Errorf("the environment is judged first: %v", err)
	}
	if _, err := parse("namme: a\ncolour: b"); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not all that is wrong is told: %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sample.yaml")
	finish := func(c *sampleConfig, dir string) error {
		Resolve(dir, &c.Name, &c.Mode, &c.Deep.Deeper.File)
		return nil
	}
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("name: a\ndeep: {deeper: {file: /b}}\n"))
	c, err := Load(sample, path, nil, finish)
	if err != nil || c.Name != filepath.Join(dir, "a") || c.Mode != "" || c.Deep.Deeper.File != "/b" {
		t.Errorf("%+v, %v", c, err)
	}
	refused := errors.New("no good")
	if c, err := Load(sample, path, nil, func(*sampleConfig, string) error { return refused }); !errors.Is(err, refused) || c.Name != "" ||
		err.Error() != "configuration "+path+": no good" {
		t.Errorf("%+v, %v", c, err)
	}
	write(make([]byte, maxBytes+1))
	if _, err := Load(sample, path, nil, finish); err == nil || !strings.Contains(err.Error(), "larger than") || !strings.Contains(err.Error(), path) {
		t.Errorf("a huge file: %v", err)
	}
	if _, err := Load(sample, path+".not", nil, finish); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := Load(sample, "", nil, finish); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("no name: %v", err)
	}
}

func TestCheckFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		secret bool
		want   string
	}{
		{path, false, ""},
		{path, true, "tls.key: " + path + " has mode 0644, which lets others in: chmod 600 " + path},
		{dir, false, "is not a regular file: name a file"},
		{path + ".not", false, "no such file or directory: name a file that this process may read"},
	} {
		if err := CheckFile("tls.key", c.path, c.secret); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: a\ndeep: {wait: 1s}"), "WRIT_SAMPLE_OF", "a=b,c=d")
	f.Add([]byte("items: [{}, null, 1]\nof: []"), "WRIT_SAMPLE_", "")
	f.Add([]byte("? [a]\n: b\n"), "WRIT_SAMPLE___", "{")
	f.Add([]byte("a: &a [*a]\n"), "WRIT_SAMPLE_RATE", "!!binary x")
	f.Fuzz(func(t *testing.T, data []byte, name, value string) {
		_, err := parse(string(data), name+"="+value)
		var named *Error
		if err != nil && (!errors.As(err, &named) || named.Field == "" || named.Fix == "") {
			t.Fatalf("%v names no field or no fix", err)
		}
	})
}
