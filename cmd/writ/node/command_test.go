package node

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// configFile writes the configuration of node i for a process.
func (c *testCluster) configFile(i int) string {
	c.t.Helper()
	config := c.configs[i]
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nregion: %s\ncluster: %s\ndata_dir: %s\ninsecure: true\npolicy_file: %s\n", config.Name, config.Region, config.Cluster, config.DataDir, config.PolicyFile)
	fmt.Fprintf(&b, "heartbeat: %v\nelection: %v\n", config.Heartbeat, config.Election)
	fmt.Fprintf(&b, "api: {listen: %s}\nhttp: {listen: %s}\npeer: {listen: %s}\n", config.API.Listen, config.HTTP.Listen, config.Peer.Listen)
	b.WriteString("bootstrap:\n  members:\n")
	for name, peer := range config.Bootstrap.Members {
		fmt.Fprintf(&b, "    %s: %s\n", name, peer)
	}
	path := filepath.Join(c.dir, config.Name+".yaml")
	must(c.t, os.WriteFile(path, []byte(b.String()), 0o600))
	return path
}

// serves waits until the process's node is ready.
func (c *testCluster) serves(i int) {
	c.t.Helper()
	eventually(c.t, func() string {
		resp, err := http.Get("http://" + c.configs[i].HTTP.Listen + "/readyz")
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
}

func TestServerProcess(t *testing.T) {
	c := newCluster(t, 1)
	config := c.configFile(0)
	p := run(t, nil, "server", "--config", config)
	c.serves(0)
	c.acquire(0, "a")

	run(t, nil, "server", "--config", config).complains("data_dir:", c.configs[0].DataDir, "another running node's")
	run(t, nil, "quorum", "restore", "--config", config, "--from-data", c.configs[0].DataDir).complains("another running node's")
	run(t, []string{"WRIT_SERVER_DATA_DIR=" + t.TempDir()}, "server", "--config", config).complains("api.listen: address already in use")

	must(t, os.WriteFile(c.configs[0].PolicyFile, []byte("grants: []\n"), 0o600))
	p.signal(syscall.SIGHUP)
	p.says("policy reloaded")
	_, err := c.leases(0).Acquire(t.Context(), &writv1.AcquireRequest{Resource: "b", Ttl: durationpb.New(longestTTL)})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("after a policy that allows nothing: %v", err)
	}
	must(t, os.WriteFile(c.configs[0].PolicyFile, []byte("grants: {\n"), 0o600))
	p.signal(syscall.SIGHUP)
	p.says("the old policy stays")

	p.signal(syscall.SIGTERM)
	p.exits(0)
	if stdout, _ := p.output(); stdout != "" {
		t.Errorf("a server wrote %q to stdout", stdout)
	}
}

// What a process that is killed leaves behind is always good for a start.
func TestKilledServer(t *testing.T) {
	c := newCluster(t, 1)
	config := c.configFile(0)
	for round := range 6 {
		p := run(t, nil, "server", "--config", config)
		c.acquire(0, fmt.Sprint("a", round))
		client := c.leases(0)
		busy, stop := context.WithCancel(t.Context())
		for n := range 4 {
			go func() { // ends with busy
				for m := 0; busy.Err() == nil; m++ {
					_, _ = client.Acquire(busy, &writv1.AcquireRequest{Resource: fmt.Sprint(round, "/", n, "/", m), Ttl: durationpb.New(longestTTL)})
				}
			}()
		}
		for n := range 10 * (round + 1) {
			c.acquire(0, fmt.Sprint("b", round, "/", n))
		}
		p.signal(syscall.SIGKILL)
		p.exit()
		stop()
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	c := newCluster(t, 1)
	p := run(t, nil, "server", "--config", c.configFile(0))
	c.serves(0)
	// A request that does not come to its end holds the stop up.
	conn, err := net.Dial("tcp", c.configs[0].HTTP.Listen)
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("POST /v1/leases/a:acquire HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n{"))
	must(t, err)
	// The handler is at work when it asks for the body.
	line, err := bufio.NewReader(conn).ReadString('\n')
	must(t, err)
	if line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("answered with %q", line)
	}
	p.signal(syscall.SIGTERM)
	p.says("a second signal stops at once")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			p.signal(syscall.SIGTERM)
		case <-p.exited:
			running = false
		}
	}
	p.complains("stopped at once by a second signal")
	// And it starts again from what that left.
	p = run(t, nil, "server", "--config", c.configFile(0))
	c.serves(0)
	p.signal(syscall.SIGINT)
	p.exits(0)
}

// A node that is asked to end while it waits for others ends in order: nothing has failed.
func TestSignalBreaksOffTheStart(t *testing.T) {
	c := newCluster(t, 2)
	silent, err := net.Listen("tcp", strings.TrimPrefix(c.configs[1].Bootstrap.Members[c.configs[1].Name], "http://"))
	must(t, err)
	defer func() { _ = silent.Close() }()
	path := c.configFile(0)
	config, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, append(config, "  join: true\n"...), 0o600))
	p := run(t, nil, "server", "--config", path)
	asked, err := silent.Accept() // what it asks is never answered
	must(t, err)
	defer func() { _ = asked.Close() }()
	p.signal(syscall.SIGTERM)
	p.says("stopped before the node was running")
	p.exits(0)
}

func TestServerExample(t *testing.T) {
	t.Parallel()
	p := run(t, nil, "server", "--example")
	p.exits(0)
	if stdout, _ := p.output(); stdout != exampleYAML {
		t.Errorf("got %q", stdout)
	}
	run(t, nil, "server").complains("name the file with --config")
}

func TestRestoreProcess(t *testing.T) {
	c := newCluster(t, 1)
	config := c.configFile(0)
	p := run(t, nil, "server", "--config", config)
	c.acquire(0, "a")
	backup := c.snapshot(0)
	c.acquire(0, "b")
	p.signal(syscall.SIGKILL)
	p.exit()
	p = run(t, nil, "quorum", "restore", "--config", config, "--snapshot", backup)
	p.exits(0)
	p.says("restored from " + filepath.Base(backup))
	p.says("remembers epoch 1")
	p.says(replacedDir + "1")
	run(t, nil, "server", "--config", config)
	for _, resource := range []string{"a", "b"} {
		if token := c.acquire(0, resource); token.Epoch() != 2 {
			t.Errorf("token %v, want one of epoch 2", token)
		}
	}
}
