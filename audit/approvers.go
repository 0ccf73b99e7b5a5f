package audit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

// Approvers is a set of approvers as people compare it.
type Approvers struct {
	// Sequence of the record that put them in force, and when that was.
	Sequence uint64    `json:"sequence,string"`
	At       time.Time `json:"at"`
	Version  uint64    `json:"version,string"`
	// Context: the record is from before the first one, and this bundle's chain does not vouch for it.
	Context bool     `json:"context,omitempty"`
	People  []Person `json:"people"`

	set *writv1.ApproverSet
}

// Person is one of them.
type Person struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles,omitempty"`
	Keys  []Key    `json:"keys"`
}

// Key is one that a person signs with.
type Key struct {
	Type string `json:"type"`
	// Fingerprint as ssh-keygen -l shows it.
	Fingerprint string    `json:"fingerprint"`
	Revoked     bool      `json:"revoked,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
}

func approversOf(r Record, set *writv1.ApproverSet, context bool) *Approvers {
	out := &Approvers{Sequence: r.Sequence, At: r.At, Version: set.GetVersion(), Context: context, set: set}
	for _, a := range set.GetApprovers() {
		p := Person{Name: a.GetName(), Roles: a.GetRoles()}
		for _, k := range a.GetKeys() {
			key := Key{Revoked: k.GetRevoked()}
			if public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.GetPublicKey())); err == nil { // the set has been checked
				key.Type, key.Fingerprint = public.Type(), ssh.FingerprintSHA256(public)
			}
			if k.GetExpiresAt() != nil {
				key.Expires = k.GetExpiresAt().AsTime()
			}
			p.Keys = append(p.Keys, key)
		}
		out.People = append(out.People, p)
	}
	return out
}

// Same says whether both sets let the same people approve, with the same keys, roles and rule.
func (a *Approvers) Same(other *Approvers) bool {
	if a == nil || other == nil {
		return a == nil && other == nil
	}
	return proto.Equal(normal(a.set), normal(other.set))
}

// normal is a set in one order, without what says nothing about who may approve.
func normal(set *writv1.ApproverSet) *writv1.ApproverSet {
	set = proto.CloneOf(set)
	set.Version, set.Operations = 0, 0
	for _, a := range set.GetApprovers() {
		slices.Sort(a.Roles)
		slices.Sort(a.Principals)
		for _, k := range a.Keys {
			if fields := strings.Fields(k.PublicKey); len(fields) > 2 {
				k.PublicKey = fields[0] + " " + fields[1] // without the comment
			}
		}
		slices.SortFunc(a.Keys, func(x, y *writv1.ApproverKey) int { return cmp.Compare(x.PublicKey, y.PublicKey) })
	}
	slices.SortFunc(set.GetApprovers(), func(x, y *writv1.Approver) int { return cmp.Compare(x.Name, y.Name) })
	if set.Rule != nil {
		slices.SortFunc(set.Rule.Roles, func(x, y *writv1.RoleCount) int { return cmp.Compare(x.GetRole(), y.GetRole()) })
	}
	return set
}

// sameApprovers compares the first set of a bundle with that which an auditor knows.
func sameApprovers(first *Approvers, known *writv1.ApproverSet) error {
	if first == nil {
		return bad(fileRecords, 0, "there are no approvers in it, and some were given")
	}
	have, want := normal(first.set), normal(known)
	if proto.Equal(have, want) {
		return nil
	}
	file := fileRecords
	if first.Context {
		file = fileContext
	}
	return bad(file, first.Sequence, "the approvers are not those that were given: %s", difference(have, want))
}

// difference names the first thing in which two sets differ; have is the bundle's.
func difference(have, want *writv1.ApproverSet) string {
	known := map[string]*writv1.Approver{}
	for _, a := range want.GetApprovers() {
		known[a.GetName()] = a
	}
	for _, a := range have.GetApprovers() {
		other := known[a.GetName()]
		delete(known, a.GetName())
		switch {
		case other == nil:
			return fmt.Sprintf("%q is not among the given ones", a.GetName())
		case !proto.Equal(&writv1.Approver{Keys: a.Keys}, &writv1.Approver{Keys: other.Keys}):
			return fmt.Sprintf("%q has other keys", a.GetName())
		case !proto.Equal(a, other):
			return fmt.Sprintf("%q has other roles or principals", a.GetName())
		}
	}
	for _, a := range want.GetApprovers() {
		if known[a.GetName()] != nil {
			return fmt.Sprintf("%q is missing", a.GetName())
		}
	}
	return "the rule for changing them is another one"
}

func parseSet(r Record) (*writv1.ApproverSet, *approval.Set, error) {
	raw := &writv1.ApproverSet{}
	if err := protojson.Unmarshal([]byte(r.Detail[detailSet]), raw); err != nil {
		return nil, nil, fmt.Errorf("its set of approvers cannot be read: %w", err)
	}
	set, err := approval.NewSet(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("its set of approvers is not usable: %w", err)
	}
	return raw, set, nil
}

// change puts another set in force. Only the first one comes without an operation that says the same.
func (l *ledger) change(r Record) error {
	raw, set, err := parseSet(r)
	if err != nil {
		return err
	}
	if l.set != nil && raw.GetVersion() <= l.version {
		return fmt.Errorf("version %d of the approvers takes the place of version %d", raw.GetVersion(), l.version)
	}
	if !l.context {
		if err := l.approved(r, raw); err != nil {
			return err
		}
	}
	l.set, l.raw, l.version, l.executed = set, raw, raw.GetVersion(), nil
	l.report.LastApprovers = approversOf(r, raw, l.context)
	if l.report.FirstApprovers == nil {
		l.report.FirstApprovers = l.report.LastApprovers
	}
	return nil
}

// approved holds a change against the document of the operation that was executed right before it.
func (l *ledger) approved(r Record, next *writv1.ApproverSet) error {
	id := r.Detail[detailOperation]
	switch {
	case l.executed == nil && id == "" && l.set == nil && l.report.Start.Sequence == 0:
		return nil // the set that the quorum began with
	case l.executed == nil && l.set == nil:
		l.report.unchecked(fmt.Sprintf("record %d: whether the change of the approvers was approved stands in records that this bundle does not have", r.Sequence))
		return nil
	case l.executed == nil && id != "" && id == l.unknown:
		l.report.unchecked(fmt.Sprintf("record %d: the operation %s was proposed in records that this bundle does not have", r.Sequence, id))
		return nil
	case l.executed == nil || id != l.executed.parsed.ID:
		return fmt.Errorf("the approvers are changed by operation %q, which was not executed right before it", id)
	}
	return agrees(l.executed, next)
}

// agrees says whether a set is what an operation's document says.
func agrees(p *proposal, next *writv1.ApproverSet) error {
	var body struct {
		Set json.RawMessage `json:"set"`
	}
	signed := &writv1.ApproverSet{}
	if err := errors.Join(json.Unmarshal(p.parsed.Body, &body), approval.ReadMessage(body.Set, signed)); err != nil {
		return fmt.Errorf("the set in the document of operation %q cannot be read: %w", p.parsed.ID, err)
	}
	have := proto.CloneOf(next)
	have.Operations, signed.Operations = 0, 0
	if !proto.Equal(have, signed) {
		return fmt.Errorf("the approvers are not those in the document of operation %q, which was signed", p.parsed.ID)
	}
	return nil
}

// settled says what is missing of a change of the approvers that has been executed: it comes right behind it.
func (l *ledger) settled() error {
	if l.executed == nil || l.context {
		return nil
	}
	return fmt.Errorf("operation %q was executed, and the approvers have not changed", l.executed.parsed.ID)
}
