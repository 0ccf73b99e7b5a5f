package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// timing is what both sides run with.
type timing struct{ heartbeat, election time.Duration }

var (
	steady = timing{100 * time.Millisecond, time.Second}
	quick  = timing{50 * time.Millisecond, 500 * time.Millisecond}
)

// cluster is three server processes.
type cluster struct {
	kind      string // etcd or writ
	dir       string
	timing    timing
	client    [3]string // host:port that clients dial
	peer      [3]string
	http      [3]string // writ only
	processes [3]*exec.Cmd
	bin       string
}

var regions = [3]string{"eu", "us", "ap"}

func startCluster(ctx context.Context, o options, kind string, tm timing) (*cluster, error) {
	dir, err := os.MkdirTemp(o.dir, kind+"-")
	if err != nil {
		return nil, err
	}
	c := &cluster{kind: kind, dir: dir, timing: tm, bin: filepath.Join(o.dir, kind)}
	if o.base != "" {
		c.kind = "writ"
	}
	for i := range 3 {
		for _, slot := range []*string{&c.client[i], &c.peer[i], &c.http[i]} {
			if *slot, err = freeAddress(); err != nil {
				return nil, err
			}
		}
	}
	for i := range 3 {
		if err := c.start(i); err != nil {
			c.stop()
			return nil, err
		}
	}
	return c, nil
}

// freeAddress answers an address that nobody listens on. It is below the ports that the kernel gives to connections: one of
// those could be taken again before the server has it.
func freeAddress() (string, error) {
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(15_000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		last = err
	}
	return "", last
}

func (c *cluster) start(i int) error {
	dir := filepath.Join(c.dir, regions[i])
	var args []string
	if c.kind == "etcd" {
		var initial []string
		for j := range 3 {
			initial = append(initial, regions[j]+"=http://"+c.peer[j])
		}
		args = []string{
			"--name", regions[i], "--data-dir", dir, "--log-level", "error",
			"--listen-client-urls", "http://" + c.client[i], "--advertise-client-urls", "http://" + c.client[i],
			"--listen-peer-urls", "http://" + c.peer[i], "--initial-advertise-peer-urls", "http://" + c.peer[i],
			"--initial-cluster", strings.Join(initial, ","),
			"--heartbeat-interval", strconv.FormatInt(c.timing.heartbeat.Milliseconds(), 10),
			"--election-timeout", strconv.FormatInt(c.timing.election.Milliseconds(), 10),
		}
	} else {
		path := filepath.Join(c.dir, regions[i]+".yaml")
		if err := os.WriteFile(path, []byte(c.writConfig(i, dir)), 0o600); err != nil {
			return err
		}
		args = []string{"server", "--config", path}
	}
	log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(c.bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	c.processes[i] = cmd
	return cmd.Start()
}

func (c *cluster) writConfig(i int, dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nregion: %s\ncluster: bench\ndata_dir: %s\ninsecure: true\n", regions[i], regions[i], dir)
	fmt.Fprintf(&b, "api: {listen: %q}\nhttp: {listen: %q}\n", c.client[i], c.http[i])
	fmt.Fprintf(&b, "peer: {listen: %q}\nheartbeat: %s\nelection: %s\nrtt: 1ms\n", c.peer[i], c.timing.heartbeat, c.timing.election)
	b.WriteString("log: {level: warn}\nbootstrap:\n  members:\n")
	for j := range 3 {
		fmt.Fprintf(&b, "    %s: http://%s\n", regions[j], c.peer[j])
	}
	return b.String()
}

func (c *cluster) kill(i int) error {
	if err := c.processes[i].Process.Kill(); err != nil {
		return err
	}
	_ = c.processes[i].Wait()
	c.processes[i] = nil
	return nil
}

func (c *cluster) stop() {
	for i, p := range c.processes {
		if p != nil && p.Process != nil {
			_ = c.kill(i)
		}
	}
	_ = os.RemoveAll(c.dir)
}

// cpu is the processor time that the servers have used.
func (c *cluster) cpu() (time.Duration, error) {
	var total time.Duration
	for _, p := range c.processes {
		used, err := processCPU(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// processCPU reads user and system time from /proc, in ticks of 10 ms.
func processCPU(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("unreadable /proc/pid/stat")
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// metric reads one unlabelled sample from a Writ node's /metrics.
func (c *cluster) metric(ctx context.Context, i int, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.http[i]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}
