package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

// Every misunderstanding is told in one line that names what was wrong and what would do.
func TestMisunderstandings(t *testing.T) {
	t.Setenv("WRIT_ENDPOINTS", "127.0.0.1:1")
	for line, want := range map[string]string{
		"leese":                             `command "writ leese" is unknown; did you mean writ lease?`,
		"lease acqiure x":                   `command "writ lease acqiure" is unknown; did you mean writ lease acquire?`,
		"quorum member xyz":                 `command "writ quorum member xyz" is unknown; see writ quorum member --help`,
		"lease get":                         "NAME is missing; write: writ lease get NAME",
		"lease get a b":                     `arguments are too many: "b"; write: writ lease get NAME`,
		"lease release a --tokn 1.1":        "--tokn is no flag of writ lease release; did you mean --token?",
		"lease release a --xyzzy":           "--xyzzy is no flag of writ lease release; see writ lease release --help",
		"lease release a -q":                "-q is no flag of writ lease release; see writ lease release --help",
		"lease release a":                   "--token is missing; use the token of the grant, decimal or epoch.sequence",
		"lease release a --token 0.1":       `--token is "0.1"; use the token of the grant, decimal or epoch.sequence`,
		"lease acquire a --ttl 10":          `--ttl is "10"; use a duration, such as 10s, 1m30s or 250ms`,
		"lease acquire a --ttl":             "--ttl has no value; use a duration, such as 10s, 1m30s or 250ms",
		"lease acquire a --wait -1s":        "--wait is -1s; use 0 or more",
		"lease acquire /a":                  `resource "/a" has an empty segment; use 1 to 512 bytes of printable UTF-8 in non-empty segments, such as billing/nightly`,
		"lease acquire a --priority x":      `--priority is "x"; use a whole number`,
		"lease list --limit 0":              "--limit is 0; use 1 or more",
		"completion zsg":                    `command "writ completion zsg" is unknown; did you mean writ completion zsh?`,
		"completion bash x":                 `arguments are too many: "x"; write: writ completion bash`,
		"help leese":                        `command "writ leese" is unknown; did you mean writ lease?`,
		"help lease gett":                   `command "writ lease gett" is unknown; did you mean writ lease get?`,
		"version x":                         `arguments are too many: "x"; write: writ version`,
		"quorum snapshot":                   "FILE is missing; write: writ quorum snapshot FILE",
		"quorum member replace a":           "PEER-URL is missing; write: writ quorum member replace NAME PEER-URL",
		"quorum move-coordinator a b":       `arguments are too many: "b"; write: writ quorum move-coordinator [NODE]`,
		"quorum status --wach":              "--wach is no flag of writ quorum status; did you mean --watch?",
		"lease renew a --token x":           `--token is "x"; use the token of the grant, decimal or epoch.sequence`,
		"lease checkpoint a --token x":      `--token is "x"; use the token of the grant, decimal or epoch.sequence`,
		"lease list --watch --limit 5":      "--limit excludes --watch; choose one",
		"lease list --watch --local":        "--local excludes --watch; choose one",
		"lease checkpoint a --token 1.1":    "--data or --file is to be given; give one of them",
		"version -o xml":                    `--output is "xml"; use table, json or yaml`,
		"version --insecure=perhaps":        `--insecure is "perhaps"; use true or false`,
		"lease get a --timeout 0s":          "--timeout is 0s; use a positive duration, such as 10s",
		"lease get a --endpoints x":         `--endpoints hold "x", which has no port; list the nodes' API addresses, such as node-1.example:7411`,
		"lease get a --cert x":              "--cert and --key belong together; give both or neither",
		"lease get a --ca /nowhere":         "--ca cannot be read: open /nowhere: no such file or directory; name a PEM file",
		"lease acquire a --ca /nowhere":     "--ca cannot be read: open /nowhere: no such file or directory; name a file of PEM certificates",
		"lease acquire a --insecure --ca x": "--insecure (or WRIT_INSECURE) excludes --ca, --cert and --key; choose one",
	} {
		t.Run(line, func(t *testing.T) {
			if strings.HasPrefix(line, "lease acquire /a") {
				double(t)
			}
			writ(t, strings.Fields(line)...).want(t, lease.ExitError, "", "writ: INVALID: "+want+"\n")
		})
	}
}

func TestNobodyToAsk(t *testing.T) {
	writ(t, "lease", "get", "a").want(t, 1, "",
		"writ: INVALID: --endpoints is not given; name the API addresses of nodes, set WRIT_ENDPOINTS, or source the env file that writ dev writes\n")
}

func TestErrorsAsJSON(t *testing.T) {
	for _, args := range [][]string{
		{"lease", "release", "a", "-o", "json", "--tokn", "1"}, {"lease", "release", "a", "--tokn", "1", "--output=json"}, {"lease", "release", "a", "--tokn", "1", "-ojson"},
	} {
		writ(t, args...).want(t, 1, "",
			`{"error":{"reason":"INVALID","message":"is no flag of writ lease release","field":"--tokn","fix":"did you mean --token?","exitCode":1}}`+"\n")
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{}, {"lease"}, {"quorum", "member"}, {"run", "--help"}, {"help", "lease", "get"}, {"completion"}} {
		if r := writ(t, args...); r.code != 0 || r.stdout == "" || r.stderr != "" {
			t.Errorf("writ %s: code %d, stderr %q", strings.Join(args, " "), r.code, r.stderr)
		}
	}
	writ(t, "version").want(t, 0, "writ 1.2.3\n", "")
	writ(t, "version", "-o", "json").want(t, 0, "{\n  \"version\": \"1.2.3\"\n}\n", "")
	writ(t, "version", "-o", "yaml").want(t, 0, "version: 1.2.3\n", "")
}

// The scripts ask writ itself what could come next.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := writ(t, "completion", shell); r.code != 0 || !strings.Contains(r.stdout, "__complete") || r.stderr != "" {
			t.Errorf("%s: code %d, stderr %q", shell, r.code, r.stderr)
		}
	}
	for line, want := range map[string]string{
		"__complete version --output ": "table\njson\nyaml\n:4\n",
		"__completeNoDesc lease re":    "release\nrenew\n:4\n",
	} {
		if r := writ(t, strings.Split(line, " ")...); r.code != 0 || r.stdout != want {
			t.Errorf("%s: %+v, want %q", line, r, want)
		}
	}
}

// Whatever a node refuses with decides the exit code, and nothing else does.
func TestExitCodes(t *testing.T) {
	_, node := double(t)
	want := map[lease.Reason]int{
		lease.ReasonHeld: 3, lease.ReasonStaleToken: 2, lease.ReasonNotHolder: 2, lease.ReasonReleased: 2, lease.ReasonExpired: 7,
		lease.ReasonNotFound: 1, lease.ReasonInvalid: 1, lease.ReasonDenied: 4, lease.ReasonUnauthenticated: 4, lease.ReasonLimit: 5,
		lease.ReasonNoQuorum: 5, lease.ReasonNotCoordinator: 5, lease.ReasonUnknownOutcome: 5, lease.ReasonRecovering: 5,
		lease.ReasonResync: 1, lease.ReasonNotGuarded: 2, lease.ReasonConflict: 2, lease.ReasonFencing: 6, lease.ReasonPending: 6,
		lease.ReasonInternal: 1,
	}
	for _, reason := range lease.Reasons() {
		t.Run(string(reason), func(t *testing.T) {
			e := lease.Errorf(reason, "said the node\nand more")
			e.Resource, e.Token, e.Holder = "a", 281474976710657, lease.Holder{Principal: "p", Region: "eu"}
			e.RetryAfter = 1500 * time.Millisecond
			fails(node, "Checkpoint", e)
			args := []string{"lease", "checkpoint", "a", "--token", "1.1", "--data", "x", "--timeout", "200ms"}
			r := writ(t, args...)
			if code, ok := want[reason]; !ok || r.code != code {
				t.Errorf("exit code %d, want %d (%v)", r.code, code, ok)
			}
			if r.stdout != "" || strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "writ: "+string(reason)+": ") || !strings.Contains(r.stderr, "said the node") {
				t.Errorf("told %q", r.stderr)
			}
			asJSON := writ(t, append(args, "-o", "json")...)
			if field(t, asJSON.stderr, "error.reason") != string(reason) || !strings.Contains(asJSON.stderr, fmt.Sprintf(`"exitCode":%d`, want[reason])) {
				t.Errorf("told %s", asJSON.stderr)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Setenv("WRIT_INSECURE", "1")
	a, b := deadEndpoint(t), deadEndpoint(t)
	r := writ(t, "lease", "get", "x", "--endpoints", a+","+b, "--timeout", "300ms")
	if r.code != 5 || !strings.Contains(r.stderr, "no node could answer within 225ms: "+a+": ") || !strings.Contains(r.stderr, b) || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("got %+v", r)
	}
	if r := writ(t, "lease", "acquire", "x", "--endpoints", a, "--timeout", "300ms"); r.code != 5 {
		t.Errorf("acquire: %+v", r)
	}
}

// An attempt that the end of the time has cut short does not hide what was learnt before.
func TestTheLastRealTroubleIsTold(t *testing.T) {
	_, node := double(t)
	first := true // calls come one after the other
	node.Script("Renew", func(ctx context.Context, _ any, _ func() (any, error)) (any, error) {
		if first {
			first = false
			return nil, lease.Errorf(lease.ReasonNoQuorum, "no majority")
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if r := writ(t, "lease", "renew", "a", "--token", "1.1", "--timeout", "500ms"); r.code != 5 || !strings.Contains(r.stderr, "NO_QUORUM no majority") {
		t.Errorf("got %+v", r)
	}
}
