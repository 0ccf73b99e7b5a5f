package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// opener is a test double of a guard's admin address, in region eu of the quorum prod.
type opener struct {
	address string
	taken   string // the last file that was handed in
	answer  string // to it
}

func newOpener(t *testing.T, name string, approvers int) *opener {
	t.Helper()
	o := &opener{answer: fmt.Sprintf(`{"guard": %q, "open": true, "resources": ["orders-db"], "signers": ["ada SHA256:x"]}`, name)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"name": %q, "region": "eu", "covers": ["orders-db"], "known": {"cluster": "prod", "incarnation": "5f0c", "epoch": 3,
			"approvers_version": "%d"}, "base": "0", "tokens": [{"resource": "orders-db", "token": "844424930132007"}]}`, name, approvers)
	})
	mux.HandleFunc("POST /breakglass", func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		o.taken = string(raw)
		if !strings.Contains(o.answer, `"open": true`) {
			w.WriteHeader(http.StatusConflict)
		}
		_, _ = io.WriteString(w, o.answer)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	o.address = strings.TrimPrefix(server.URL, "http://")
	return o
}

// saved is what people saved of the quorum before: its nodes, and guards beside eu-db.
func saved(t *testing.T, us string) (status, guards string) {
	t.Helper()
	st, err := protojson.Marshal(&writv1.StatusResponse{Node: "n-eu", Nodes: []*writv1.NodeStatus{
		{Name: "n-eu", Region: "eu", ApiAddress: deadEndpoint(t)}, {Name: "n-us", Region: "us", ApiAddress: us},
	}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := protojson.Marshal(&writv1.ListGuardsResponse{Guards: []*writv1.Guard{{Name: "eu-db", Region: "eu"}, {Name: "us-db", Region: "us"}}})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "status.json", string(st)), writeFile(t, "guards.json", string(list))
}

// planGlass are the arguments of a plan that is complete.
func planGlass(guard, status, guards, out string, more ...string) []string {
	return append([]string{
		"breakglass", "plan", "--to", "eu", "--guard", guard, "--resource", "orders-db=orders", "--status", status, "--guards", guards,
		"--attest", "region=us:flooded, site manager on the phone", "--attest", "guard=us-db:powered off with its site", "--reason", "us is lost",
		"--requester", "ada", "--out", out,
	}, more...)
}

// without leaves out the argument that begins so, with its flag.
func without(args []string, prefix string) []string {
	var kept []string
	for i := 0; i < len(args); i++ {
		if i+1 < len(args) && strings.HasPrefix(args[i], "--") && (strings.HasPrefix(args[i+1], prefix) || args[i] == prefix) {
			i++
			continue
		}
		kept = append(kept, args[i])
	}
	return kept
}

// Everything that a certificate says is shown when it is planned, when it is signed, and whenever somebody asks.
func TestBreakglassIsShown(t *testing.T) {
	g := newOpener(t, "eu-db", 12)
	status, guards := saved(t, deadEndpoint(t))
	out := filepath.Join(t.TempDir(), "cert.json")
	r := writ(t, planGlass(g.address, status, guards, out)...)
	if r.code != 0 || strings.Count(r.stderr, "does not answer") != 2 {
		t.Fatalf("got %+v", r)
	}
	golden(t, "breakglass-plan.txt", strings.ReplaceAll(r.stdout, out, "cert.json"))
	page, _, _ := strings.Cut(r.stdout, "\nnext")
	if r := writ(t, "breakglass", "show", out); r.code != 0 || r.stdout != page {
		t.Errorf("show: %+v", r)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	file, c, err := breakglass.ParseFile(raw)
	if err != nil || c.Action != breakglass.Continue || len(file.Signatures) != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if r := writ(t, "breakglass", "show", out, "-o", "json"); r.code != 0 || field(t, r.stdout, "digest") != approval.Digest([]byte(file.Document)) ||
		field(t, r.stdout, "certificate.incarnation") != "5f0c" {
		t.Errorf("show as JSON: %+v", r)
	}
	keyFile, _ := sshKey(t, "ada")
	if r := writ(t, "breakglass", "sign", out, "--key", keyFile, "--yes", "--digest", approval.Digest([]byte(file.Document))); r.code != 0 || r.stderr != page {
		t.Errorf("sign shows %+v, want %s", r, page)
	}
	// It is not written over by accident.
	if r := writ(t, planGlass(g.address, status, guards, out)...); r.code != 1 || !strings.Contains(r.stderr, "--out cannot be written") || !strings.Contains(r.stderr, "--force") {
		t.Errorf("a file that is there: %+v", r)
	}
	if r := writ(t, planGlass(g.address, status, guards, out, "--advance", "--force")...); r.code != 0 || !strings.Contains(r.stdout, "ADVANCE") ||
		!strings.Contains(r.stdout, "4.140737488355328") {
		t.Errorf("ahead: %+v", r)
	}
}

// What is not known to be off, nobody plans around.
func TestBreakglassPlanRefuses(t *testing.T) {
	g := newOpener(t, "eu-db", 12)
	status, guards := saved(t, deadEndpoint(t))
	plan := func(args ...string) []string { return args }
	out := filepath.Join(t.TempDir(), "cert.json")
	good := planGlass(g.address, status, guards, out)
	nobody, other := newOpener(t, "eu-old", 0), newOpener(t, "eu-2", 13)
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"region":          {without(good, "region=us"), 1, "--attest says nothing of region us, where node n-us was"},
		"guard":           {without(good, "guard=us-db"), 1, "--attest says nothing of guard us-db in us"},
		"guards":          {without(good, "--guards"), 1, "--guards is missing"},
		"no node":         {without(good, "--status"), 1, "--status is missing, and no node is named"},
		"to":              {without(good, "--to"), 1, "--to is missing"},
		"resource":        {without(good, "--resource"), 1, "--resource is missing"},
		"reason":          {without(good, "--reason"), 1, "--reason is missing"},
		"out":             {without(good, "--out"), 1, "--out is missing"},
		"no guard":        {without(good, "--guard"), 1, "--guard is missing"},
		"statement":       {append(without(good, "region=us"), "--attest", "region=us: "), 1, `--attest is "region=us: "`},
		"kind":            {append(without(good, "region=us"), "--attest", "planet=us:gone"), 1, "--attest is"},
		"validity":        {append(plan(good...), "--valid-for", "200h"), 1, "--valid-for is 200h0m0s"},
		"unknown token":   {append(plan(good...), "--resource", "billing"), 1, `no guard that is to be opened knows a token of "billing"`},
		"dead guard":      {append(plan(good...), "--guard", deadEndpoint(t)), 1, "the guard does not answer"},
		"no approvers":    {append(plan(good...), "--guard", nobody.address), 2, "eu-old remembers no quorum, or no approvers"},
		"other approvers": {append(plan(good...), "--guard", other.address), 2, "remember different quorums or approvers"},
		"own region":      {append(plan(good...), "--attest", "region=eu:off"), 1, `says that region "eu" is off, which is to write`},
		"no connection":   {append(plan(good...), "--endpoints", deadEndpoint(t), "--cert", "x"), 1, "--cert and --key belong together"},
		"bad status":      {append(plan(good...), "--status", guards+"x"), 1, "--status cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			r := writ(t, test.args...)
			if r.code != test.code || !strings.Contains(r.stderr, test.says) {
				t.Errorf("got %+v, want %d and %q", r, test.code, test.says)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("a certificate was written")
			}
		})
	}
}

// A node that answers anything stands against it, unless it is the survivor's own and knows no coordinator.
func TestBreakglassWhileANodeAnswers(t *testing.T) {
	g := newOpener(t, "eu-db", 12)
	nodes := newGuarded(t, "us")
	address := nodes[0].nodes[0].GetApiAddress()
	t.Setenv("WRIT_ENDPOINTS", "")
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	mute := strings.TrimPrefix(web.URL, "http://")
	for name, test := range map[string]struct {
		region, coordinator string
		saved, node         string
		says                string // empty: it is planned
	}{
		"saved, and alive":       {saved: address, says: "region us is not off"},
		"of another region":      {region: "us", saved: deadEndpoint(t), node: address, says: `it is of region "us", and not of "eu"`},
		"of no region":           {saved: deadEndpoint(t), node: address, says: `it is of region "", and not of "eu"`},
		"own, with coordinator":  {region: "eu", coordinator: "us", saved: deadEndpoint(t), node: address, says: "there is a coordinator, us: the quorum lives"},
		"own, without a quorum":  {region: "eu", saved: deadEndpoint(t), node: address},
		"open, and says nothing": {saved: deadEndpoint(t), node: mute, says: "and does not say what it is"},
	} {
		t.Run(name, func(t *testing.T) {
			nodes[0].set(func() { nodes[0].nodes[0].Region, nodes[0].leader = test.region, test.coordinator })
			status, guards := saved(t, test.saved)
			out := filepath.Join(t.TempDir(), "cert.json")
			args := planGlass(g.address, status, guards, out)
			if test.node != "" {
				args = append(args, "--node", test.node)
			}
			r := writ(t, args...)
			if test.says == "" {
				if r.code != 0 || !strings.Contains(r.stderr, "answers, and knows no quorum") {
					t.Errorf("got %+v", r)
				}
				return
			}
			if r.code != 2 || !strings.Contains(r.stderr, test.says) || !strings.Contains(r.stderr, "a quorum may be there") {
				t.Errorf("got %+v, want %q", r, test.says)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("a certificate was written")
			}
		})
	}
}

// certFile is a certificate that nobody has signed yet.
func certFile(t *testing.T) (path, digest string) {
	t.Helper()
	g := newOpener(t, "eu-db", 12)
	status, guards := saved(t, deadEndpoint(t))
	path = filepath.Join(t.TempDir(), "cert.json")
	if r := writ(t, planGlass(g.address, status, guards, path)...); r.code != 0 {
		t.Fatalf("got %+v", r)
	}
	return path, field(t, writ(t, "breakglass", "show", path, "-o", "json").stdout, "digest")
}

// signatures counts those of a file.
func signatures(t *testing.T, path string) int {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var f breakglass.File
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return len(f.Signatures)
}

// A certificate is signed by each person once, over what they mean, in its own namespace.
func TestBreakglassSign(t *testing.T) {
	needKeygen(t)
	path, digest := certFile(t)
	ada, _ := sshKey(t, "ada")
	bob, _ := sshKey(t, "bob")
	sign := func(more ...string) result {
		return writ(t, append([]string{"breakglass", "sign", path}, more...)...)
	}
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no digest":      {[]string{"--key", ada, "--yes"}, 1, "--digest is missing"},
		"another digest": {[]string{"--key", ada, "--yes", "--digest", strings.Repeat("0", 64)}, 2, "it is not what you mean to sign"},
		"no terminal":    {[]string{"--key", ada}, 1, "--yes is not given and there is no terminal"},
		"no key":         {[]string{"--yes", "--digest", digest}, 1, "--key is missing"},
		"no signature":   {[]string{"--yes", "--digest", digest, "--signature", writeFile(t, "sig", "x")}, 1, "does not begin with"},
	} {
		if r := sign(test.args...); r.code != test.code || !strings.Contains(r.stderr, test.says) || signatures(t, path) != 0 {
			t.Errorf("%s: %+v, want %d and %q", name, r, test.code, test.says)
		}
	}
	yes := []string{"--yes", "--digest", strings.ToUpper(digest)}
	if r := sign(append(yes, "--key", ada)...); r.code != 0 || !strings.HasSuffix(r.stdout, "cert.json: 1\n") {
		t.Errorf("ada: %+v", r)
	}
	if r := sign(append(yes, "--key", ada)...); r.code != 2 || !strings.Contains(r.stderr, "has a signature by the key SHA256:") || signatures(t, path) != 1 {
		t.Errorf("ada again: %+v", r)
	}
	// ssh-keygen can sign what jq -j .document writes; what it signed for a promotion counts for nothing here.
	doc := writeFile(t, "cert.doc", document(t, path))
	keygen(t, "-Y", "sign", "-n", approval.Namespace, "-f", bob, doc)
	if r := sign(append(yes, "--signature", doc+".sig")...); r.code != 1 || !strings.Contains(r.stderr, "was made for") || signatures(t, path) != 1 {
		t.Errorf("for a promotion: %+v", r)
	}
	other := writeFile(t, "cert.doc", document(t, path)+"\n")
	keygen(t, "-Y", "sign", "-n", breakglass.Namespace, "-f", bob, other)
	if r := sign(append(yes, "--signature", other+".sig")...); r.code != 1 || !strings.Contains(r.stderr, "is not over this document") || signatures(t, path) != 1 {
		t.Errorf("with a line end: %+v", r)
	}
	if err := os.Remove(doc + ".sig"); err != nil {
		t.Fatal(err)
	}
	keygen(t, "-Y", "sign", "-n", breakglass.Namespace, "-f", bob, doc)
	if r := sign(append(yes, "--signature", doc+".sig")...); r.code != 0 || signatures(t, path) != 2 {
		t.Errorf("bob: %+v", r)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := writeFile(t, "cert.json", strings.Replace(string(raw), "flooded", "blooded", 1))
	if r := writ(t, "breakglass", "sign", edited, "--key", bob, "--yes", "--digest", digest); r.code != 2 {
		t.Errorf("edited: %+v", r)
	}
	newDigest := field(t, writ(t, "breakglass", "show", edited, "-o", "json").stdout, "digest")
	if r := writ(t, "breakglass", "sign", edited, "--key", bob, "--yes", "--digest", newDigest); r.code != 2 || !strings.Contains(r.stderr, "signatures[0]") {
		t.Errorf("edited after the first signature: %+v", r)
	}
}

func document(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return field(t, string(raw), "document")
}

func keygen(t *testing.T, args ...string) {
	t.Helper()
	if said, err := exec.CommandContext(t.Context(), "ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, said)
	}
}

// needKeygen skips where there is no ssh-keygen.
func needKeygen(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("WRIT_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// What each guard answers is told, and one that refuses makes the exit code.
func TestBreakglassApply(t *testing.T) {
	path, _ := certFile(t)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opens, refuses := newOpener(t, "eu-db", 12), newOpener(t, "eu-2", 12)
	if r := writ(t, "breakglass", "apply", path, "--guard", opens.address); r.code != 0 || !strings.Contains(r.stdout, "OPEN for orders-db") || opens.taken != string(raw) {
		t.Errorf("got %+v", r)
	}
	refuses.answer = `{"guard": "eu-2", "open": false, "error": "the certificate opens nothing here: it needs bob"}`
	dead, elsewhere := deadEndpoint(t), httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(elsewhere.Close)
	r := writ(t, "breakglass", "apply", path, "--guard", opens.address+","+refuses.address, "--guard", dead, "--guard", strings.TrimPrefix(elsewhere.URL, "http://"))
	if r.code != 4 || !strings.Contains(r.stderr, "3 of 4 guards did not take the certificate") {
		t.Errorf("got %+v", r)
	}
	for _, want := range []string{"OPEN for orders-db", "refused: the certificate opens nothing here: it needs bob", "does not answer", "the admin address of writ-guard?"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%s lacks %q", r.stdout, want)
		}
	}
	if r := writ(t, "breakglass", "apply", path); r.code != 1 || !strings.Contains(r.stderr, "--guard is missing") {
		t.Errorf("no guard: %+v", r)
	}
	if r := writ(t, "breakglass", "apply", writeFile(t, "x", "{}"), "--guard", opens.address); r.code != 1 || !strings.Contains(r.stderr, "FILE is not usable") {
		t.Errorf("no certificate: %+v", r)
	}
}

// The commands are found, and explained.
func TestBreakglassIsFound(t *testing.T) {
	if r := writ(t, "--help"); !strings.Contains(r.stdout, "breakglass") {
		t.Errorf("got %+v", r)
	}
	for line, want := range map[string]string{
		"__completeNoDesc breakg":       "breakglass\n:4\n",
		"__completeNoDesc breakglass ":  "apply\nplan\nshow\nsign\n:4\n",
		"__completeNoDesc breakglass s": "show\nsign\n:4\n",
	} {
		if r := writ(t, strings.Split(line, " ")...); r.code != 0 || r.stdout != want {
			t.Errorf("%s: %+v, want %q", line, r, want)
		}
	}
	for line, want := range map[string]string{
		"breakglass sing":            "did you mean writ breakglass sign?",
		"breakglass sign":            "FILE is missing",
		"breakglass plan --guardd x": "did you mean --guard?",
		"breakglass show a b":        "arguments are too many",
	} {
		if r := writ(t, strings.Split(line, " ")...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %q", line, r, want)
		}
	}
	var help strings.Builder
	for _, line := range []string{"", " plan", " sign", " apply", " show"} {
		r := writWith(context.Background(), t, strings.Fields("breakglass"+line+" --help")...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("help of %s: %+v", line, r)
		}
		own, _, _ := strings.Cut(r.stdout, "\nGlobal")
		help.WriteString("$ writ breakglass" + line + " --help\n" + own + "\n")
	}
	golden(t, "breakglass-help.txt", help.String())
}

// The commands of the document are taken as they stand there, but for the addresses and the keys.
func TestBreakglassDocument(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "BREAKGLASS.md"))
	if err != nil {
		t.Fatal(err)
	}
	g := newOpener(t, "eu-db", 12)
	key, _ := sshKey(t, "ada")
	t.Chdir(t.TempDir())
	for name, m := range map[string]proto.Message{
		"status.json": &writv1.StatusResponse{Nodes: []*writv1.NodeStatus{
			{Name: "n-eu", Region: "eu"}, {Name: "n-us", Region: "us", ApiAddress: deadEndpoint(t)}, {Name: "n-ap", Region: "ap"},
		}},
		"guards.json": &writv1.ListGuardsResponse{Guards: []*writv1.Guard{{Name: "eu-db", Region: "eu"}, {Name: "us-db", Region: "us"}}},
	} {
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tried := ""
	text := strings.ReplaceAll(string(raw), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "writ breakglass ") {
			continue
		}
		line = strings.NewReplacer("10.0.0.5:7420", g.address, "~/.ssh/id_ed25519", key).Replace(line)
		words, err := exec.CommandContext(t.Context(), "sh", "-c", `writ() { printf '%s\0' "$@"; }; `+line).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		args := strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00")
		if args[1] == "sign" {
			args = append(args, "--yes", "--digest", field(t, writ(t, "breakglass", "show", args[2], "-o", "json").stdout, "digest"))
		}
		if r := writ(t, args...); r.code != 0 {
			t.Errorf("%s: %+v", line, r)
		}
		tried += args[1] + " "
	}
	if tried != "plan sign apply " || signatures(t, "cert.json") != 1 || !strings.Contains(g.taken, "BEGIN SSH SIGNATURE") {
		t.Errorf("tried %s", tried)
	}
}
