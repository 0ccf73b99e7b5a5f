//writ:core

package approval

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Loosens says in words what a new rule asks less for than the old one; empty: nothing. An absent rule means the approvers'
// own, which is not known here: going from it or to it counts as loosening, unless both are absent.
func Loosens(from, to *writv1.ApprovalRule) []string {
	switch {
	case from == nil && to == nil || from.GetNone():
		if from.GetNone() && Validity(to) > Validity(from) && to.GetNone() {
			return []string{longer(from, to)}
		}
		return nil
	case from == nil:
		return []string{"a rule of its own takes the place of the approvers' rule"}
	case to == nil:
		return []string{"the approvers' rule takes the place of its own"}
	case to.GetNone():
		return []string{fmt.Sprintf("nobody has to sign, instead of %s", people(from.GetPeople(), ""))}
	}
	var looser []string
	if to.GetPeople() < from.GetPeople() {
		looser = append(looser, fmt.Sprintf("%s instead of %d", people(to.GetPeople(), ""), from.GetPeople()))
	}
	for _, role := range from.GetRoles() {
		i := slices.IndexFunc(to.GetRoles(), func(r *writv1.RoleCount) bool { return r.GetRole() == role.GetRole() })
		switch {
		case i < 0:
			looser = append(looser, fmt.Sprintf("nobody with role %s, instead of %s", role.GetRole(), people(role.GetPeople(), "")))
		case to.GetRoles()[i].GetPeople() < role.GetPeople():
			looser = append(looser, fmt.Sprintf("%s with role %s, instead of %d", people(to.GetRoles()[i].GetPeople(), ""), role.GetRole(), role.GetPeople()))
		}
	}
	if Validity(to) > Validity(from) {
		looser = append(looser, longer(from, to))
	}
	return looser
}

func longer(from, to *writv1.ApprovalRule) string {
	return fmt.Sprintf("may be signed and executed for %s instead of %s", Validity(to), Validity(from))
}

// SetLoosens says in words what a new set of approvers allows that the old one did not; empty: nothing.
func SetLoosens(from, to *writv1.ApproverSet) []string {
	var looser []string
	for _, what := range Loosens(from.GetRule(), to.GetRule()) {
		looser = append(looser, "rule: "+what)
	}
	before := make(map[string]*writv1.Approver)
	for _, a := range from.GetApprovers() {
		before[a.GetName()] = a
	}
	for _, a := range to.GetApprovers() {
		old := before[a.GetName()]
		if old == nil {
			looser = append(looser, a.GetName()+" may approve")
			continue
		}
		looser = append(looser, personLoosens(old, a)...)
	}
	return looser
}

func personLoosens(from, to *writv1.Approver) []string {
	var looser []string
	for i, key := range to.GetKeys() {
		what := fmt.Sprintf("%s: key %d", to.GetName(), i+1)
		j := slices.IndexFunc(from.GetKeys(), func(k *writv1.ApproverKey) bool { return sameKey(k, key) })
		if j < 0 {
			if !key.GetRevoked() {
				looser = append(looser, what+" is new")
			}
			continue
		}
		old := from.GetKeys()[j]
		switch {
		case key.GetRevoked():
		case old.GetRevoked():
			looser = append(looser, what+" is not revoked any more")
		case old.GetExpiresAt() != nil && key.GetExpiresAt() == nil:
			looser = append(looser, what+" does not expire any more")
		case old.GetExpiresAt() != nil && key.GetExpiresAt().AsTime().After(old.GetExpiresAt().AsTime()):
			looser = append(looser, what+" expires later")
		}
	}
	for _, role := range to.GetRoles() {
		if !slices.Contains(from.GetRoles(), role) {
			looser = append(looser, to.GetName()+" has role "+role)
		}
	}
	for _, principal := range from.GetPrincipals() {
		if !slices.Contains(to.GetPrincipals(), principal) {
			looser = append(looser, fmt.Sprintf("%s is not known as %s any more", to.GetName(), principal))
		}
	}
	return looser
}

// sameKey compares keys without what stands behind them as a comment.
func sameKey(a, b *writv1.ApproverKey) bool {
	if proto.Equal(a, b) {
		return true
	}
	x, y := strings.Fields(a.GetPublicKey()), strings.Fields(b.GetPublicKey())
	return len(x) >= 2 && len(y) >= 2 && slices.Equal(x[:2], y[:2])
}
