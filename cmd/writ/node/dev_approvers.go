package node

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// devPeople are those who approve promotions of a development quorum. Their keys lie in its directory, so that one person can
// play both.
var devPeople = []string{"ann", "bob"}

// devKey is where the private key of one of them is.
func devKey(dir, person string) string { return filepath.Join(dir, devApprovers, person) }

// layOutApprovers makes the keys and the set, unless they are there, and answers the set's file.
func layOutApprovers(dir string) (file string, err error) {
	if err := os.MkdirAll(filepath.Join(dir, devApprovers), 0o700); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Two people who may approve promotions. A quorum takes this in once.\napprovers:\n")
	for _, person := range devPeople {
		public, err := devKeyOf(dir, person)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  - name: %s\n    keys: [%q]\n", person, public)
	}
	fmt.Fprintf(&b, "rule:\n  people: %d\n", len(devPeople))
	file = filepath.Join(dir, devApprovers+".yaml")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return file, os.WriteFile(file, []byte(b.String()), 0o600)
	}
	return file, nil
}

// devKeyOf answers the line of a person's public key. The private key is made if it is not there.
func devKeyOf(dir, person string) (line string, err error) {
	path := devKey(dir, person)
	private, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		private, err = newDevKey(path, person)
	}
	if err != nil {
		return "", err
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	line = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " " + person
	return line, os.WriteFile(path+".pub", []byte(line+"\n"), 0o600)
}

func newDevKey(path, person string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, person)
	if err != nil {
		return nil, err
	}
	private := pem.EncodeToMemory(block)
	return private, os.WriteFile(path, private, 0o600)
}
