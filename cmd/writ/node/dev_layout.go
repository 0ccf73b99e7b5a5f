package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/lease"
)

const (
	devCluster    = "dev"
	devTrust      = "spiffe://writ.dev/"
	devUser       = "dev"
	devHost       = "127.0.0.1"
	devPortStep   = 10
	devPlanFile   = "dev.json"
	devEnvFile    = "env"
	devPolicyFile = "policy.yaml"
	devApprovers  = "approvers" // the keys; with .yaml, the set
	devGuardFile  = "guard.yaml"
	devGuardDir   = "guard-floors"
	devGuard      = "guard"
	devGuarded    = "orders-db"
	devLogFile    = "log"
)

// devSignEvery is how often nodes for development sign what they have seen of the audit log: nobody wants to wait for it.
const devSignEvery = time.Second

// devPolicy lets users do everything.
const devPolicy = `grants:
  - principals: ["` + devTrust + `user/*", "insecure"]
    prefix: ""
    verbs: [acquire, read, force, guard, promote, group, agent, audit, admin]
`

// devPlan is what a development quorum consists of. It is kept in its directory: members cannot move to other ports.
type devPlan struct {
	Regions  []string       `json:"regions"`
	Ports    map[string]int `json:"ports"` // of the API, by region; HTTP and peer have the next two
	Insecure bool           `json:"insecure"`
}

// planDev plans a new quorum. Base port 0 takes ports that are free.
func planDev(regions []string, basePort int, insecure bool) (devPlan, error) {
	p := devPlan{Regions: regions, Ports: map[string]int{}, Insecure: insecure}
	if len(regions) == 0 || len(regions) > maxMembers {
		return p, wrong("--regions", fmt.Sprintf("names %d regions", len(regions)), fmt.Sprintf("name 1 to %d, normally 3, such as eu,us,ap", maxMembers))
	}
	for i, region := range regions {
		if !isName(region) || slices.Contains([]string{"ca", "peer-ca", devEnvFile, devLogFile, devGuardFile, devGuardDir, devApprovers}, region) {
			return p, wrong("--regions", fmt.Sprintf("names %.80q", region), "use names such as eu,us,ap")
		}
		if _, ok := p.Ports[region]; ok {
			return p, wrong("--regions", fmt.Sprintf("names %q twice", region), "use each name once")
		}
		port := basePort + i*devPortStep
		if basePort == 0 {
			var err error
			if port, err = freePorts(3, slices.Collect(maps.Values(p.Ports))); err != nil {
				return p, err
			}
		}
		if port < 1 || port > 65535-2 {
			return p, wrong("--base-port", fmt.Sprintf("%d leaves no ports for %s", basePort, region), "use 1024 to 65000, or 0 to have free ones chosen")
		}
		p.Ports[region] = port
	}
	return p, nil
}

// Free ports are taken from below those that the kernel gives to connections, which could take one again before the nodes listen.
const (
	devFreeFirst = 10_000
	devFreeCount = 5_000
)

// freePorts finds n ports in a row that nothing listens on, away from those that are taken already.
func freePorts(n int, taken []int) (first int, err error) {
	for range 100 {
		first = devFreeFirst + rand.IntN(devFreeCount-n)
		near := slices.ContainsFunc(taken, func(port int) bool { return max(port-first, first-port) < n })
		if near {
			continue
		}
		if err = portsFree(first, n); err == nil {
			return first, nil
		}
	}
	return 0, fmt.Errorf("no free ports were found: %w", err)
}

func portsFree(first, n int) error {
	for i := range n {
		l, err := net.Listen("tcp", devAddress(first+i))
		if err != nil {
			return err
		}
		_ = l.Close()
	}
	return nil
}

func devAddress(port int) string { return net.JoinHostPort(devHost, strconv.Itoa(port)) }

// loadPlan answers the plan that dir was made with, or that there is none.
func loadPlan(dir string) (p devPlan, ok bool, err error) {
	path := filepath.Join(dir, devPlanFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil && len(p.Regions) != len(p.Ports) {
		err = errors.New("regions and ports do not match")
	}
	if err != nil {
		return p, false, fmt.Errorf("--dir %s: %s cannot be read: %w: name an empty directory", dir, devPlanFile, err)
	}
	return p, true, nil
}

// save writes the plan before anything else is made, so that a directory that was begun can be gone on with.
func (p devPlan) save(dir string) error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, devPlanFile), append(raw, '\n'), 0o600)
}

// layOut makes authorities, certificates, policy and approvers, and answers the configurations of the nodes. Certificates are made
// anew each time: they are valid for a year.
func (p devPlan) layOut(dir string) ([]Config, error) {
	policy := filepath.Join(dir, devPolicyFile)
	if _, err := os.Stat(policy); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(policy, []byte(devPolicy), 0o600); err != nil {
			return nil, err
		}
	}
	approvers, err := layOutApprovers(dir)
	if err != nil {
		return nil, err
	}
	members, scheme := map[string]string{}, "https"
	if p.Insecure {
		scheme = "http"
	}
	for region, port := range p.Ports {
		members[region] = scheme + "://" + devAddress(port+2)
	}
	var configs []Config
	for _, region := range p.Regions {
		port := p.Ports[region]
		c := Config{
			Name: region, Region: region, Cluster: devCluster, DataDir: filepath.Join(dir, region), PolicyFile: policy, Approvers: approvers, Insecure: p.Insecure,
			API: Address{Listen: devAddress(port)}, HTTP: Address{Listen: devAddress(port + 1)}, Peer: Address{Listen: devAddress(port + 2)},
			Bootstrap: Bootstrap{Members: members}, Audit: Audit{SignEvery: devSignEvery},
		}
		if !p.Insecure {
			if err := p.certify(dir, &c); err != nil {
				return nil, err
			}
		}
		configs = append(configs, c.withDefaults())
	}
	return configs, nil
}

// certify makes a node's certificates for its API and, by another authority, for its peers.
func (p devPlan) certify(dir string, c *Config) error {
	api, err := issue(dir, "ca", c.Name, "node/"+c.Name)
	if err != nil {
		return err
	}
	peer, err := issue(dir, "peer-ca", c.Name, "peer/"+c.Name)
	if err != nil {
		return err
	}
	c.TLS = TLS{api.CAFile, api.CertFile, api.KeyFile}
	c.PeerTLS = PeerTLS{CA: peer.CAFile, Cert: peer.CertFile, Key: peer.KeyFile, AllowedNames: p.Regions}
	return nil
}

func issue(dir, authority, name, path string) (identity.Files, error) {
	ca, err := identity.NewCA(filepath.Join(dir, authority))
	if err != nil {
		return identity.Files{}, err
	}
	return ca.Issue(identity.Subject{
		Name: name, SPIFFE: devTrust + path, DNS: []string{"localhost"}, IPs: []net.IP{net.ParseIP(devHost), net.IPv6loopback},
	})
}

// client answers how a user of this quorum reaches it.
func (p devPlan) client(dir, user string) (lease.Config, error) {
	c := lease.Config{Region: p.Regions[0], Insecure: p.Insecure}
	for _, region := range p.Regions {
		c.Endpoints = append(c.Endpoints, devAddress(p.Ports[region]))
	}
	if p.Insecure {
		return c, nil
	}
	files, err := issue(dir, "ca", "user-"+user, "user/"+user)
	c.CAFile, c.CertFile, c.KeyFile = files.CAFile, files.CertFile, files.KeyFile
	return c, err
}

// environment answers the variables by which the command and the SDK find what c says.
func environment(c lease.Config) []string {
	env := []string{"WRIT_ENDPOINTS=" + strings.Join(c.Endpoints, ","), "WRIT_REGION=" + c.Region}
	if c.Insecure {
		return append(env, "WRIT_INSECURE=true")
	}
	return append(env, "WRIT_CA="+c.CAFile, "WRIT_CERT="+c.CertFile, "WRIT_KEY="+c.KeyFile)
}

// writeEnv writes a file for a shell to source.
func writeEnv(dir string, c lease.Config) (path string, err error) {
	var b strings.Builder
	for _, variable := range environment(c) {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Fprintf(&b, "export %s=%s\n", name, shellQuote(value))
	}
	path = filepath.Join(dir, devEnvFile)
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}

// guardConfig is the configuration of a guard to try, without the identity.
const guardConfig = `# A guard before the storage on port 9000, to try and to change: writ-guard --config %s
# It is made once; remove it to have it made anew.
name: %s
region: %s
data_dir: %s
quorum:
  endpoints: [%s]
%slisteners:
  - {name: main, listen: 127.0.0.1:8080}
upstreams:
  - {name: store, url: http://127.0.0.1:9000}
routes:
  - {name: orders, path: /, resource: %s, upstream: store}
`

// writeGuard makes a configuration for writ-guard unless there is one, and in every case a certificate for it.
func (p devPlan) writeGuard(dir string) (path string, err error) {
	path = filepath.Join(dir, devGuardFile)
	c, err := p.client(dir, devGuard)
	if err != nil {
		return path, err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	identity := "  insecure: true\n"
	if !p.Insecure {
		identity = ""
		for _, f := range []struct{ key, path string }{{"ca", c.CAFile}, {"cert", c.CertFile}, {"key", c.KeyFile}} {
			relative, err := filepath.Rel(dir, f.path) // to the file, and so without anything to quote
			if err != nil {
				return path, err
			}
			identity += fmt.Sprintf("  %s: %s\n", f.key, relative)
		}
	}
	text := fmt.Sprintf(guardConfig, devGuardFile, devGuard, c.Region, devGuardDir, strings.Join(c.Endpoints, ", "), identity, devGuarded)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// shellQuote makes one word of text for a POSIX shell.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
