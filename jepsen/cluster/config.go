//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Size is the number of nodes.
const Size = 3

// Regions are the names of the nodes, and of the regions they stand in.
var Regions = [Size]string{"eu", "us", "ap"}

// Ports of every node, each on an address of its own.
const (
	apiPort  = "7411"
	httpPort = "7412"
	peerPort = "7413"
)

// ClientPrincipal is who clients with a certificate of the cluster are.
const ClientPrincipal = "spiffe://jepsen.test/client"

// Principal is who the holder of an identity's certificate is.
func Principal(identity string) string { return "spiffe://jepsen.test/" + identity }

// Config says what to run. Binary and Dir are mandatory.
type Config struct {
	// Binary is the writ program, see [Build].
	Binary string
	// Dir is an empty directory for data, logs and certificates. It belongs to the caller, who removes it after Close.
	Dir string
	// Secure uses mutual TLS everywhere; otherwise there is none.
	Secure bool
	// Heartbeat and Election are those of the store. Default: 50 ms and 500 ms.
	Heartbeat, Election time.Duration
	// GuardLease is that of the nodes. Default: theirs.
	GuardLease time.Duration
	// Approvers is the path of the file with who may approve. Default: nobody.
	Approvers string
	// Identities get a certificate each, see [Cluster.ClientOf], and the verbs under their names. It needs Secure.
	Identities map[string][]string

	// Addresses are the nodes' IP addresses. Default: some of 127.0.0.0/8 that are free.
	Addresses []string
	// Command prepares a program to be run where node i stands. Default: exec.Command.
	Command func(i int, path string, args ...string) *exec.Cmd
	// Dialer connects the caller to nodes. Default: that of gRPC.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
}

func (c Config) withDefaults() Config {
	if c.Heartbeat == 0 {
		c.Heartbeat = 50 * time.Millisecond
	}
	if c.Election == 0 {
		c.Election = 500 * time.Millisecond
	}
	if c.Command == nil {
		c.Command = func(_ int, path string, args ...string) *exec.Cmd { return exec.Command(path, args...) }
	}
	return c
}

// address is the IP of node i.
func (c *Cluster) address(i int) string { return c.config.Addresses[i] }

// Endpoint is the API address of node i.
func (c *Cluster) Endpoint(i int) string { return net.JoinHostPort(c.address(i), apiPort) }

// freeAddresses finds addresses that nobody listens on. All of 127.0.0.0/8 is this machine, so a random part of it is as
// good as reserved.
func freeAddresses() ([]string, error) {
	for range 100 {
		addresses, subnet := make([]string, Size), fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(256))
		for i := range addresses {
			addresses[i] = fmt.Sprintf("%s.%d", subnet, i+1)
		}
		if areFree(addresses) {
			return addresses, nil
		}
	}
	return nil, errors.New("cluster: no free loopback addresses")
}

func areFree(addresses []string) bool {
	for _, address := range addresses {
		for _, port := range []string{apiPort, httpPort, peerPort} {
			l, err := net.Listen("tcp", net.JoinHostPort(address, port))
			if err != nil {
				return false
			}
			_ = l.Close()
		}
	}
	return true
}

// writeConfigs writes the files that the nodes are started with.
func (c *Cluster) writeConfigs() error {
	if c.config.Secure {
		if err := c.issue(); err != nil {
			return err
		}
		policy := fmt.Sprintf("grants:\n- {principals: [%q], prefix: \"\", verbs: [acquire, read, force, guard, admin]}\n", ClientPrincipal)
		for _, name := range slices.Sorted(maps.Keys(c.config.Identities)) {
			policy += fmt.Sprintf("- {principals: [%q], prefix: \"\", verbs: [%s]}\n", Principal(name), strings.Join(c.config.Identities[name], ", "))
		}
		if err := os.WriteFile(c.path("policy.yaml"), []byte(policy), 0o600); err != nil {
			return err
		}
	}
	for i := range Size {
		if err := os.WriteFile(c.path(Regions[i]+".yaml"), []byte(c.nodeConfig(i)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// issue makes two authorities, for the API and for the store, and every certificate.
func (c *Cluster) issue() error {
	api, err := newAuthority(c.path("tls"))
	if err != nil {
		return err
	}
	peers, err := newAuthority(c.path("peer-tls"))
	if err != nil {
		return err
	}
	for i, name := range Regions {
		ip := net.ParseIP(c.address(i))
		for _, a := range []*authority{api, peers} {
			if _, err := a.issue(name, "spiffe://jepsen.test/node/"+name, ip); err != nil {
				return err
			}
		}
	}
	c.identities = make(map[string]pair)
	for name := range c.config.Identities {
		if c.identities[name], err = api.issue(name, Principal(name), nil); err != nil {
			return err
		}
	}
	c.client, err = api.issue("client", ClientPrincipal, nil)
	return err
}

func (c *Cluster) nodeConfig(i int) string {
	name, scheme := Regions[i], "http"
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nregion: %s\ncluster: jepsen\ndata_dir: %s\n", name, name, name)
	fmt.Fprintf(&b, "api: {listen: %q}\n", c.Endpoint(i))
	fmt.Fprintf(&b, "http: {listen: %q}\n", net.JoinHostPort(c.address(i), httpPort))
	fmt.Fprintf(&b, "peer: {listen: %q}\n", net.JoinHostPort(c.address(i), peerPort))
	fmt.Fprintf(&b, "heartbeat: %v\nelection: %v\nlog: {level: info}\n", c.config.Heartbeat, c.config.Election)
	if c.config.GuardLease != 0 {
		fmt.Fprintf(&b, "lease: {guard_lease: %v}\n", c.config.GuardLease)
	}
	if c.config.Approvers != "" {
		fmt.Fprintf(&b, "approvers: %q\n", c.config.Approvers)
	}
	if c.config.Secure {
		scheme = "https"
		b.WriteString("policy_file: policy.yaml\n")
		for _, section := range []string{"tls", "peer-tls"} {
			fmt.Fprintf(&b, "%s: {ca: %s/ca.pem, cert: %s/%s.pem, key: %s/%s-key.pem}\n",
				strings.ReplaceAll(section, "-", "_"), section, section, name, section, name)
		}
	} else {
		b.WriteString("insecure: true\n")
	}
	b.WriteString("bootstrap:\n  members:\n")
	for j := range Size {
		fmt.Fprintf(&b, "    %s: %s://%s\n", Regions[j], scheme, net.JoinHostPort(c.address(j), peerPort))
	}
	return b.String()
}

func (c *Cluster) path(name string) string { return filepath.Join(c.config.Dir, name) }
