//go:build linux

package jepsen_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/people"
	"github.com/writ-io/writ/lease"
)

// killLease is G of the guards: long enough for a coordinator to be killed while a guard is silent.
const killLease = 20 * time.Second

// killLab is a quorum, a guard and an agent in each of two regions, and a group for each killing, on the loopback. Its hooks
// are programs that write down that they run; what its probes see is said by the test.
type killLab struct {
	*testing.T
	group  string // that the present part of the test is about
	dir    string
	nodes  *cluster.Cluster
	conns  []*grpc.ClientConn
	set    *cluster.Processes
	guards map[string]*cluster.Program
	sights *sights
	people []*people.Person
}

// on is the lab as a part of the test sees it.
func (l *killLab) on(t *testing.T, group string) *killLab {
	part := *l
	part.T, part.group = t, group
	return &part
}

func (l *killLab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *killLab) write(name, text string, mode os.FileMode) (path string) {
	l.Helper()
	if err := os.WriteFile(l.path(name), []byte(text), mode); err != nil {
		l.Fatal(err)
	}
	return l.path(name)
}

// startKillLab builds it. It is torn down when the test ends.
func startKillLab(t *testing.T) *killLab {
	t.Helper()
	l := &killLab{T: t, dir: t.TempDir(), guards: make(map[string]*cluster.Program), sights: newSights(t)}
	writ, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	guard, err := guardBinary()
	if err != nil {
		t.Fatal(err)
	}
	if l.people, err = people.New(approverNames...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l.nodes, err = cluster.Start(ctx, cluster.Config{
		Binary: writ, Dir: l.dir, Secure: true, GuardLease: killLease, Approvers: l.write("approvers.yaml", people.Approvers(l.people, nil), 0o600),
		Identities: map[string][]string{"ops": {"read", "promote", "group"}, "agent": {"agent", "read"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.nodes.Check(); err != nil {
			t.Error(err)
		}
		l.nodes.Close()
		if t.Failed() {
			t.Log(l.nodes.Logs(25))
		}
	})
	for i := range cluster.Size {
		conn, err := l.nodes.DialAs(i, "ops", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		l.conns = append(l.conns, conn)
	}
	for _, k := range killings {
		ask(l, writv1.RegionServiceClient.ApplyGroup, &writv1.ApplyGroupRequest{Spec: killedGroup(k.group())})
	}
	l.set = cluster.NewProcesses()
	t.Cleanup(l.set.Close)
	l.write("ledger", "", 0o600)
	hook := l.write("hook", strings.NewReplacer("DIR", l.dir).Replace(hookProgram), 0o700)
	for _, region := range []string{"eu", "us"} {
		l.guards[region] = l.start("guard-"+region, guard, "--config", l.write("guard-"+region+".yaml", l.guardFile(region), 0o600))
		l.start("agent-"+region, writ, "agent", "--config", l.write("agent-"+region+".yaml", l.agentFile(region, hook), 0o600))
	}
	return l
}

// hookProgram notes that it runs, waits if there is a gate for it, and says where the data is.
const hookProgram = `#!/bin/sh
echo "$WRIT_PROMOTION $WRIT_STEP $WRIT_KIND $1" >> 'DIR/ledger'
gate="DIR/$WRIT_GROUP.$WRIT_KIND"
if [ -p "$gate" ]; then cat "$gate" 2> /dev/null; fi
echo '{"position": {"log": "1", "bytes": "1000"}}' > "$WRIT_RESULT"
`

// killedHooks are those of every group.
var killedHooks = []string{"drain", "undrain", "promote", "demote", "verify", "reinstate"}

func killedGroup(name string) *writv1.GroupSpec {
	spec := &writv1.GroupSpec{
		Name: name, Resource: "killed/" + name, Headroom: 100,
		Regions: []*writv1.GroupRegion{
			{Name: "eu", Role: writv1.RegionRole_REGION_ROLE_PRIMARY, Agent: cluster.Principal("agent"), Guards: []string{"guard-eu"}},
			{Name: "us", Role: writv1.RegionRole_REGION_ROLE_STANDBY, Agent: cluster.Principal("agent"), Guards: []string{"guard-us"}},
		},
		Drain: durationpb.New(patience),
	}
	for _, hook := range killedHooks {
		kind := writv1.HookKind(writv1.HookKind_value["HOOK_KIND_"+strings.ToUpper(hook)])
		spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind, Timeout: durationpb.New(patience)})
	}
	return spec
}

// start starts a program that is to run until the test ends.
func (l *killLab) start(name, binary string, args ...string) *cluster.Program {
	l.Helper()
	p := &cluster.Program{Name: name, Log: l.path(name + ".log"), Processes: l.set, Command: func() (*exec.Cmd, error) { return exec.Command(binary, args...), nil }}
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
	return p
}

func quorumSection(client lease.Config) string {
	return fmt.Sprintf("quorum: {endpoints: [%s], ca: %q, cert: %q, key: %q}\n", strings.Join(client.Endpoints, ", "), client.CAFile, client.CertFile, client.KeyFile)
}

func (l *killLab) guardFile(region string) string {
	return fmt.Sprintf("name: guard-%s\nregion: %s\ndata_dir: guard-%s\nslack: 1s\n%s", region, region, region, quorumSection(l.nodes.Client())) +
		fmt.Sprintf("listeners: [{name: main, listen: \"unix:%s\"}]\nupstreams: [{name: none, url: \"http://127.0.0.1:9\"}]\n", l.path(region+".sock")) +
		"routes: [{path: /killed, resource: \"killed/{1}\", upstream: none}]\nadmin: {listen: \"off\"}\n"
}

func (l *killLab) agentFile(region, hook string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: agent-%s\nregion: %s\ndata_dir: agent-%s\n%sadmin: {listen: \"off\"}\ngroups:\n", region, region, region, quorumSection(l.nodes.ClientOf("agent")))
	for _, k := range killings {
		fmt.Fprintf(&b, "  - name: %s\n    probe: {url: \"%s/%s/%s\"}\n    hooks:\n", k.group(), l.sights.url, k.group(), region)
		for _, kind := range killedHooks {
			fmt.Fprintf(&b, "      - {kind: %s, command: [%q, %s]}\n", kind, hook, region)
		}
	}
	return b.String()
}

// sight is what a probe sees.
type sight struct {
	headroom int
	position uint64 // of 1000 that the primary has written
}

// sights tells agents what they see.
type sights struct {
	url string

	mu  sync.Mutex
	all map[string]sight // guarded by mu; by /group/region
}

func newSights(t *testing.T) *sights {
	t.Helper()
	s := &sights{all: make(map[string]sight)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// set says what the target of a group looks like.
func (s *sights) set(group string, to sight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all["/"+group+"/us"] = to
}

func (s *sights) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	seen, ok := s.all[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		seen = sight{headroom: 900, position: 1000}
	}
	at := func(bytes uint64) map[string]string {
		return map[string]string{"log": "1", "bytes": strconv.FormatUint(bytes, 10)}
	}
	answer := map[string]any{"headroom": seen.headroom, "position": at(seen.position), "writable": strings.HasSuffix(r.URL.Path, "/eu")}
	if strings.HasSuffix(r.URL.Path, "/us") {
		answer["upstream"], answer["lag"] = at(1000), "0s"
	}
	_ = json.NewEncoder(w).Encode(answer) // the agent has gone
}

// gate has a hook of the present group wait.
type gate struct {
	*killLab
	path string
}

func (l *killLab) gate(hook string) *gate {
	l.Helper()
	g := &gate{l, l.path(l.group + "." + hook)}
	if err := syscall.Mkfifo(g.path, 0o600); err != nil {
		l.Fatal(err)
	}
	return g
}

// open lets the hook go on, whether it has come to the gate already or not.
func (g *gate) open() {
	g.Helper()
	f, err := os.OpenFile(g.path, os.O_RDWR, 0) // which never waits, and wakes who does
	if err != nil {
		g.Fatal(err)
	}
	if err := os.Remove(g.path); err != nil {
		g.Error(err)
	}
	if err := f.Close(); err != nil {
		g.Error(err)
	}
}

// ask makes a call to whichever node answers.
func ask[Q, A any](l *killLab, method func(writv1.RegionServiceClient, context.Context, Q, ...grpc.CallOption) (A, error), request Q) (answer A) {
	l.Helper()
	eventually(l.T, fmt.Sprintf("%T", request), func(ctx context.Context) (err error) {
		for _, conn := range l.conns {
			attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
			answer, err = method(writv1.NewRegionServiceClient(conn), attempt, request)
			cancel()
			if err == nil {
				return nil
			}
			switch lease.ReasonOf(lease.FromStatus(status.Convert(err))) {
			case lease.ReasonDenied, lease.ReasonInvalid, lease.ReasonNotFound, lease.ReasonStaleToken, lease.ReasonConflict:
				l.Fatalf("%T: %v", request, err)
			default:
			}
		}
		return err
	})
	return answer
}

// sign has everybody sign an operation.
func (l *killLab) sign(id string) {
	l.Helper()
	l.signBy(id, l.people)
}

func (l *killLab) signBy(id string, signers []*people.Person) {
	l.Helper()
	doc := ask(l, writv1.RegionServiceClient.GetOperation, &writv1.GetOperationRequest{Id: id}).GetDocument()
	for _, person := range signers {
		armored, err := person.Sign(doc)
		if err != nil {
			l.Fatal(err)
		}
		ask(l, writv1.RegionServiceClient.Approve, &writv1.ApproveRequest{Id: id, Signature: armored})
	}
}

// ready waits until the group's guards and agents are heard of, and what the target looks like.
func (l *killLab) ready(seen sight) (g *writv1.Group) {
	l.Helper()
	eventually(l.T, l.group+" is ready", func(context.Context) error {
		g = ask(l, writv1.RegionServiceClient.GetGroup, &writv1.GetGroupRequest{Name: l.group})
		if g.GetState() != writv1.GroupState_GROUP_STATE_STEADY || g.GetPrimary() != "eu" {
			return fmt.Errorf("it is %v, and %q is primary", g.GetState(), g.GetPrimary())
		}
		for _, r := range g.GetRegions() {
			report := r.GetReport()
			asSeen := report.GetPosition().GetBytes() == seen.position && report.GetHeadroom() == uint32(seen.headroom)
			if r.GetHealth() != writv1.Health_HEALTH_OK || len(r.GetGuards()) == 0 || r.GetRegion() == "us" && !asSeen {
				return fmt.Errorf("%v", r)
			}
		}
		return nil
	})
	return g
}
