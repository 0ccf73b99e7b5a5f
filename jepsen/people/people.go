package people

import (
	"crypto/ed25519"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/writ-io/writ/region/approval"
)

// Person is somebody with a key.
type Person struct {
	Name   string
	signer ssh.Signer
}

// New makes people of these names, with new keys.
func New(names ...string) (all []*Person, err error) {
	for _, name := range names {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			return nil, err
		}
		all = append(all, &Person{name, signer})
	}
	return all, nil
}

// Sign signs a document of an operation, and returns the armored signature.
func (p *Person) Sign(doc []byte) (string, error) {
	return approval.Sign(p.signer, approval.Namespace, doc)
}

// Approvers is the file that makes everybody an approver, any two of whom have to sign. Principals are who somebody is in
// certificates, by name; nil: nothing is known of that.
func Approvers(all []*Person, principals map[string]string) string {
	var b strings.Builder
	b.WriteString("approvers:\n")
	for _, p := range all {
		fmt.Fprintf(&b, "  - {name: %s, keys: [%q]", p.Name, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p.signer.PublicKey()))))
		if principal := principals[p.Name]; principal != "" {
			fmt.Fprintf(&b, ", principals: [%q]", principal)
		}
		b.WriteString("}\n")
	}
	b.WriteString("rule: {people: 2}\n")
	return b.String()
}
