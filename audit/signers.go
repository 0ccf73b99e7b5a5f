package audit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/region/approval"
)

// signerList is an allowed_signers file (ssh-keygen(1)): every key that was ever in force. A key that has been revoked, has
// expired or was taken out is valid until then: whoever checks an older signature with stock tools gives the time of its record
// with -Overify-time.
type signerList struct {
	byKey map[string]*allowed
	order []*allowed
}

type allowed struct {
	name, key string
	until     time.Time // zero: it is in force
}

// change takes the next set of approvers in. A set that cannot be read changes nothing.
func (l *signerList) change(r Record) {
	raw, _, err := parseSet(r)
	if err != nil {
		return
	}
	present := map[string]bool{}
	for _, person := range raw.GetApprovers() {
		for _, k := range person.GetKeys() {
			fields := strings.Fields(k.GetPublicKey())
			id := person.GetName() + "\x00" + fields[1] // the set has been checked
			a := l.byKey[id]
			if a == nil {
				a = &allowed{name: person.GetName(), key: fields[0] + " " + fields[1]}
				l.byKey[id], l.order = a, append(l.order, a)
			}
			present[id] = true
			switch {
			case k.GetRevoked() && a.until.IsZero():
				a.until = r.At
			case k.GetRevoked():
				a.until = earlier(a.until, r.At)
			case k.GetExpiresAt() != nil:
				a.until = k.GetExpiresAt().AsTime()
			default:
				a.until = time.Time{}
			}
		}
	}
	for id, a := range l.byKey {
		if !present[id] && (a.until.IsZero() || r.At.Before(a.until)) {
			a.until = r.At
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sshTime is how allowed_signers has instants in UTC.
const sshTime = "20060102150405Z"

func (l *signerList) file() []byte {
	var lines []string
	for _, a := range l.order {
		until := ""
		if !a.until.IsZero() {
			until = fmt.Sprintf(",valid-before=%q", a.until.UTC().Format(sshTime))
		}
		lines = append(lines, fmt.Sprintf("%s namespaces=%q%s %s\n", a.name, approval.Namespace, until, a.key))
	}
	slices.Sort(lines)
	var out bytes.Buffer
	for _, line := range lines {
		out.WriteString(line)
	}
	return out.Bytes()
}
