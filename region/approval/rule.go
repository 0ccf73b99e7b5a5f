//writ:core

package approval

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/sim/mutant"
)

const (
	// DefaultValidity is how long a plan may be signed and executed where the rule does not say.
	DefaultValidity = time.Hour
	// MinValidity is the least that a rule may say of that, and MaxValidity the most.
	MinValidity = time.Minute
	// MaxValidity bounds it from above.
	MaxValidity = 7 * 24 * time.Hour

	minPeople    = 2
	maxRoleBytes = 64
)

// Validity is how long what the rule governs may be signed and executed.
func Validity(rule *writv1.ApprovalRule) time.Duration {
	if rule.GetValidFor() == nil {
		return DefaultValidity
	}
	return rule.GetValidFor().AsDuration()
}

// CheckRule says what is wrong with a rule, as a *FieldError below field. An absent rule is in order: the approvers' own is
// meant. mayBeNone says whether the rule may be that nobody has to sign.
func CheckRule(field string, rule *writv1.ApprovalRule, mayBeNone bool) error {
	switch {
	case rule == nil:
		return nil
	case rule.GetNone() && !mayBeNone:
		return &FieldError{field + ".none", "is not possible here", "ask for at least 2 people; only switchovers and drills may go without"}
	case rule.GetNone() && (rule.GetPeople() != 0 || len(rule.GetRoles()) > 0):
		return &FieldError{field + ".none", "contradicts people and roles", "leave out one or the other"}
	case !rule.GetNone() && rule.GetPeople() < minPeople:
		return &FieldError{field + ".people", fmt.Sprintf("is %d", rule.GetPeople()), "ask for at least 2: one person alone must never be enough"}
	case rule.GetPeople() > maxApprovers:
		return &FieldError{field + ".people", fmt.Sprintf("is %d", rule.GetPeople()), fmt.Sprintf("ask for at most %d", maxApprovers)}
	}
	seen := make(map[string]bool)
	for i, role := range rule.GetRoles() {
		at := fmt.Sprintf("%s.roles[%d]", field, i)
		switch name := role.GetRole(); {
		case checkRole(name) != "":
			return &FieldError{at + ".role", checkRole(name), roleFix}
		case seen[name]:
			return &FieldError{at + ".role", fmt.Sprintf("%q stands there twice", name), "name each role once, with the number of people"}
		case role.GetPeople() == 0:
			return &FieldError{at + ".people", "is 0", "ask for at least 1, or leave the role out"}
		case role.GetPeople() > rule.GetPeople():
			return &FieldError{at + ".people", fmt.Sprintf("is %d, more than the %d of the whole rule", role.GetPeople(), rule.GetPeople()), fmt.Sprintf("raise %s.people to %d", field, role.GetPeople())}
		default:
			seen[name] = true
		}
	}
	if d := rule.GetValidFor(); d != nil && (d.CheckValid() != nil || d.AsDuration() < MinValidity || d.AsDuration() > MaxValidity) {
		return &FieldError{field + ".valid_for", fmt.Sprintf("is %s", d.AsDuration()), "take 1m to 168h, or leave it out for 1h"}
	}
	return nil
}

const roleFix = "take 1 to 64 of a-z, 0-9 and '-', beginning with a letter"

// Together is the rule that is satisfied where each of rules is, and by no fewer than two people though one says that nobody has
// to sign. What it governs is valid for no longer than any of them says. An absent rule asks for nothing.
func Together(rules []*writv1.ApprovalRule) *writv1.ApprovalRule {
	all := &writv1.ApprovalRule{People: minPeople}
	validity := MaxValidity
	for _, rule := range rules {
		all.People = max(all.People, rule.GetPeople())
		validity = min(validity, Validity(rule))
		for _, role := range rule.GetRoles() {
			i, found := slices.BinarySearchFunc(all.Roles, role.GetRole(), func(r *writv1.RoleCount, name string) int { return strings.Compare(r.GetRole(), name) })
			if !found {
				all.Roles = slices.Insert(all.Roles, i, &writv1.RoleCount{Role: role.GetRole()})
			}
			all.Roles[i].People = max(all.Roles[i].People, role.GetPeople())
		}
	}
	if len(rules) == 0 {
		validity = DefaultValidity
	}
	all.ValidFor = durationpb.New(validity)
	return all
}

// ForLoosening is the rule that a change has to satisfy which loosens others: the rule for changes, and each of those that are
// loosened, together. None of them is absent. Rules that nobody signs by, and those that say the same, add nothing.
func ForLoosening(change *writv1.ApprovalRule, loosened []*writv1.ApprovalRule) *writv1.ApprovalRule {
	var all []*writv1.ApprovalRule
	for _, rule := range append([]*writv1.ApprovalRule{change}, loosened...) {
		if !rule.GetNone() && !slices.ContainsFunc(all, func(o *writv1.ApprovalRule) bool { return proto.Equal(o, rule) }) {
			all = append(all, rule)
		}
	}
	if len(all) == 0 || len(all) == 1 && proto.Equal(all[0], change) {
		return change
	}
	return Together(all)
}

// checkRole says what is wrong with the name of a role; empty: nothing.
func checkRole(name string) string {
	ok := len(name) > 0 && len(name) <= maxRoleBytes && name[0] >= 'a' && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Sprintf("%.80q is no name of a role", name)
	}
	return ""
}

// Satisfiable says, as a *FieldError below field, why the approvers could not satisfy the rule though all of them signed.
// Who has only revoked keys does not count. An absent rule means the set's own.
func (s *Set) Satisfiable(field string, rule *writv1.ApprovalRule) error {
	if rule == nil {
		rule = s.rule
	}
	if rule.GetNone() {
		return nil
	}
	var all []Signer
	for _, p := range s.people {
		if p.usable {
			all = append(all, Signer{Approver: p.name})
		}
	}
	short := s.shortfall(rule, "", all)
	if short.people > 0 {
		return &FieldError{field + ".people", fmt.Sprintf("is %d, and the set has %s who can sign", rule.GetPeople(), people(uint32(len(all)), "")), "add approvers, or ask for fewer people"}
	}
	for i, lacking := range short.roles {
		if role := rule.GetRoles()[i]; lacking > 0 {
			return &FieldError{
				fmt.Sprintf("%s.roles[%d]", field, i),
				fmt.Sprintf("asks for %s, and the set has %d who can sign", people(role.GetPeople(), " with role "+role.GetRole()), role.GetPeople()-lacking),
				"give the role to more approvers, or ask for fewer",
			}
		}
	}
	return nil
}

// Missing says in words which signatures a rule wants besides those of signers, which have been verified; empty: none.
// Distinct people count, roles are AND-ed, one person may fill several roles, and somebody other than the requester has to be
// among them. requester is the identity of who asked, as in a certificate. An absent rule means the set's own.
func (s *Set) Missing(rule *writv1.ApprovalRule, requester string, signers []Signer) string {
	if rule == nil {
		rule = s.rule
	}
	if rule.GetNone() {
		return ""
	}
	return s.shortfall(rule, requester, signers).text(rule)
}

// SamePerson says whether two signatures are of one person, who counts once whatever keys there are.
func SamePerson(a, b Signer) bool {
	return a.Approver == b.Approver && (a.Key == b.Key || !mutant.On(mutant.OnePersonTwice))
}

// shortfall is what lacks.
type shortfall struct {
	people uint32
	// Of the rule's roles, in its order.
	roles []uint32
	// Nobody but the requester has signed.
	other bool
}

func (s *Set) shortfall(rule *writv1.ApprovalRule, requester string, signers []Signer) shortfall {
	var counted []Signer
	others, asked := uint32(0), false
	for _, signer := range signers {
		p := s.byName[signer.Approver]
		if p == nil || slices.ContainsFunc(counted, func(c Signer) bool { return SamePerson(c, signer) }) {
			continue // a second key of a person adds nothing
		}
		counted = append(counted, signer)
		if requester != "" && (p.name == requester || slices.Contains(p.principals, requester)) {
			asked = true
		} else {
			others++
		}
	}
	short := shortfall{people: less(max(rule.GetPeople(), minPeople), uint32(len(counted))), other: others == 0}
	if asked && mutant.On(mutant.RequesterAlone) {
		short.people, short.other = 0, false
	}
	for _, role := range rule.GetRoles() {
		have := uint32(0)
		for _, signer := range counted {
			if slices.Contains(s.byName[signer.Approver].roles, role.GetRole()) {
				have++
			}
		}
		short.roles = append(short.roles, less(role.GetPeople(), have))
	}
	return short
}

func less(want, have uint32) uint32 { return want - min(want, have) }

func (f shortfall) text(rule *writv1.ApprovalRule) string {
	more := f.people
	for _, lacking := range f.roles {
		more = max(more, lacking)
	}
	if f.other {
		more = max(more, 1)
	}
	if more == 0 {
		return ""
	}
	count := "1 more person"
	if more > 1 {
		count = fmt.Sprintf("%d more people", more)
	}
	if f.other && more == 1 { // of two, one is somebody else
		count += " other than the requester"
	}
	var conditions []string
	for i, lacking := range f.roles {
		role := rule.GetRoles()[i].GetRole()
		switch {
		case lacking == 0:
		case more == 1:
			conditions = append(conditions, "with role "+role)
		default:
			conditions = append(conditions, fmt.Sprintf("%s of them with role %s", number(lacking), role))
		}
	}
	switch {
	case len(conditions) == 0:
		return count
	case more == 1:
		return count + " " + strings.Join(conditions, " and ")
	}
	return count + ", " + strings.Join(conditions, ", ")
}

func number(n uint32) string {
	if n == 1 {
		return "one"
	}
	return fmt.Sprint(n)
}

func people(n uint32, suffix string) string {
	if n == 1 {
		return "1 person" + suffix
	}
	return fmt.Sprintf("%d people%s", n, suffix)
}
