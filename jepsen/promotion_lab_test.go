//go:build linux

package jepsen_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/jackc/pgx/v5"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/netns"
	"github.com/writ-io/writ/region/approval"
)

const (
	// promotionLease and promotionSlack are G and W of what an unreachable guard is waited for.
	promotionLease, promotionSlack = 2 * time.Second, time.Second

	opsParty    = "ops"    // who types commands; it is never cut off
	clientParty = "client" // the writer outside of the regions; nor is it
)

// approverNames are people who approve. Each has an OpenSSH key.
var approverNames = []string{"ann", "bob"}

// promotionLab is two regions with a real PostgreSQL server, an application before it, a guard before that, and an agent; three
// nodes, in these regions and a third one with a witness. A region is a network namespace.
type promotionLab struct {
	*testing.T
	dir       string
	writ      string
	net       *netns.Net
	nodes     *cluster.Cluster
	set       *cluster.Processes
	databases map[string]*database
	fronts    map[string]string
	book      *ordersBook
	gone      map[string]bool // what tails have listed so far
	admin     []*grpc.ClientConn
}

// startPromotionLab builds it and waits until orders are taken. It is torn down when the test ends.
func startPromotionLab(t *testing.T) *promotionLab {
	t.Helper()
	if err := netns.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	l := &promotionLab{T: t, dir: keptDirectory(t), fronts: make(map[string]string), gone: make(map[string]bool), book: &ordersBook{rows: make(map[string]acked)}}
	var err error
	if l.writ, err = binary(); err != nil {
		t.Fatal(err)
	}
	guard, err := guardBinary()
	if err != nil {
		t.Fatal(err)
	}
	if l.net, err = netns.New(append([]string{opsParty, clientParty}, cluster.Regions[:]...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.net.Close(); err != nil {
			t.Error(err)
		}
	})
	l.databases = newDatabases(t, l.dir, l.net, "eu", "us")
	l.set = cluster.NewProcesses()
	t.Cleanup(l.set.Close)
	eu, us := l.databases["eu"], l.databases["us"]
	eu.create()
	l.fenceOrders(eu)
	us.copyOf(eu)
	l.startQuorum()
	l.must("group", "apply", "-f", l.write("orders.yaml", groupFile))
	for _, region := range []string{"eu", "us"} {
		l.startGuard(region, guard)
		l.startOrders(region)
	}
	for _, region := range cluster.Regions {
		l.startAgent(region)
	}
	return l
}

// groupFile is the group. Its loss is told in bytes: after a failover nobody can tell the time.
const groupFile = `name: orders
regions:
  - {name: eu, role: primary, priority: 10, agent: "spiffe://jepsen.test/agent-eu", guards: [g-eu], writers: ["spiffe://jepsen.test/writer"]}
  - {name: us, role: standby, priority: 5, agent: "spiffe://jepsen.test/agent-us", guards: [g-us], writers: ["spiffe://jepsen.test/writer"]}
  - {name: ap, role: witness, agent: "spiffe://jepsen.test/agent-ap"}
rpo: {bytes: 1048576}
hooks:
  - {kind: drain}
  - {kind: undrain, optional: true}
  - {kind: promote, timeout: 60s}
  - {kind: demote}
  - {kind: verify}
  - {kind: reinstate, timeout: 100s}
`

func (l *promotionLab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *promotionLab) write(name, text string) (path string) {
	l.Helper()
	if err := os.WriteFile(l.path(name), []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
	return l.path(name)
}

// fenceOrders makes the table.
func (l *promotionLab) fenceOrders(d *database) {
	l.Helper()
	d.exec("create table orders (id text primary key)")
	conn, err := pgx.Connect(l.Context(), d.dsn())
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := pgfence.Install(l.Context(), conn, pgfence.Installation{Resource: ordersGroup, Tables: []string{"orders"}}); err != nil {
		l.Fatal(err)
	}
}

// startQuorum starts the nodes, who know of both people.
func (l *promotionLab) startQuorum() {
	l.Helper()
	approvers := "approvers:\n"
	for _, person := range approverNames {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", l.path(person)).CombinedOutput(); err != nil {
			l.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		public, err := os.ReadFile(l.path(person) + ".pub")
		if err != nil {
			l.Fatal(err)
		}
		approvers += fmt.Sprintf("  - {name: %s, keys: [%q]}\n", person, strings.TrimSpace(string(public)))
	}
	l.write("approvers.yaml", approvers+"rule: {people: 2}\n")
	config := cluster.Config{
		Binary: l.writ, Dir: l.dir, Secure: true, GuardLease: promotionLease, Approvers: l.path("approvers.yaml"),
		Identities: map[string][]string{
			"ops": {"read", "promote", "group", "audit"}, "writer": {"read", "acquire"},
			"agent-eu": {"agent", "read"}, "agent-us": {"agent", "read"}, "agent-ap": {"agent", "read"},
		},
		Command: func(i int, path string, args ...string) *exec.Cmd {
			return l.net.Command(cluster.Regions[i], path, args...)
		},
		Dialer: l.net.Dial(opsParty),
	}
	for _, name := range cluster.Regions {
		config.Addresses = append(config.Addresses, l.net.Address(name))
	}
	ctx, cancel := context.WithTimeout(l.Context(), patience)
	defer cancel()
	var err error
	if l.nodes, err = cluster.Start(ctx, config); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := l.nodes.Check(); err != nil {
			l.Error(err)
		}
		l.nodes.Close()
		if l.Failed() {
			l.Log(l.nodes.Logs(25))
		}
	})
	l.admin = l.dial(opsParty, "ops", 2, 1, 0)
}

// dial connects to nodes as an identity, from a party.
func (l *promotionLab) dial(party, identity string, nodes ...int) []*grpc.ClientConn {
	l.Helper()
	var conns []*grpc.ClientConn
	for _, i := range nodes {
		conn, err := l.nodes.DialAs(i, identity, l.net.Dial(party))
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// start starts a program that is to run until the test ends.
func (l *promotionLab) start(name string, command func() (*exec.Cmd, error)) {
	l.Helper()
	p := &cluster.Program{Name: name, Command: command, Log: l.path(name + ".log"), Processes: l.set}
	if err := p.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := p.Check(); err != nil {
			l.Error(err)
		}
		if l.Failed() {
			data, err := os.ReadFile(p.Log)
			l.Logf("--- %s, its last lines (%v)\n%s", name, err, data[max(0, len(data)-3000):])
		}
	})
}

// quorumSection is that of the configurations of guards and agents, nearest node first.
func (l *promotionLab) quorumSection(region, identity string) string {
	client := l.nodes.Client()
	if identity != "" {
		client = l.nodes.ClientOf(identity)
	}
	near := []string{l.net.Address(region) + ":7411"}
	for _, e := range client.Endpoints {
		if e != near[0] {
			near = append(near, e)
		}
	}
	return fmt.Sprintf("quorum: {endpoints: [%s], ca: %q, cert: %q, key: %q}\n", strings.Join(near, ", "), client.CAFile, client.CertFile, client.KeyFile)
}

func (l *promotionLab) startGuard(region, binary string) {
	l.Helper()
	name, listen := "g-"+region, l.net.Address(region)+":"+lab.GuardPort
	path := l.write(name+".yaml", fmt.Sprintf("name: %s\nregion: %s\ndata_dir: %s\nslack: %v\n%s", name, region, name, promotionSlack, l.quorumSection(region, ""))+
		fmt.Sprintf("listeners: [{name: main, listen: %q}]\nupstreams: [{name: orders, url: %q}]\n", listen, "http://"+ordersListen)+
		"routes: [{path: /orders, resource: orders, upstream: orders, forward_writ: true}]\nadmin: {listen: \"off\"}\nlog: {level: info}\n")
	l.fronts[region] = "http://" + listen
	l.start(name, func() (*exec.Cmd, error) { return l.net.Command(region, binary, "--config", path), nil })
}

func (l *promotionLab) startOrders(region string) {
	l.Helper()
	l.start("orders-"+region, func() (*exec.Cmd, error) {
		path, err := os.Executable()
		if err != nil {
			return nil, err
		}
		config, err := json.Marshal(ordersConfig{DSN: l.databases[region].dsn()})
		cmd := l.net.Command(region, path)
		cmd.Env = append(os.Environ(), ordersVariable+"="+string(config))
		return cmd, err
	})
}

func (l *promotionLab) startAgent(region string) {
	l.Helper()
	name := "agent-" + region
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nregion: %s\ndata_dir: %s\n%sadmin: {listen: \"off\"}\npeers:\n", name, region, name, l.quorumSection(region, name))
	for _, other := range []string{"eu", "us"} {
		if other != region {
			fmt.Fprintf(&b, "  - {region: %s, address: %q}\n", other, l.net.Address(other)+":5432")
		}
	}
	fmt.Fprintf(&b, "groups:\n  - name: orders\n")
	if d := l.databases[region]; d != nil {
		other := map[string]string{"eu": "us", "us": "eu"}[region]
		fmt.Fprintf(&b, "    postgres:\n      dsn: %q\n      sources: {%s: %q}\n      data_dir: %q\n      keep_dir: %q\n      bin_dir: %q\n      as: [%s]\n",
			d.dsn(), other, l.databases[other].address(), d.data, filepath.Join(d.dir, "keep"), d.bin, strings.Join(d.as, ", "))
		fmt.Fprintf(&b, "      fence: required\n      method: rewind\n      grace: 200ms\n")
	} else {
		fmt.Fprintf(&b, "    probe: {command: [echo, '{}']}\n")
	}
	path := l.write(name+".yaml", b.String())
	l.start(name, func() (*exec.Cmd, error) { return l.net.Command(region, l.writ, "agent", "--config", path), nil })
}

// typed runs a command of writ as an operator does, and tells the log what the terminal shows.
func (l *promotionLab) typed(args ...string) (stdout string, err error) {
	l.Helper()
	ops := l.nodes.ClientOf("ops")
	cmd := l.net.Command(opsParty, l.writ, args...)
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), "WRIT_ENDPOINTS="+strings.Join([]string{ops.Endpoints[1], ops.Endpoints[2], ops.Endpoints[0]}, ","),
		"WRIT_CA="+ops.CAFile, "WRIT_CERT="+ops.CertFile, "WRIT_KEY="+ops.KeyFile)
	var shown screen
	cmd.Stdout, cmd.Stderr = stream{&shown, true}, stream{&shown, false}
	err = l.within(cmd)
	l.Logf("$ writ %s\n%s", strings.ReplaceAll(strings.Join(args, " "), l.dir+"/", ""), shown.both.String())
	if err != nil {
		err = fmt.Errorf("writ %s: %w", args[0], err)
	}
	return shown.out.String(), err
}

// within runs a command for as long as there is patience.
func (l *promotionLab) within(cmd *exec.Cmd) error {
	process, err := l.set.Start(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.Context(), patience)
	defer cancel()
	select {
	case <-process.Done():
		return process.Err()
	case <-ctx.Done():
		return errors.Join(errors.New("it does not end"), process.Kill())
	}
}

// screen shows both streams of a program, as a terminal does.
type screen struct {
	mu        sync.Mutex
	out, both bytes.Buffer // guarded by mu
}

// stream is one of them.
type stream struct {
	*screen
	isOut bool
}

func (s stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOut {
		_, _ = s.out.Write(p) // it never fails
	}
	return s.both.Write(p)
}

func (l *promotionLab) must(args ...string) string {
	l.Helper()
	out, err := l.typed(append(args, "--timeout", "60s")...)
	if err != nil {
		l.Fatal(err)
	}
	return out
}

// approve has both people sign: one with writ, one with stock ssh-keygen.
func (l *promotionLab) approve(id string) {
	l.Helper()
	file := l.path(id + ".json")
	l.must("promote", "document", id, "--out", file)
	doc, err := os.ReadFile(file)
	if err != nil {
		l.Fatal(err)
	}
	digest := approval.Digest(doc)
	l.must("promote", "approve", file, "--key", l.path(approverNames[0]), "--yes", "--digest", digest)
	if _, err := l.typed("promote", "execute", id, "--wait=false"); err == nil {
		l.Errorf("%s was executed with one signature", id)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", approval.Namespace, "-f", l.path(approverNames[1]), file).CombinedOutput(); err != nil {
		l.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	l.must("promote", "approve", file, "--signature", file+".sig", "--yes", "--digest", digest)
}

// promotion and group ask any node that answers.
func (l *promotionLab) promotion(ctx context.Context, id string) (p *writv1.Promotion, err error) {
	for _, conn := range l.admin {
		if p, err = writv1.NewRegionServiceClient(conn).GetPromotion(ctx, &writv1.GetPromotionRequest{Id: id}); err == nil {
			return p, nil
		}
	}
	return nil, err
}

func (l *promotionLab) group(ctx context.Context) (g *writv1.Group, err error) {
	for _, conn := range l.admin {
		if g, err = writv1.NewRegionServiceClient(conn).GetGroup(ctx, &writv1.GetGroupRequest{Name: ordersGroup}); err == nil {
			return g, nil
		}
	}
	return nil, err
}

// reaches waits until a promotion is in a state, and answers it.
func (l *promotionLab) reaches(id string, state writv1.PromotionState) (p *writv1.Promotion) {
	l.Helper()
	eventually(l.T, fmt.Sprintf("%s becomes %v", id, state), func(ctx context.Context) (err error) {
		if p, err = l.promotion(ctx, id); err == nil && p.GetState() != state {
			err = fmt.Errorf("it is %s", protojson.Format(p))
		}
		return err
	})
	return p
}
