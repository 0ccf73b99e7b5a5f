package etcd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
)

// listening answers the TCP ports that this process listens on.
func listening(t *testing.T) map[int]bool {
	t.Helper()
	inodes := map[string]bool{}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(links) == 0 {
		t.Skip("no /proc")
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				inodes[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	ports := map[int]bool{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != "0A" || !inodes[fields[9]] {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseInt(hex, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			ports[int(port)] = true
		}
	}
	return ports
}

func TestOnlyThePeerPortListens(t *testing.T) {
	before := listening(t)
	m := newCluster(t, 1).members[0]
	claim(t, m)
	peer := m.PeerAddr().(*net.TCPAddr).Port
	after := listening(t)
	if !after[peer] {
		t.Errorf("the peer port %d does not listen", peer)
	}
	for port := range after {
		if !before[port] && port != peer {
			t.Errorf("port %d listens beside the peer port %d", port, peer)
		}
	}
}

// What is served to peers is raft, and nothing that reads or writes keys.
func TestThePeerPortServesNoClients(t *testing.T) {
	m := newCluster(t, 1).members[0]
	for path, want := range map[string]int{
		"/v3/kv/range": http.StatusNotFound, "/v2/keys": http.StatusNotFound, "/health": http.StatusNotFound,
		"/metrics": http.StatusNotFound, "/debug/vars": http.StatusNotFound, "/version": http.StatusOK,
	} {
		response, err := http.Get(m.cfg.ListenPeerURL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s answers %d, want %d", path, response.StatusCode, want)
		}
	}
}

func TestThePeerPortRefusesAddressesThatEtcdPanicsOver(t *testing.T) {
	m := newCluster(t, 1).members[0]
	request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, m.cfg.ListenPeerURL+"/raft/stream/message/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Etcd-Cluster-ID", fmt.Sprintf("%x", m.ClusterID()))
	request.Header.Set("X-Server-From", "1")
	request.Header.Set("X-PeerURLs", "not a url")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("answers %d", response.StatusCode)
	}
	claim(t, m) // it still lives
}

func TestOpenRefuses(t *testing.T) {
	running := newCluster(t, 1).members[0]
	base := configs(t, 1)[0]
	notDir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stopped := newCluster(t, 1)
	foreign := stopped.configs[0].DataDir
	stopped.closeAll()
	for name, test := range map[string]struct {
		change func(*Config)
		field  string
		want   string
		is     error
	}{
		"a directory in use": {func(c *Config) { c.DataDir = running.cfg.DataDir }, "data_dir", "in use by another node", ErrLocked},
		"a port in use": {func(c *Config) {
			c.ListenPeerURL, c.AdvertisePeerURL = running.cfg.ListenPeerURL, running.cfg.ListenPeerURL
			c.InitialCluster = map[string]string{c.Name: c.ListenPeerURL}
		}, "peer.listen", "address already in use", nil},
		"a foreign address": {func(c *Config) {
			c.AdvertisePeerURL, c.ListenPeerURL = c.ListenPeerURL, "http://192.0.2.1:7413"
		}, "peer.listen", "cannot assign requested address", nil},
		"a file":            {func(c *Config) { c.DataDir = notDir }, "data_dir", "is not a directory", nil},
		"below a file":      {func(c *Config) { c.DataDir = filepath.Join(notDir, "data") }, "data_dir", "is not a directory", nil},
		"where none may be": {func(c *Config) { c.DataDir = "/proc/writ" }, "data_dir", "/proc/writ", nil},
		"another node's": {func(c *Config) {
			c.DataDir, c.Name = foreign, "other"
			c.InitialCluster = map[string]string{"other": c.ListenPeerURL}
		}, "data_dir", `belongs to node "n0"`, ErrForeign},
		"nobody to join": {func(c *Config) { c.Join = true }, "initial_cluster", "must name the running members", nil},
		"a cluster that is not there": {func(c *Config) {
			c.Join = true
			c.InitialCluster = map[string]string{c.Name: c.ListenPeerURL, "gone": freeURLs(t, "http", 1)[0]}
		}, "initial_cluster", "must be running", nil},
		"a cluster that does not know it": {func(c *Config) {
			c.Join, c.Name = true, "n9"
			c.InitialCluster = map[string]string{"n9": c.ListenPeerURL, "n0": running.cfg.ListenPeerURL}
		}, "initial_cluster", "must have added this member", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base
			cfg.DataDir = filepath.Join(t.TempDir(), "data")
			test.change(&cfg)
			m, err := Open(testContext(t), cfg)
			if err == nil {
				_ = m.Close()
				t.Fatal("opened")
			}
			config := (*ConfigError)(nil)
			if !errors.As(err, &config) || config.Field != test.field {
				t.Errorf("got %v, want field %s", err, test.field)
			}
			if !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %q and %v", err, test.want, test.is)
			}
		})
	}
	claim(t, running) // which did not suffer
}

func TestReopen(t *testing.T) {
	c := newCluster(t, 1)
	commit(t, c.members[0], claim(t, c.members[0]), write("a", "1"))
	id := c.members[0].ID()
	c.closeAll()
	c.start()
	if got := load(t, c.members[0]); got["a"] != "1" || c.members[0].ID() != id {
		t.Errorf("member %x came back as %x with %v", id, c.members[0].ID(), got)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	before := goroutines() // of members that other tests made fail
	c := newCluster(t, 3)
	m := c.leader()
	term := claim(t, m)
	ended := make(chan error, 2)
	go func() { ended <- m.Watch(context.Background(), 1, func(quorum.Change) bool { return true }) }()
	go func() {
		for {
			if _, err := m.Commit(context.Background(), term, nil); err != nil {
				ended <- err
				return
			}
		}
	}()
	reader, _, err := m.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, changed := m.Leadership()
	c.closeAll()
	for range 2 {
		// A commit may also be dropped while leadership is handed over.
		if err := <-ended; !errors.Is(err, ErrStopped) && !errors.Is(err, quorum.ErrUnknown) {
			t.Errorf("a call ended with %v, want ErrStopped or ErrUnknown", err)
		}
	}
	if _, err := io.ReadAll(reader); err == nil {
		t.Error("a snapshot that was not read before Close has an end")
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	wait(t, changed, "leadership is given up")
	if leads, _ := m.Leadership(); leads {
		t.Error("a closed member leads")
	}
	if err := errors.Join(m.Close(), m.Err()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := m.Head(context.Background()); !errors.Is(err, ErrStopped) || !errors.Is(err, quorum.ErrUnknown) {
		t.Errorf("head of a closed member: %v", err)
	}
	_ = m.Progress()
	_ = m.Members()
	http.DefaultClient.CloseIdleConnections()
	var left map[string]string
	defer func() {
		if t.Failed() {
			t.Log(left)
		}
	}()
	eventually(t, "no goroutine of a member is left", func() bool {
		left = goroutines()
		maps.DeleteFunc(left, func(id, _ string) bool { _, old := before[id]; return old })
		return len(left) == 0
	})
}

// goroutines answers the stacks of those that run code of a member, by their id.
func goroutines() map[string]string {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	out := map[string]string{}
	for _, stack := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(stack, "testing.tRunner") || strings.Contains(stack, "testing.(*T).Run") {
			continue
		}
		id, _, _ := strings.Cut(stack, " [")
		if strings.Contains(stack, "go.etcd.io/") || strings.Contains(stack, "quorum/etcd.") {
			out[id] = stack
		}
	}
	return out
}

// A start that waits for peers which accept but do not answer ends with its context.
func TestOpenEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := configs(t, 1)[0]
	cfg.Join = true
	cfg.InitialCluster = map[string]string{cfg.Name: cfg.ListenPeerURL, "silent": "http://" + silent.Addr().String()}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if m, err := Open(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("opened %v, %v", m, err)
	}
	u, err := url.Parse(cfg.ListenPeerURL)
	if err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", u.Host)
	if err != nil {
		t.Fatalf("the peer port is still taken: %v", err)
	}
	_ = errors.Join(again.Close(), silent.Close())
	eventually(t, "the directory is let go", func() bool {
		lock, err := lockDir(cfg.DataDir)
		return err == nil && lock.release() == nil
	})
}
