package approval

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const passphrase = "correct horse"

// The commands of OpenSSH in docs/APPROVALS.md work, one after the other, as they stand there.
func TestCommandsOfTheDocumentation(t *testing.T) {
	needOpenSSH(t, "ssh-agent", "ssh-add", "bash", "sha256sum")
	home := t.TempDir()
	doc := planBytes(t)
	for name, content := range map[string]string{"plan.json": string(doc), "askpass": "#!/bin/sh\necho '" + passphrase + "'\n"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script := []string{"set -euo pipefail", `trap 'ssh-agent -k >/dev/null' EXIT`}
	ran := 0
	for _, l := range commands(t, "../../docs/APPROVALS.md") {
		switch {
		case strings.HasPrefix(l, "writ "), strings.Contains(l, "ed25519-sk"):
			continue // tested beside the command; needs hardware
		case strings.Contains(l, "-Y sign"):
			script = append(script, "rm -f plan.json.sig") // or it would ask
		case strings.Contains(l, "-Y find-principals"):
			script = append(script, `echo "ada@example.com namespaces=\"writ-approval@v1\" $(cat ~/.ssh/writ_approver.pub)" > allowed_signers`)
		}
		script = append(script, l)
		ran++
	}
	if ran < 10 {
		t.Fatalf("only %d commands were found", ran)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.Join(script, "\n"))
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "SSH_ASKPASS="+home+"/askpass", "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:none")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{Digest(doc) + "  plan.json", `Good "writ-approval@v1" signature for ada@example.com`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("they printed\n%s\nwant %q", out, want)
		}
	}
	_, other := newKey(t)
	s := checked(t, setOf(approver("ada@example.com", string(readFile(t, home+"/.ssh/writ_approver.pub"))), approver("bob", other)))
	if _, err := s.Verify(Namespace, doc, string(readFile(t, home+"/plan.json.sig")), now); err != nil {
		t.Error(err)
	}
	asked := 0
	if _, err := LoadSigner(home+"/.ssh/writ_approver", func() ([]byte, error) { asked++; return []byte(passphrase), nil }); err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestKeysOfTheDocumentation(t *testing.T) {
	var keys []*writv1.Approver
	for l := range strings.Lines(string(readFile(t, "../../docs/APPROVALS.md"))) {
		if at := strings.Index(l, "ssh-ed25519 AAAA"); at >= 0 {
			keys = append(keys, approver(string(rune('a'+len(keys))), l[at:]))
		}
	}
	checked(t, setOf(keys...)) // two of them, or the rule refuses
}

// commands are the lines of the shell blocks of a document.
func commands(t *testing.T, path string) []string {
	t.Helper()
	var lines []string
	inside := false
	for l := range strings.Lines(string(readFile(t, path))) {
		switch l = strings.TrimSpace(l); {
		case l == "```sh":
			inside = true
		case l == "```":
			inside = false
		case inside:
			lines = append(lines, l)
		}
	}
	return lines
}
