//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/people"
	"github.com/writ-io/writ/jepsen/wait"
	"github.com/writ-io/writ/lease"
)

const (
	// PairGroup is the name of the failover group, and its resource.
	PairGroup = "pair"
	// OfficeGroup is the name of a group that somebody may make besides: the guards cover it, and nobody writes under it.
	OfficeGroup = "office"
	// PairStore is the party of its store.
	PairStore = "pairstore"
	// Ops is the identity of those who promote.
	Ops = "ops"

	pairPath  = "/pair"
	hookTime  = 20 * time.Second
	drainTime = 20 * time.Second
)

// PairRegions are the regions of the group, the first primary to begin with.
var PairRegions = [2]string{cluster.Regions[0], cluster.Regions[1]}

// PairHooks are the hooks of the group.
var PairHooks = []string{"drain", "undrain", "promote", "demote", "verify", "reinstate"}

// Agent names the party of a region's agent.
func Agent(region string) string { return "agent" + region }

// NeedsPair asks for a [Pair].
func NeedsPair(c *Config) {
	if c.Pair == nil {
		c.Pair = book.New()
	}
}

// PairWriter names the party of the writer of a region.
func PairWriter(region string) string { return "pair" + region }

// Pair is a failover group of two regions. Every guard covers it; they stand before one store that both regions write to, so
// nothing that was acknowledged may be lost in a promotion, whatever the quorum thinks. Each region has an agent, whose hooks
// take their time and write down that they ran, and a writer, which writes whenever it believes that its region has the tenure.
type Pair struct {
	Book    *book.Book
	Store   *cluster.Program
	Agents  map[string]*cluster.Program
	Writers []*Worker
	// People may approve, any two of them.
	People []*people.Person
	// Ran is the path of a file with a line for each hook that has begun: promotion, step, kind and region.
	Ran string
}

func pairParties() (parties []string) {
	parties = append(parties, PairStore)
	for _, region := range PairRegions {
		parties = append(parties, Agent(region), PairWriter(region))
	}
	return parties
}

func (l *Lab) pairAddress() string { return l.Net.Address(PairStore) + ":" + store.Port }

// pairSections are those of a guard's configuration.
func (l *Lab) pairSections() (upstream, route string) {
	return fmt.Sprintf("  - {name: pair, url: %q, dial_timeout: 1s}\n", "http://"+l.pairAddress()),
		"  - {path: " + pairPath + ", resource: " + PairGroup + ", upstream: pair, forward_writ: true}\n" +
			"  - {path: /" + OfficeGroup + ", resource: " + OfficeGroup + ", upstream: pair}\n"
}

// newPair makes the people, and asks for what the nodes have to know.
func (l *Lab) newPair(nodes *cluster.Config) (*Pair, error) {
	p := &Pair{Book: l.Config.Pair, Agents: make(map[string]*cluster.Program), Ran: filepath.Join(l.Config.Dir, "hooks.log")}
	var err error
	if p.People, err = people.New("ann", "bob", "cid", "dan"); err != nil {
		return nil, err
	}
	nodes.Approvers = filepath.Join(l.Config.Dir, "approvers.yaml")
	// What ann asks for under the identity of her own she cannot agree to alone.
	text := people.Approvers(p.People, map[string]string{"ann": cluster.Principal("ann")})
	if err := os.WriteFile(nodes.Approvers, []byte(text), 0o600); err != nil {
		return nil, err
	}
	nodes.Identities[Ops], nodes.Identities["ann"] = []string{"read", "promote", "group"}, []string{"read", "promote", "group"}
	for _, region := range PairRegions {
		nodes.Identities[Agent(region)] = []string{"agent", "read"}
	}
	return p, os.WriteFile(p.Ran, nil, 0o600)
}

func pairSpec() *writv1.GroupSpec {
	spec := &writv1.GroupSpec{Name: PairGroup, Resource: PairGroup, Drain: durationpb.New(drainTime)}
	for i, region := range PairRegions {
		role := writv1.RegionRole_REGION_ROLE_STANDBY
		if i == 0 {
			role = writv1.RegionRole_REGION_ROLE_PRIMARY
		}
		spec.Regions = append(spec.Regions, &writv1.GroupRegion{
			Name: region, Role: role, Agent: cluster.Principal(Agent(region)), Guards: []string{Guard(i)}, Writers: []string{cluster.ClientPrincipal},
		})
	}
	for _, hook := range PairHooks {
		kind := writv1.HookKind(writv1.HookKind_value["HOOK_KIND_"+strings.ToUpper(hook)])
		spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind, Timeout: durationpb.New(hookTime)})
	}
	return spec
}

// startPair makes the group, starts what belongs to it, and waits until its first region has the tenure.
func (l *Lab) startPair(ctx context.Context) error {
	var err error
	if l.Pair.Store, err = l.addStore(l.Pair.Book, PairStore, store.Config{Listen: l.pairAddress(), Path: pairPath}); err != nil {
		return err
	}
	if err := l.applyGroup(ctx, pairSpec()); err != nil {
		return err
	}
	hook := filepath.Join(l.Config.Dir, "hook")
	if err := os.WriteFile(hook, []byte(strings.ReplaceAll(hookProgram, "RAN", l.Pair.Ran)), 0o700); err != nil {
		return err
	}
	for _, region := range PairRegions {
		if err := l.addAgent(region, hook); err != nil {
			return err
		}
		if err := l.addPairWriter(region); err != nil {
			return err
		}
	}
	return nil
}

// applyGroup has a new group made, and waits until a region has its tenure.
func (l *Lab) applyGroup(ctx context.Context, spec *writv1.GroupSpec) error {
	conn, err := l.Nodes.DialAs(0, Ops, l.Net.Dial(Observer))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := writv1.NewRegionServiceClient(conn)
	for {
		_, err := client.ApplyGroup(ctx, &writv1.ApplyGroupRequest{Spec: spec, Reason: "the lab's"})
		group, failed := client.GetGroup(ctx, &writv1.GetGroupRequest{Name: spec.GetName()})
		if failed == nil && group.GetState() == writv1.GroupState_GROUP_STATE_STEADY && group.GetPrimary() != "" {
			return nil
		}
		if !wait.For(ctx, 100*time.Millisecond) {
			return fmt.Errorf("lab: group %s is %v: %w, %w", spec.GetName(), group.GetState(), err, failed)
		}
	}
}

// hookProgram writes down that it runs, takes up to half a second, and says where the data is: where it always is, for both
// regions have the same store.
const hookProgram = `#!/bin/sh
echo "$WRIT_PROMOTION $WRIT_STEP $WRIT_KIND $1" >> 'RAN'
sleep "0.$(($$ % 50 + 10))"
echo '{"position": {"log": "1", "bytes": "1000"}}' > "$WRIT_RESULT"
`

// pairSight is what the agents' probes see.
const pairSight = `{"headroom": 900, "writable": true, "position": {"log": "1", "bytes": "1000"}, "upstream": {"log": "1", "bytes": "1000"}, "lag": "0s"}`

func (l *Lab) addAgent(region, hook string) error {
	name, client := Agent(region), l.Nodes.ClientOf(Agent(region))
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nregion: %s\ndata_dir: %s\n%sadmin: {listen: \"off\"}\n", name, region, name, quorumSection(client))
	fmt.Fprintf(&b, "groups:\n  - name: %s\n    probe: {command: [echo, %q]}\n    hooks:\n", PairGroup, pairSight)
	for _, kind := range PairHooks {
		fmt.Fprintf(&b, "      - {kind: %s, command: [%q, %s]}\n", kind, hook, region)
	}
	path := filepath.Join(l.Config.Dir, name+".yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	l.Pair.Agents[region] = &cluster.Program{Name: name, Command: func() (*exec.Cmd, error) {
		return l.Net.Command(name, l.Config.Writ, "agent", "--config", path), nil
	}}
	return l.start(l.Pair.Agents[region])
}

func quorumSection(client lease.Config) string {
	return fmt.Sprintf("quorum: {endpoints: [%s], ca: %q, cert: %q, key: %q}\n",
		strings.Join(client.Endpoints, ", "), client.CAFile, client.CertFile, client.KeyFile)
}

func (l *Lab) addPairWriter(region string) error {
	config := l.writerConfig()
	config.Group, config.Region, config.Path = PairGroup, region, pairPath
	w, err := l.addWorker(l.Pair.Book, PairWriter(region), writer.Variable, func(name string, seed uint64) any {
		config.Name, config.Seed = name, seed
		config.Fresh = len(l.Pair.Writers) < len(PairRegions) // while the lab is built
		return config
	})
	if err == nil {
		l.Pair.Writers = append(l.Pair.Writers, w)
	}
	return err
}
