package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/region/approval"
)

// Both people of a development quorum can sign what its own set of approvers accepts, and keep their keys.
func TestDevApproversCanSign(t *testing.T) {
	dir := t.TempDir()
	file, err := layOutApprovers(dir)
	must(t, err)
	read, err := Config{Approvers: file}.readApprovers()
	must(t, err)
	set, err := approval.NewSet(read)
	must(t, err)
	var before [][]byte
	for _, person := range devPeople {
		path := devKey(dir, person)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key of %s: %v (%v), want one that nobody else can read", person, info.Mode(), err)
		}
		signer, err := approval.LoadSigner(path, nil)
		must(t, err)
		armored, err := approval.Sign(signer, approval.Namespace, []byte("{}"))
		must(t, err)
		who, err := set.Verify(approval.Namespace, []byte("{}"), armored, time.Now())
		if err != nil || who.Approver != person {
			t.Errorf("%s signed as %q (%v)", person, who.Approver, err)
		}
		before = append(before, content(t, path))
	}
	again, err := layOutApprovers(dir)
	if err != nil || again != file {
		t.Fatalf("laid out again: %q (%v), want %q", again, err, file)
	}
	for i, person := range devPeople {
		if !bytes.Equal(content(t, devKey(dir, person)), before[i]) {
			t.Errorf("%s has another key after the next start", person)
		}
	}
}

func TestUnusableApproversAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "approvers.yaml")
	for content, says := range map[string]string{
		"approvers:\n  - name: ann\n    kys: []\n": "kys",
		"rule:\n  people: 1\n":                     "people",
		"":                                         "nothing is here",
	} {
		must(t, os.WriteFile(file, []byte(content), 0o600))
		if _, err := (Config{Approvers: file}).readApprovers(); err == nil || !strings.Contains(err.Error(), "approvers: "+file) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v does not name the file and %q", content, err, says)
		}
	}
	if err := (Config{Approvers: filepath.Join(dir, "none")}).checkApprovers(); err == nil || !strings.Contains(err.Error(), "approvers") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	read, err := os.ReadFile(path)
	must(t, err)
	return read
}
