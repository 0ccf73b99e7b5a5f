package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ-guard/sidecar"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// sourced answers what a shell makes of the env file in dir, as variables.
func sourced(t *testing.T, dir string) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1" && env`, "sh", filepath.Join(dir, devEnvFile)).Output()
	must(t, err)
	env := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "WRIT_") {
			env[name] = value
		}
	}
	return env
}

func clientOf(t *testing.T, env map[string]string) *lease.Client {
	t.Helper()
	c, err := lease.Dial(t.Context(), lease.Config{
		Endpoints: strings.Split(env["WRIT_ENDPOINTS"], ","), Region: env["WRIT_REGION"],
		CAFile: env["WRIT_CA"], CertFile: env["WRIT_CERT"], KeyFile: env["WRIT_KEY"], Insecure: env["WRIT_INSECURE"] == "true",
	})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// readyAfter logs how long a dev quorum took to start.
func readyAfter(t *testing.T, p *process) {
	t.Helper()
	p.says("Press Ctrl-C to stop")
	stdout, _ := p.output()
	found := regexp.MustCompile(`is ready after ([0-9.ms]+[ms]);`).FindStringSubmatch(stdout)
	if found == nil {
		t.Fatalf("does not say when it was ready: %s", stdout)
	}
	took, err := time.ParseDuration(found[1])
	must(t, err)
	t.Logf("ready after %v", took)
}

func TestDevKeepsItsDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "it's here")
	var last fence.Token
	var endpoints string
	for range 2 {
		p := run(t, nil, "dev", "--dir", dir, "--base-port", "0")
		readyAfter(t, p) // less than 5s where nothing else runs
		checkModes(t, dir)
		env := sourced(t, dir)
		if endpoints == "" {
			endpoints = env["WRIT_ENDPOINTS"]
		}
		if env["WRIT_ENDPOINTS"] != endpoints || env["WRIT_REGION"] != "eu" {
			t.Errorf("environment %v, endpoints were %s", env, endpoints)
		}
		hold, err := clientOf(t, env).Acquire(t.Context(), "a", lease.AcquireOptions{TTL: time.Second})
		must(t, err)
		if hold.Token() <= last {
			t.Errorf("token %v after %v", hold.Token(), last)
		}
		if holder := hold.Holder(); holder.Principal != "spiffe://writ.dev/user/dev" {
			t.Errorf("holder %v", holder)
		}
		last = hold.Token()
		checkHTTP(t, p, env)
		checkGuard(t, dir, strings.Split(endpoints, ","))
		p.signal(syscall.SIGINT)
		p.exits(0)
	}
	run(t, nil, "dev", "--dir", dir, "--regions", "eu,us").complains("--regions:", "was made with eu,us,ap")
	run(t, nil, "dev", "--dir", dir, "--base-port", "1").complains("--base-port:", "leave it out")
	run(t, nil, "dev", "--dir", dir, "--insecure").complains("--insecure:", "was made otherwise")
}

// checkModes checks that nobody but the owner can read a key.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	keys := 0
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the nodes run: a witness that is being written has another name at first
		}
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "-key.pem") || strings.Contains(path, keysDir+"/") {
			keys++
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		return nil
	}))
	if keys < 12 { // two authorities, two of each node, one of each node for writs, one of the user
		t.Errorf("%d keys were found", keys)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", dir, info.Mode(), err)
	}
}

// checkHTTP asks over REST as the printed curl command does.
func checkHTTP(t *testing.T, p *process, env map[string]string) {
	t.Helper()
	stdout, _ := p.output()
	url := regexp.MustCompile(`https?://\S+/v1/cluster/status`).FindString(stdout)
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(env["WRIT_CA"])
	must(t, err)
	pool.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(env["WRIT_CERT"], env["WRIT_KEY"])
	must(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Ready bool  `json:"ready"`
		Nodes []any `json:"nodes"`
	}
	raw, err := io.ReadAll(resp.Body)
	must(t, err)
	if err := json.Unmarshal(raw, &answer); err != nil || !answer.Ready || len(answer.Nodes) != 3 {
		t.Errorf("%s answers %s (%v)", url, raw, err)
	}
}

// checkGuard starts a guard with the configuration that was written, on other ports.
func checkGuard(t *testing.T, dir string, endpoints []string) {
	t.Helper()
	c, err := sidecar.Load(filepath.Join(dir, devGuardFile), nil)
	must(t, err)
	if !slices.Equal(c.Quorum.Endpoints, endpoints) || c.Region != "eu" || len(c.Routes) != 1 || c.Routes[0].Resource != devGuarded {
		t.Errorf("the configuration of the guard is %+v", c)
	}
	c.Listeners[0].Listen, c.Admin.Listen = devHost+":0", "off"
	s, err := sidecar.Start(c, sidecar.Options{Version: "test"})
	must(t, err)
	eventually(t, func() string {
		if err := s.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a guard that has just begun would wait for what one before it may have let through
	_ = s.Stop(ctx)
}

func TestDevInsecure(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	p := run(t, []string{"TMPDIR=" + temp}, "dev", "--base-port", "0", "--insecure", "--regions", "here")
	p.says("Press Ctrl-C to stop: everything goes with it")
	dirs, err := filepath.Glob(filepath.Join(temp, "*"))
	must(t, err)
	if len(dirs) != 1 {
		t.Fatalf("temporary directories %q", dirs)
	}
	env := sourced(t, dirs[0])
	if env["WRIT_INSECURE"] != "true" || env["WRIT_CA"] != "" {
		t.Errorf("environment %v", env)
	}
	_, err = clientOf(t, env).Acquire(t.Context(), "a", lease.AcquireOptions{})
	must(t, err)
	guard, err := sidecar.Load(filepath.Join(dirs[0], devGuardFile), nil)
	must(t, err)
	if !guard.Quorum.Insecure || guard.Quorum.CA != "" || guard.Region != "here" {
		t.Errorf("the configuration of the guard is %+v", guard.Quorum)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
	if left, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// Ports that are chosen can be listened on, are none of the kernel's own, and do not meet those of another region.
func TestFreePorts(t *testing.T) {
	lowest := 32768 // Linux's own default
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if n, err := strconv.Atoi(strings.Fields(string(text))[0]); err == nil {
			lowest = n
		}
	}
	if devFreeFirst+devFreeCount > lowest {
		t.Skipf("the kernel gives connections ports from %d on", lowest)
	}
	var taken []int
	for range 100 {
		first, err := freePorts(3, taken)
		must(t, err)
		if first < devFreeFirst || first+3 > lowest || slices.ContainsFunc(taken, func(port int) bool { return max(port-first, first-port) < 3 }) {
			t.Fatalf("port %d, with %v taken", first, taken)
		}
		must(t, portsFree(first, 3))
		taken = append(taken, first)
	}
}

func TestDevRefuses(t *testing.T) {
	t.Parallel()
	base, err := freePorts(3, nil)
	must(t, err)
	taken, err := net.Listen("tcp", devAddress(base+1))
	must(t, err)
	defer func() { _ = taken.Close() }()
	broken := t.TempDir()
	must(t, os.WriteFile(filepath.Join(broken, devPlanFile), []byte("{"), 0o600))
	for _, test := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--base-port", fmt.Sprint(base)}, []string{"--base-port:", "region eu", devAddress(base + 1), "address already in use", "choose other ports"}},
		{[]string{"--base-port", "65520"}, []string{"--base-port:", "leaves no ports for ap"}},
		{[]string{"--regions", "eu,eu"}, []string{"--regions:", `names "eu" twice`}},
		{[]string{"--regions", "ca"}, []string{"--regions:", `names "ca"`}},
		{[]string{"--regions", "../x"}, []string{"--regions:", `names "../x"`}},
		{[]string{"--dir", broken}, []string{"--dir", "cannot be read", "name an empty directory"}},
		{[]string{"--dir", "/proc/nowhere"}, []string{"--dir:", "name a directory that can be made"}},
		{[]string{"--demo", "--dir", broken}, []string{"--dir:", "leave it out"}},
		{[]string{"--demo", "--regions", "eu,us"}, []string{"--regions:", "name three"}},
		{[]string{"--no-postgres"}, []string{"--no-postgres:", "add --demo"}},
		{[]string{"--regions", devGuardDir}, []string{"--regions:", `names "guard-floors"`}},
	} {
		run(t, nil, append([]string{"dev"}, test.args...)...).complains(test.words...)
	}
}
