package approval

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// AllowedSigners writes the keys that count at that instant as an allowed_signers file, with which stock ssh-keygen -Y verify
// judges as Verify does: revoked and expired keys are left out, and those that will expire say when. What counted at another
// time is checked with a file of that time, and ssh-keygen's option -Overify-time.
func (s *Set) AllowedSigners(namespace string, at time.Time) []byte {
	var file bytes.Buffer
	for _, p := range s.people {
		for _, k := range p.keys {
			if k.revoked || !k.expires.IsZero() && !at.Before(k.expires) {
				continue
			}
			options := `namespaces="` + namespace + `"`
			if !k.expires.IsZero() {
				// OpenSSH counts whole seconds, and takes the one that it is given as well.
				last := k.expires.UTC().Add(-1).Truncate(time.Second)
				options += `,valid-before="` + last.Format("20060102150405Z") + `"`
			}
			fmt.Fprintf(&file, "%s %s %s\n", p.name, options, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.public))))
		}
	}
	return file.Bytes()
}
