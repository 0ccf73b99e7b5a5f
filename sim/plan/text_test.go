package plan

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const paused = `writ-sim 1
# A holder that is paused for longer than its lease lasts
# wakes up and finds that it believes nothing.

name holder-paused
seed 42
store raft
duration 2m    # plenty
election 1s
heartbeat 100ms
link eu us rtt 85ms jitter 4ms loss 2
node n1 region eu ppm 120
node n2 region us
node n3 region us
client c1 region eu ppm -300 resources r1,r2 ttl 10s hold 4s think 1s write 200ms
client c2 region us all resources r1
watcher w1 region us prefix r stay 20s
at 12.5s for 3s cut n1 | n2 n3
at 20s for 5s pause @holder
at 30s for 10s slow n1 | us by 50ms
at 50s for 1s lossy eu amount 250
at 1m5s backup
at 1m10s force r1
expect S4
`

func TestParse(t *testing.T) {
	p, err := Parse("paused.txt", []byte(paused))
	if err != nil {
		t.Fatal(err)
	}
	want := Plan{
		Name: "holder-paused",
		About: []string{
			"A holder that is paused for longer than its lease lasts",
			"wakes up and finds that it believes nothing.",
		},
		Seed: 42, Store: Raft, Duration: 2 * time.Minute, Election: time.Second, Heartbeat: 100 * time.Millisecond,
		MaxTTL: time.Minute, Retention: 5 * time.Minute, SyncDelay: time.Millisecond, Sample: 200,
		Links: []Link{{A: "eu", B: "us", RTT: 85 * time.Millisecond, Jitter: 4 * time.Millisecond, Loss: 2}},
		Nodes: []Node{{Name: "n1", Region: "eu", PPM: 120}, {Name: "n2", Region: "us"}, {Name: "n3", Region: "us"}},
		Clients: []Client{
			{Name: "c1", Region: "eu", PPM: -300, Resources: []string{"r1", "r2"}, TTL: 10 * time.Second, Hold: 4 * time.Second, Think: time.Second, Write: 200 * time.Millisecond},
			{Name: "c2", Region: "us", Resources: []string{"r1"}, All: true, TTL: 10 * time.Second, Hold: 4 * time.Second, Think: time.Second},
		},
		Watchers: []Watcher{{Name: "w1", Region: "us", Prefix: "r", Stay: 20 * time.Second}},
		Faults: []Fault{
			{At: 12500 * time.Millisecond, For: 3 * time.Second, Kind: Cut, A: []string{"n1"}, B: []string{"n2", "n3"}},
			{At: 20 * time.Second, For: 5 * time.Second, Kind: Pause, A: []string{Holder}},
			{At: 30 * time.Second, For: 10 * time.Second, Kind: Slow, A: []string{"n1"}, B: []string{"us"}, By: 50 * time.Millisecond},
			{At: 50 * time.Second, For: time.Second, Kind: Lossy, A: []string{"eu"}, Amount: 250},
			{At: 65 * time.Second, Kind: Backup},
			{At: 70 * time.Second, Kind: Force, A: []string{"r1"}},
		},
		Expect: []string{"S4"},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("parsed\n%s\nwant\n%s", p, want)
	}
	roundTrip(t, p)
}

// roundTrip checks that the canonical form of a plan is one.
func roundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, p Plan) {
	t.Helper()
	again, err := Parse("canonical", []byte(p.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, p)
	}
	if !reflect.DeepEqual(p, again) || p.String() != again.String() {
		t.Fatalf("the plan\n%s\n%#v\nbecame\n%s\n%#v", p, p, again, again)
	}
}

func TestCanonicalForm(t *testing.T) {
	p, err := Parse("x", []byte("writ-sim 1\r\n\r\nnode n1 region eu\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `writ-sim 1
seed 1
store raft
duration 2m
election 1s
heartbeat 100ms
max-ttl 1m
retention 5m
sync 1ms
sample 200
node n1 region eu
`
	if p.String() != want {
		t.Errorf("got\n%s", p)
	}
}

// Every mistake is told with its place, what is wrong and what would do.
func TestMistakes(t *testing.T) {
	const start = "writ-sim 1\nnode n1 region eu\nnode n2 region us\nclient c1 region eu resources r1\n"
	for text, want := range map[string]string{
		"":                     "1:1: the first line does not say that this is a plan of a simulated run; start the file with the line writ-sim 1",
		"seed 1\n":             "1:1: the first line does not say that this is a plan of a simulated run; start the file with the line writ-sim 1",
		"writ-sim\n":           `1:1: the first line is not "writ-sim" and a version; start the file with the line writ-sim 1`,
		"writ-sim 2\n":         `1:10: the plan is of version "2"; this program knows version 1: use the program that wrote the file`,
		"writ-sim 1\n\x00":     "2:1: the file is not text; name a file that starts with the line writ-sim 1",
		"writ-sim 1\nab\xff\n": "2:3: the file is not text; name a file that starts with the line writ-sim 1",
		"writ-sim 1\n" + strings.Repeat("#\n", 1<<19):         "1:1: the file has 1048587 bytes; a plan has at most 1048576",
		"writ-sim 1\nseeds 4\n":                               `2:1: directive "seeds" is unknown; use one of name, seed, store, duration, election, heartbeat, max-ttl, lock-delay, retention, sync, sample, guard-lease, storage, link, node, rule, guard, group, agent, writer, client, work, service, watcher, at, expect`,
		"writ-sim 1\nseed x\n":                                `2:6: seed is "x"; use a whole number from 0 to 18446744073709551615`,
		"writ-sim 1\nseed 1\nseed 2\n":                        "3:1: seed is given twice; leave one of them out",
		"writ-sim 1\nseed\n":                                  "2:5: seed has no value; give it one, such as 1",
		"writ-sim 1\nseed 1 2\n":                              `2:8: seed has one value, and then comes "2"; leave it out`,
		"writ-sim 1\nduration 10\n":                           `2:10: duration is "10"; use a duration, such as 10s, 1m30s or 250ms`,
		"writ-sim 1\n":                                        "1:1: the plan has 0 nodes; have 1 to 9, each with a line such as: node n1 region eu",
		"writ-sim 1\nnode\n":                                  "2:5: node lacks a name; write a name after node",
		"writ-sim 1\nnode n1\n":                               "2:8: node n1 has no region; add region and a value",
		"writ-sim 1\nnode x1 region eu\n":                     "2:6: node x1 has no such name as a node has; use a word that starts with n, such as n1",
		"writ-sim 1\nnode n1 region n1\n":                     "1:1: region n1 has the name of an actor; give the region another name",
		start + "node n1 region eu\n":                         "5:6: node n1 is there twice; give each a name of its own",
		start + "node n3 regions eu\n":                        `5:9: node n3 has no field "regions"; use region, ppm`,
		start + "node n3 region eu ppm 501\n":                 "5:23: ppm of node n3 is 501; use -500 to 500",
		start + "node n3 region eu ppm fast\n":                `5:23: ppm of node n3 is "fast"; use a whole number`,
		start + "node n3 region eu region us\n":               "5:19: region is given twice for node n3; leave one of them out",
		start + "node n3 region\n":                            "5:15: region of node n3 has no value; give it one",
		start + "election 499ms\n":                            "5:10: election is 499ms; use at least 5 heartbeats, 500ms",
		start + "store etcd\n":                                `5:7: store is "etcd"; use raft or fast`,
		start + "client c2 region eu\n":                       "5:20: client c2 has no resources; add resources and a value",
		start + "client c2 region eu resources a//b\n":        `5:31: resources of client c2 hold "a//b"; use names of up to 512 letters, digits and signs in non-empty segments, without spaces or commas, such as billing/nightly`,
		start + "client c2 region eu resources a,a\n":         `5:31: resources of client c2 hold a twice; name it once`,
		start + "client c2 region eu resources a ttl 249ms\n": "5:37: ttl of client c2 is 249ms; use 250ms to 1m, which is max-ttl",
		start + "client c2 region eu resources a ttl 2m\n":    "5:37: ttl of client c2 is 2m; use 250ms to 1m, which is max-ttl",
		start + "client c2 region eu resources a leave -1\n":  "5:39: leave of client c2 is -1; use 0 to 1000",
		start + "watcher c2 region eu\n":                      "5:9: watcher c2 has no such name as a watcher has; use a word that starts with w, such as w1",
		start + "link eu\n":                                   "5:8: link lacks two regions; write two regions after link",
		start + "link eu mars rtt 1ms\n":                      `5:9: link eu mars names "mars", a region where nobody is; use one of eu, us`,
		start + "link eu us\n":                                "5:11: link eu us has no rtt; add rtt and a value",
		start + "link eu us rtt 1ms\nlink us eu rtt 1ms\n":    "6:6: link us eu is there twice; leave one out: a link leads both ways",
		start + "link eu us rtt 1ms loss 1001\n":              "5:25: loss of link eu us is 1001; use 0 to 1000",
		start + "expect\n":                                    "5:7: expect names nothing; name invariants, such as S4",
		start + "expect s4\n":                                 `5:8: expect names "s4"; name an invariant, such as S4`,
		start + "at\n":                                        "5:3: at has no value; give it a duration",
		start + "at x cut n1\n":                               `5:4: at is "x"; use a duration, such as 10s, 1m30s or 250ms`,
		start + "at 1s\n":                                     "5:6: the fault has no kind; use " + kindList(),
		start + "at 1s for 1s burn n1\n":                      `5:14: fault "burn" is unknown; use ` + kindList(),
		start + "at 1s cut n1\n":                              "5:1: for of cut at 1s is missing; say for how long, such as: at 10s for 5s cut",
		start + "at 1s for 1s cut n9\n":                       `5:18: cut at 1s names "n9", which is nobody; use one of c1, eu, n1, n2, us, @holder, @leader`,
		start + "at 1s for 1s cut n1 n1\n":                    "5:21: cut at 1s names n1 twice; name it once",
		start + "at 1s for 1s cut | n1\n":                     "5:1: cut at 1s names too few; name at least 1 of nodes, clients, watchers, guards or regions",
		start + "at 1s for 1s cut n1 |\n":                     "5:22: the second side is empty; name somebody after |, or leave it out for all others",
		start + "at 1s for 1s slow n1 | by 3s\n":              "5:24: the second side is empty; name somebody after |, or leave it out for all others",
		start + "at 1s for 1s cut n1 | n2 | c1\n":             "5:26: the fault has two |; use one",
		start + "at 1s for 1s cut n1 | n2 eu\n":               "5:26: cut at 1s has n1 on both sides; let everybody be on one side",
		start + "at 1s for 1s cut eu us\n":                    "5:1: cut at 1s names everybody, and so nobody is on the other side; name fewer",
		start + "at 1s for 1s pause n1 | n2\n":                "5:25: pause at 1s has no second side; leave | and what follows out",
		start + "at 1m for 61s cut n1\n":                      "5:11: for of cut at 1m is 1m1s; use at most 1m, or a longer duration of the plan, which is 2m",
		start + "at 3m for 1s cut n1\n":                       "5:4: the instant of cut at 3m is 3m; use 0s to 2m",
		start + "at 1s for 1s freeze n1\n":                    "5:11: for of freeze at 1s is 1s; leave it out, or use more than 1s: a shorter freeze hides from the watchdog by design, and nothing is promised for it",
		start + "at 1s for 1s backup\n":                       "5:11: for of backup at 1s is 1s; leave it out: backup happens at an instant",
		start + "at 1s backup n1\n":                           "5:14: backup at 1s names n1; leave the names out: it concerns the whole quorum",
		start + "at 1s remove n1 n2\n":                        "5:17: remove at 1s names more than one node; name one, and give others a line of their own",
		start + "at 1s remove c1\n":                           `5:14: remove at 1s names "c1", which is no node; name one node`,
		start + "at 1s for 1s full-disk c1\n":                 `5:24: full-disk at 1s names "c1", where none is; name nodes, guards or regions with one of them`,
		start + "at 1s for 1s lossy n1 amount 1001\n":         "5:30: amount of lossy at 1s, in thousandths, is 1001; use 1 to 1000",
		start + "at 1s for 1s cut n1 amount 10\n":             "5:28: amount of cut at 1s is 10; leave it out: cut has none",
		start + "at 1s for 1s slow n1\n":                      "5:1: by of slow at 1s is missing; say by how much, such as: by 1s",
		start + "at 1s for 1s slow n1 by -1s\n":               "5:25: by of slow at 1s is -1s; use 1µs to 1m",
		start + "at 1s force r2\n":                            `5:13: force at 1s names the resource "r2", which nobody takes; name a resource that a client takes`,
		start + "at 1s add n1\nat 2s add n2\n":                "2:1: the plan adds every node later, and none is left to begin with; keep a node out of them, or remove it first",
	} {
		_, err := Parse("f", []byte(text))
		var bad *SyntaxError
		if !errors.As(err, &bad) {
			t.Errorf("%q: %v", text, err)
		} else if got := err.Error(); got != "f:"+want {
			t.Errorf("%.120q:\ngot  %s\nwant f:%s", text, got, want)
		}
	}
}

func TestFounders(t *testing.T) {
	p, err := Parse("x", []byte("writ-sim 1\nnode n1 region a\nnode n2 region a\nnode n3 region a\nat 9s add n2\nat 5s remove n2\nat 1s add n3\nat 2s remove n3\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f := p.Founders(); len(f) != 2 || f[0].Name != "n1" || f[1].Name != "n2" {
		t.Errorf("founders %v", f)
	}
}

// Whatever is read, nothing panics, and what parses has a canonical form that means the same.
func FuzzParse(f *testing.F) {
	f.Add(paused)
	f.Add("writ-sim 1\n#\n#  x\nnode n1 region eu\nat 1s freeze n1\nat 0 twice\n")
	for _, name := range []string{"testdata/../../testdata"} {
		files, _ := os.ReadDir(name) // scenarios, if there are any
		for _, file := range files {
			if text, err := os.ReadFile(name + "/" + file.Name()); err == nil {
				f.Add(string(text))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("f", []byte(text))
		if err != nil {
			var bad *SyntaxError
			if !errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 || bad.Message == "" || bad.Fix == "" {
				t.Fatalf("a strange error: %#v", err)
			}
			return
		}
		roundTrip(t, p)
	})
}
