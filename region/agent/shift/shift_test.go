//go:build unix

package shift

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
)

const (
	patience = time.Minute
	secret   = "Zm9yIHRlc3RzIG9ubHksIGFuZCBsb25nIGVub3VnaCE="
)

// nameServer starts Knot DNS with the zone example.test, and answers its address.
func nameServer(t *testing.T) string {
	t.Helper()
	knotd, err := exec.LookPath("knotd")
	if err != nil {
		if _, err := os.Stat("/usr/sbin/knotd"); err == nil {
			knotd = "/usr/sbin/knotd"
		} else if os.Getenv("WRIT_CI") == "1" {
			t.Fatal("no knotd: install Debian's package knot")
		} else {
			t.Skip("no knotd: install Debian's package knot")
		}
	}
	dir, err := os.MkdirTemp("", "knot") // short enough for its socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(freeport.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"knot.conf": fmt.Sprintf(`
server:
    listen: %s@%s
    rundir: %s
database:
    storage: %s/db
log:
  - target: stderr
    any: warning
key:
  - id: writ
    algorithm: hmac-sha256
    secret: %s
acl:
  - id: agents
    key: writ
    action: update
zone:
  - domain: example.test
    storage: %s
    file: zone
    acl: agents
`, host, port, dir, dir, secret, dir),
		"zone": "@ 60 SOA ns.example.test. admin.example.test. 1 60 60 600 60\n@ 60 NS ns\nns 60 A 127.0.0.1\ndb 60 A 192.0.2.1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said strings.Builder
	cmd := exec.Command(knotd, "-c", filepath.Join(dir, "knot.conf"))
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("knotd: %s", said.String())
		}
	})
	address := net.JoinHostPort(host, port)
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		m := new(dns.Msg)
		m.SetQuestion("example.test.", dns.TypeSOA)
		if answer, err := dns.Exchange(m, address); err == nil && answer.Authoritative {
			return address
		}
		select {
		case <-ended:
			t.Fatalf("knotd has ended: %s", said.String())
		case <-deadline:
			t.Fatal("knotd does not answer")
		case <-tick.C:
		}
	}
}

// values are what the server answers.
func values(t *testing.T, address, name string, kind uint16) (found []string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), kind)
	answer, err := dns.Exchange(m, address)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range answer.Answer {
		fields := strings.Fields(rr.String())
		found = append(found, strings.Join(fields[4:], " "))
	}
	slices.Sort(found)
	return found
}

func shiftTask(percent uint32, token uint64) *writv1.Task {
	return &writv1.Task{Group: "orders", Promotion: "orders-1.4", From: "eu", To: "us", Percent: percent, Token: token}
}

func hookFor(address string) *DNS {
	return &DNS{
		Server: address, Zone: "example.test", Key: "writ", Secret: secret,
		Records: []Record{
			{Name: "db.example.test", Type: "A", Values: map[string][]string{"eu": {"192.0.2.1"}, "us": {"198.51.100.1", "198.51.100.2"}}},
			{Name: "www.example.test", Type: "CNAME", Values: map[string][]string{"eu": {"eu.example.test"}, "us": {"us.example.test"}}},
		},
	}
}

func TestDNSShiftsStepByStep(t *testing.T) {
	address := nameServer(t)
	hook := hookFor(address)
	if err := hook.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		percent uint32
		db, www []string
	}{
		{0, []string{"192.0.2.1"}, []string{"eu.example.test."}},
		{10, []string{"192.0.2.1", "198.51.100.1", "198.51.100.2"}, []string{"eu.example.test."}},
		{50, []string{"192.0.2.1", "198.51.100.1", "198.51.100.2"}, []string{"eu.example.test."}},
		{100, []string{"198.51.100.1", "198.51.100.2"}, []string{"us.example.test."}},
		{100, []string{"198.51.100.1", "198.51.100.2"}, []string{"us.example.test."}},
	} {
		out, err := hook.Run(t.Context(), shiftTask(c.percent, 7))
		if err != nil {
			t.Fatalf("%d percent: %v", c.percent, err)
		}
		if told := strings.Contains(out.Output, "knows no percent"); told != (c.percent > 0 && c.percent < 100) {
			t.Errorf("%d percent: %s", c.percent, out.Output)
		}
		if got := values(t, address, "db.example.test", dns.TypeA); !slices.Equal(got, c.db) {
			t.Errorf("%d percent: db is %v, want %v", c.percent, got, c.db)
		}
		if got := values(t, address, "www.example.test", dns.TypeCNAME); !slices.Equal(got, c.www) {
			t.Errorf("%d percent: www is %v, want %v", c.percent, got, c.www)
		}
	}
}

// A shift that was held up, and comes after a newer one.
func TestALateShiftChangesNothing(t *testing.T) {
	address := nameServer(t)
	hook := hookFor(address)
	if _, err := hook.Run(t.Context(), shiftTask(100, 9)); err != nil {
		t.Fatal(err)
	}
	late := shiftTask(100, 8)
	late.From, late.To = "us", "eu"
	if _, err := hook.Run(t.Context(), late); err == nil || !strings.Contains(err.Error(), "came late") {
		t.Errorf("a late shift: %v", err)
	}
	if got := values(t, address, "db.example.test", dns.TypeA); !slices.Equal(got, []string{"198.51.100.1", "198.51.100.2"}) {
		t.Errorf("db is %v", got)
	}
	// Both look before either writes: the server itself refuses the second.
	mark := dns.Fqdn("_writ-orders.example.test")
	before, err := hook.marks(t.Context(), mark)
	if err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	if _, err := hook.Run(t.Context(), shiftTask(100, 10)); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	m.SetUpdate("example.test.")
	m.Used(before)
	m.RemoveRRset([]dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "db.example.test.", Rrtype: dns.TypeA}}})
	answer, err := hook.exchange(t.Context(), m)
	if err != nil || answer.Rcode == dns.RcodeSuccess {
		t.Errorf("an update on an old condition: %v, %v", answer, err)
	}
}

func TestDNSRefusals(t *testing.T) {
	address := nameServer(t)
	wrong := hookFor(address)
	wrong.Secret = "d3Jvbmc="
	if _, err := wrong.Run(t.Context(), shiftTask(100, 7)); err == nil {
		t.Error("a wrong secret was taken")
	}
	none := hookFor(address)
	none.Key, none.Secret = "", ""
	if _, err := none.Run(t.Context(), shiftTask(100, 7)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("no key: %v", err)
	}
	elsewhere := shiftTask(100, 7)
	elsewhere.To = "ap"
	if _, err := hookFor(address).Run(t.Context(), elsewhere); err == nil || !strings.Contains(err.Error(), "not left empty") {
		t.Errorf("a region without addresses: %v", err)
	}
	if got := values(t, address, "db.example.test", dns.TypeA); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("db is %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := hookFor("127.0.0.1:1").Run(ctx, shiftTask(100, 7)); err == nil {
		t.Error("no server")
	}
	for field, change := range map[string]func(*DNS){
		"server":               func(d *DNS) { d.Server = "ns" },
		"key":                  func(d *DNS) { d.Key = "" },
		"algorithm":            func(d *DNS) { d.Algorithm = "hmac-md5" },
		"records":              func(d *DNS) { d.Records = nil },
		"records[0].type":      func(d *DNS) { d.Records[0].Type = "MX" },
		"records[0].name":      func(d *DNS) { d.Records[0].Name = "db.example.org" },
		"records[0].values.us": func(d *DNS) { d.Records[0].Values["us"] = []string{"us.example.test"} },
		"records[1].values.eu": func(d *DNS) { d.Records[1].Values["eu"] = []string{"a", "b"} },
		"records[0].ttl":       func(d *DNS) { d.Records[0].TTL = time.Millisecond },
	} {
		d := hookFor(address)
		change(d)
		if err := d.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// A recovery names nobody to take traffic from, or the region that is primary already.
func TestARecoveryShiftsEverything(t *testing.T) {
	var body struct {
		Weights map[string]uint32 `json:"weights"`
	}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body.Weights = nil
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	weights := &Weights{URL: server.URL, Backends: map[string]string{"eu": "pool-eu", "us": "pool-us", "ap": "pool-ap"}}
	record := hookFor("").Records[1]
	for name, from := range map[string]string{"Recovered": "", "Conflict": "us"} {
		for _, percent := range []uint32{10, 100} {
			t.Run(fmt.Sprintf("%s%d", name, percent), func(t *testing.T) {
				task := shiftTask(percent, 7)
				task.From = from
				if _, err := weights.Run(t.Context(), task); err != nil || !maps.Equal(body.Weights, map[string]uint32{"pool-us": 100, "pool-eu": 0, "pool-ap": 0}) {
					t.Errorf("weights are %v, %v", body.Weights, err)
				}
				set, err := record.at(from, "us", percent)
				if err != nil || len(set) != 1 || !strings.HasSuffix(set[0].String(), "us.example.test.") {
					t.Errorf("records are %v, %v", set, err)
				}
			})
		}
	}
	astray := shiftTask(100, 7)
	astray.From = "sa"
	if _, err := weights.Run(t.Context(), astray); err == nil || !strings.Contains(err.Error(), "names none") {
		t.Errorf("a region without a backend: %v", err)
	}
}

func TestWeights(t *testing.T) {
	var body struct {
		Token   string            `json:"token"`
		Weights map[string]uint32 `json:"weights"`
	}
	status := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	hook := &Weights{URL: server.URL, Backends: map[string]string{"eu": "pool-eu", "us": "pool-us"}}
	if _, err := hook.Run(t.Context(), shiftTask(25, 7)); err != nil || body.Weights["pool-us"] != 25 || body.Weights["pool-eu"] != 75 || body.Token != "7" {
		t.Errorf("%+v, %v", body, err)
	}
	status = http.StatusBadGateway
	if _, err := hook.Run(t.Context(), shiftTask(25, 7)); err == nil {
		t.Error("502 was taken for done")
	}
}
