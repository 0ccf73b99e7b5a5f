package cli

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

	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ-guard/sidecar"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// outage is a quorum of three regions whose nodes are processes of their own, and with it what stands at the site of eu: a guard
// before a storage, an agent, the keys of two people, and what starts and stops the node there. The working directory is eu's.
type outage struct {
	*live
	api   map[string]string // of the nodes, by region
	nodes map[string]*process
}

// nodeYAML is what a site has as the configuration of its node.
const nodeYAML = `name: %[1]s
region: %[1]s
cluster: prod
data_dir: %[1]s
insecure: true
policy_file: policy.yaml
approvers: approvers.yaml
api: {listen: %[2]q}
http: {listen: %[3]q}
peer: {listen: %[4]q}
bootstrap:
  members:
%[5]sheartbeat: %[6]v
election: %[7]v
preferred_regions: [eu]
lease: {guard_lease: 3s}
`

// service stands for what runs a node at its site.
const service = `#!/bin/sh
case "$1" in
stop) kill "$(cat eu.pid)" && flock -w 60 eu/LOCK true ;;
start) writ server --config eu.yaml >> eu.log 2>&1 & echo $! > eu.pid ;;
esac
`

func newOutage(t *testing.T) *outage {
	t.Helper()
	needKeygen(t)
	for _, program := range []string{"curl", "jq", "flock", "sed"} {
		switch _, err := exec.LookPath(program); {
		case err != nil && os.Getenv("WRIT_CI") == "1":
			t.Fatalf("the runbook uses %s: install it", program)
		case err != nil:
			t.Skip("the runbook uses " + program + ", which is not installed here")
		}
	}
	docs, err := filepath.Abs("../../../docs/runbooks")
	if err != nil {
		t.Fatal(err)
	}
	o := &outage{live: &live{T: t, dir: t.TempDir(), principal: "insecure"}, api: map[string]string{}, nodes: map[string]*process{}}
	t.Chdir(o.dir)
	o.reads(docs)
	o.file(filepath.Join(o.bin, "systemctl"), service, 0o700)
	t.Setenv("PATH", o.bin+":"+os.Getenv("PATH"))
	o.people("ann", "bob")
	o.file("policy.yaml", `grants: [{principals: ["*"], prefix: "", verbs: [acquire, read, force, guard, promote, group, agent, audit, admin]}]
resources: [{prefix: "", ttl_max: 1s}]
`, 0o600)
	peers, members := map[string]string{}, ""
	for _, name := range []string{"eu", "us", "ap"} {
		peers[name] = freeport.Address(t)
		members += fmt.Sprintf("    %s: http://%s\n", name, peers[name])
	}
	for name, peer := range peers {
		o.api[name] = freeport.Address(t)
		o.file(name+".yaml", fmt.Sprintf(nodeYAML, name, o.api[name], freeport.Address(t), peer, members, pace.Heartbeat, pace.Election), 0o600)
	}
	t.Setenv("WRIT_ENDPOINTS", o.api["eu"]+","+o.api["us"]+","+o.api["ap"])
	t.Setenv("WRIT_INSECURE", "true")
	t.Cleanup(o.end)
	for name := range peers {
		o.start(name)
	}
	return o
}

func (o *outage) file(path, text string, mode os.FileMode) {
	o.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		o.Fatal(err)
	}
}

// people makes keys, and the set of those who approve.
func (o *outage) people(names ...string) {
	o.Helper()
	if err := os.Mkdir("keys", 0o700); err != nil {
		o.Fatal(err)
	}
	text := "rule: {people: 2}\napprovers:\n"
	for _, name := range names {
		keygen(o.T, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", "keys/"+name)
		public, err := os.ReadFile("keys/" + name + ".pub")
		if err != nil {
			o.Fatal(err)
		}
		text += fmt.Sprintf("  - {name: %s, keys: [%q]}\n", name, strings.TrimSpace(string(public)))
	}
	o.file("approvers.yaml", text, 0o600)
}

// start starts a node: that of eu as people at its site do, the others as processes of the test.
func (o *outage) start(name string) {
	o.Helper()
	if name == "eu" {
		o.service("start")
		return
	}
	o.nodes[name] = launch(o.T, nil, "server", "--config", name+".yaml")
}

func (o *outage) service(do string) {
	o.Helper()
	if said, err := exec.CommandContext(o.Context(), "systemctl", do, "writ").CombinedOutput(); err != nil {
		o.Fatalf("systemctl %s: %v: %s", do, err, said)
	}
}

// kill ends the node of another region at once.
func (o *outage) kill(names ...string) {
	for _, name := range names {
		_ = o.nodes[name].signal(syscall.SIGKILL)
		_ = o.nodes[name].Wait() // it was killed
	}
}

// end kills the node that people started, if it is still that.
func (o *outage) end() {
	raw, err := os.ReadFile(filepath.Join(o.dir, "eu.pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "eu.yaml") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// sidecar starts the guard of a region, which knows no node but that one's, before a storage that takes everything. It presents
// the region's tenure for programs that know nothing of tokens.
func (o *outage) sidecar(region string) (admin, front string) {
	o.Helper()
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	o.Cleanup(storage.Close)
	admin, front = freeport.Address(o.T), freeport.Address(o.T)
	o.file("guard-"+region+".yaml", fmt.Sprintf(`
name: g-%[1]s
region: %[1]s
data_dir: guard-%[1]s
quorum: {endpoints: [%[2]q], insecure: true}
slack: 100ms
listeners: [{name: main, listen: %[3]q}]
upstreams: [{name: store, url: %[4]q}]
routes: [{path: /, resource: orders, upstream: store, mode: stamp}]
admin: {listen: %[5]q}
`, region, o.api[region], front, storage.URL, admin), 0o600)
	c, err := sidecar.Load("guard-"+region+".yaml", nil)
	if err != nil {
		o.Fatal(err)
	}
	s, err := sidecar.Start(c, sidecar.Options{Version: "test"})
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() { _ = s.Stop(context.Background()) }) // what was under way may not have been drained
	return admin, front
}

// group answers the group as people are told of it; nil: nobody says.
func (o *outage) group() *writv1.Group {
	g := &writv1.Group{}
	if r := o.writ("group", "status", "orders", "-o", "json"); r.code != 0 || protojson.Unmarshal([]byte(r.stdout), g) != nil {
		return nil
	}
	return g
}

// write writes as a program does that knows nothing of tokens.
func (o *outage) write(front string) int {
	request, err := http.NewRequestWithContext(o.Context(), http.MethodPut, "http://"+front+"/orders/1", strings.NewReader("x"))
	if err != nil {
		o.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// closes waits until the guard of eu has been without contact for its guard lease, and refuses.
func (o *outage) closes(front string) {
	o.Helper()
	last := 0
	defer func() {
		if o.Failed() {
			o.Logf("the last write was answered %d; the guard says %+v", last, o.description())
		}
	}()
	repeat(o.T, "the end of the guard's lease", func() bool {
		last = o.write(front)
		return last == http.StatusServiceUnavailable
	})
}

// description is what the guard of eu says of itself.
func (o *outage) description() (d map[string]any) {
	if err := askGuard(context.WithoutCancel(o.Context()), http.MethodGet, os.Getenv("GUARD"), "/status", nil, &d); err != nil {
		o.Log(err)
	}
	return d
}

// leads starts guards and agents and makes a group that eu leads. Its guards know who may open them. It answers where programs
// write, by region.
func (o *outage) leads() (fronts map[string]string) {
	o.Helper()
	o.file("orders.yaml", `name: orders
regions:
  - {name: eu, role: primary, priority: 10, agent: insecure, guards: [g-eu]}
  - {name: us, role: standby, priority: 5, agent: insecure, guards: [g-us]}
hooks: [{kind: promote}, {kind: shift}]
`, 0o600)
	repeat(o.T, "the group", func() bool { return o.writ("group", "apply", "-f", "orders.yaml").code == 0 })
	// Guards that enrol now know at once that they close without contact.
	fronts = map[string]string{}
	var admin string
	for _, region := range []string{"us", "eu"} {
		admin, fronts[region] = o.sidecar(region)
	}
	for name, value := range map[string]string{"GUARD": admin, "STORE": "http://" + fronts["eu"] + "/orders/1", "DATA": "eu", "CONFIG": "eu.yaml"} {
		o.Setenv(name, value)
	}
	agents, end := context.WithCancel(context.Background())
	var done sync.WaitGroup
	o.Cleanup(done.Wait)
	o.Cleanup(end)
	endpoints := os.Getenv("WRIT_ENDPOINTS")
	for _, region := range []string{"eu", "us"} {
		o.Setenv("WRIT_ENDPOINTS", o.api[region])
		o.agent(agents, region, nil, &done)
	}
	o.Setenv("WRIT_ENDPOINTS", endpoints)
	repeat(o.T, "eu leads, and both regions are heard of", func() bool {
		heard := 0
		g := o.group()
		for _, r := range g.GetRegions() {
			if r.GetHealth() == writv1.Health_HEALTH_OK && len(r.GetGuards()) == 1 {
				heard++
			}
		}
		return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY && g.GetPrimary() == "eu" && heard == 2
	})
	repeat(o.T, "a write", func() bool { return o.write(fronts["eu"]) == http.StatusCreated })
	repeat(o.T, "the guard knows the approvers", func() bool {
		var known knownGuard
		return askGuard(o.Context(), http.MethodGet, admin, "/status", nil, &known) == nil && known.Known.ApproversVersion > 0
	})
	return fronts
}

// Two of three regions are gone for good, and the runbook brings the third one back to writing, and to a quorum.
func TestQuorumLostRunbook(t *testing.T) {
	o := newOutage(t)
	fronts := o.leads()
	o.kill("us", "ap")
	o.closes(fronts["eu"])
	o.runbook("quorum-lost")
}

// The two regions were only cut off, have a quorum, and have promoted us: the runbook settles it.
func TestGroupInConflictRunbook(t *testing.T) {
	o := newOutage(t)
	fronts := o.leads()
	o.kill("us", "ap") // nobody hears of them
	o.closes(fronts["eu"])
	o.service("stop")
	o.must(0, "", "breakglass", "plan", "--to", "eu", "--guard", os.Getenv("GUARD"), "--resource", "orders", "--data-dir", "eu",
		"--attest", "region=us:burnt down", "--attest", "region=ap:burnt down", "--attest", "guard=g-us:burnt down", "--reason", "wrong", "--out", "cert.json")
	digest := field(t, o.must(0, "", "breakglass", "show", "cert.json", "-o", "json").stdout, "digest")
	for _, person := range []string{"ann", "bob"} {
		o.must(0, "", "breakglass", "sign", "cert.json", "--key", "keys/"+person, "--yes", "--digest", digest)
	}
	repeat(t, "the certificate is taken", func() bool {
		return o.writ("breakglass", "apply", "cert.json", "--guard", os.Getenv("GUARD")).code == 0
	})
	repeat(t, "a write under the certificate", func() bool { return o.write(fronts["eu"]) == http.StatusCreated })

	// They were not off, and promote us.
	o.start("us")
	o.start("ap")
	repeat(t, "the guard of us is in", func() bool {
		for _, r := range o.group().GetRegions() {
			if r.GetRegion() == "us" && len(r.GetGuards()) == 1 && r.GetGuards()[0].GetState() == writv1.GuardState_GUARD_STATE_ENROLLED {
				return true
			}
		}
		return false
	})
	o.file("plan.sh", `set -e
writ promote plan orders --to us --mode failover --loss-cap 10m --reason 'eu is not heard of' -o over.json
DIGEST=$(sha256sum over.json | cut -d ' ' -f 1)
for key in keys/ann keys/bob; do writ promote approve over.json --key $key --yes --digest $DIGEST; done
`, 0o600)
	repeat(t, "a plan of the other side's people", func() bool {
		_ = os.Remove("over.json")
		return exec.CommandContext(t.Context(), "sh", "plan.sh").Run() == nil
	})
	o.must(0, "", "promote", "execute", "over.json", "--wait=false")
	// An election may have cost a plan or the answer to a signature, and a guard that was late is what a promotion stands still for.
	o.file("loss.sh", `set -e
writ promote resume $(writ promote list orders --open -o json | jq -r '.promotions[0].id') || true
ID=$(writ promote operations orders --open -o json | jq -er '[.operations[] | select(.kind != "OPERATION_KIND_PROMOTION")][0].id')
writ promote document $ID --out loss.json
DIGEST=$(sha256sum loss.json | cut -d ' ' -f 1)
for key in keys/ann keys/bob; do writ promote approve loss.json --key $key --yes --digest $DIGEST || true; done
writ promote execute loss.json
`, 0o600)
	repeat(t, "that the other side's people accept an unknown loss", func() bool {
		return exec.CommandContext(t.Context(), "sh", "loss.sh").Run() == nil
	})
	repeat(t, "a write in us", func() bool { return o.write(fronts["us"]) == http.StatusCreated })
	if status := o.write(fronts["eu"]); status != http.StatusCreated {
		t.Errorf("a write in eu, under the certificate: %d", status)
	}
	o.runbook("group-in-conflict")
	if status := o.write(fronts["eu"]); status == http.StatusCreated {
		t.Error("eu still writes")
	}
	if g := o.group(); len(g.GetTails()) != 0 {
		raw, _ := json.Marshal(g.GetTails())
		t.Errorf("unsettled: %s", raw)
	}
}
