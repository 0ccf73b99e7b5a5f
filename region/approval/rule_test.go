package approval

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

func role(name string, people uint32) *writv1.RoleCount {
	return &writv1.RoleCount{Role: name, People: people}
}

func TestCheckRule(t *testing.T) {
	for _, test := range []struct {
		rule      *writv1.ApprovalRule
		mayBeNone bool
		want      string
	}{
		{nil, false, ""},
		{&writv1.ApprovalRule{People: 2}, false, ""},
		{&writv1.ApprovalRule{None: true}, true, ""},
		{&writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{role("dba", 2), role("net-1", 1)}, ValidFor: durationpb.New(time.Minute)}, false, ""},
		{&writv1.ApprovalRule{None: true}, false, "f.none is not possible here"},
		{&writv1.ApprovalRule{None: true, People: 2}, true, "f.none contradicts people and roles"},
		{&writv1.ApprovalRule{None: true, Roles: []*writv1.RoleCount{role("dba", 1)}}, true, "f.none contradicts people and roles"},
		{&writv1.ApprovalRule{}, true, "f.people is 0"},
		{&writv1.ApprovalRule{People: 1}, true, "f.people is 1"},
		{&writv1.ApprovalRule{People: 257}, false, "f.people is 257"},
		{&writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{role("", 1)}}, false, `f.roles[0].role "" is no name of a role`},
		{&writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{role("1a", 1)}}, false, `f.roles[0].role "1a" is no name of a role`},
		{&writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{role("a", 1), role("a", 1)}}, false, `f.roles[1].role "a" stands there twice`},
		{&writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{role("a", 0)}}, false, `f.roles[0].people is 0`},
		{&writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{role("a", 3)}}, false, `f.roles[0].people is 3, more than the 2 of the whole rule; raise f.people to 3`},
		{&writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(time.Minute - 1)}, false, `f.valid_for is 59.999999999s`},
		{&writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(-time.Hour)}, false, `f.valid_for is -1h0m0s`},
		{&writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(MaxValidity + 1)}, false, `f.valid_for is 168h0m0.000000001s`},
		{&writv1.ApprovalRule{None: true, ValidFor: durationpb.New(0)}, true, `f.valid_for is 0s`},
	} {
		err := CheckRule("f", test.rule, test.mayBeNone)
		if test.want == "" {
			if err != nil {
				t.Errorf("%v: %v", test.rule, err)
			}
			continue
		}
		var field *FieldError
		if !errors.As(err, &field) || !strings.HasPrefix(err.Error(), test.want) || field.Fix == "" {
			t.Errorf("%v: %v; want %q", test.rule, err, test.want)
		}
	}
}

func TestSatisfiable(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	s := checked(t, setOf(approver("ada", a), approver("bob", b)))
	for want, rule := range map[string]*writv1.ApprovalRule{
		"":                             nil,
		"f.people is 3":                {People: 3},
		"f.roles[1] asks for 1 person": {People: 2, Roles: []*writv1.RoleCount{role("x", 0), role("dba", 1)}},
	} {
		if err := s.Satisfiable("f", rule); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	if err := s.Satisfiable("f", &writv1.ApprovalRule{None: true}); err != nil {
		t.Error(err)
	}
}

func TestLoosens(t *testing.T) {
	base := &writv1.ApprovalRule{People: 3, Roles: []*writv1.RoleCount{role("dba", 2), role("net", 1)}}
	none := &writv1.ApprovalRule{None: true}
	with := func(change func(*writv1.ApprovalRule)) *writv1.ApprovalRule {
		rule := proto.CloneOf(base)
		change(rule)
		return rule
	}
	for i, test := range []struct {
		from, to *writv1.ApprovalRule
		want     []string
	}{
		{nil, nil, nil},
		{base, base, nil},
		{none, none, nil},
		{none, base, nil},
		{none, nil, nil},
		{none, &writv1.ApprovalRule{None: true, ValidFor: durationpb.New(2 * time.Hour)}, []string{"may be signed and executed for 2h0m0s instead of 1h0m0s"}},
		{base, none, []string{"nobody has to sign, instead of 3 people"}},
		{nil, none, []string{"a rule of its own takes the place of the approvers' rule"}},
		{nil, base, []string{"a rule of its own takes the place of the approvers' rule"}},
		{base, nil, []string{"the approvers' rule takes the place of its own"}},
		{base, with(func(r *writv1.ApprovalRule) { r.People = 4 }), nil},
		{base, with(func(r *writv1.ApprovalRule) { r.Roles = append(r.Roles, role("sec", 1)) }), nil},
		{base, with(func(r *writv1.ApprovalRule) { slices.Reverse(r.Roles) }), nil},
		{base, with(func(r *writv1.ApprovalRule) { r.ValidFor = durationpb.New(time.Minute) }), nil},
		{base, with(func(r *writv1.ApprovalRule) { r.People = 2 }), []string{"2 people instead of 3"}},
		{base, with(func(r *writv1.ApprovalRule) { r.Roles[0].People = 1 }), []string{"1 person with role dba, instead of 2"}},
		{base, with(func(r *writv1.ApprovalRule) { r.Roles = r.Roles[:1] }), []string{"nobody with role net, instead of 1 person"}},
		{base, with(func(r *writv1.ApprovalRule) { r.ValidFor = durationpb.New(61 * time.Minute) }), []string{"may be signed and executed for 1h1m0s instead of 1h0m0s"}},
		{base, &writv1.ApprovalRule{People: 2}, []string{"2 people instead of 3", "nobody with role dba, instead of 2 people", "nobody with role net, instead of 1 person"}},
	} {
		if got := Loosens(test.from, test.to); !slices.Equal(got, test.want) {
			t.Errorf("%d: %q, want %q", i, got, test.want)
		}
	}
}

func TestSetLoosens(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	_, c := newKey(t)
	base := setOf(approver("ada", a), approver("bob", b))
	base.Approvers[0].Keys[0].ExpiresAt = timestamppb.New(now)
	base.Approvers[1].Keys[0].Revoked = true
	base.Approvers[1].Principals = []string{"spiffe://bob"}
	for name, test := range map[string]struct {
		change func(*writv1.ApproverSet)
		want   []string
	}{
		"nothing":   {func(*writv1.ApproverSet) {}, nil},
		"comment":   {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[0].PublicKey += " laptop" }, nil},
		"sooner":    {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[0].ExpiresAt = timestamppb.New(now.Add(-1)) }, nil},
		"revoked":   {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[0].Revoked = true }, nil},
		"fewer":     {func(s *writv1.ApproverSet) { s.Approvers = s.Approvers[:1] }, nil},
		"later":     {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[0].ExpiresAt = timestamppb.New(now.Add(1)) }, []string{"ada: key 1 expires later"}},
		"never":     {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[0].ExpiresAt = nil }, []string{"ada: key 1 does not expire any more"}},
		"restored":  {func(s *writv1.ApproverSet) { s.Approvers[1].Keys[0].Revoked = false }, []string{"bob: key 1 is not revoked any more"}},
		"other key": {func(s *writv1.ApproverSet) { s.Approvers[0].Keys[0].PublicKey = c }, []string{"ada: key 1 is new"}},
		"person":    {func(s *writv1.ApproverSet) { s.Approvers = append(s.Approvers, approver("eve", c)) }, []string{"eve may approve"}},
		"role":      {func(s *writv1.ApproverSet) { s.Approvers[0].Roles = []string{"dba"} }, []string{"ada has role dba"}},
		"principal": {func(s *writv1.ApproverSet) { s.Approvers[1].Principals = nil }, []string{"bob is not known as spiffe://bob any more"}},
		"rule": {func(s *writv1.ApproverSet) { s.Rule.ValidFor = durationpb.New(2 * time.Hour) }, []string{
			"rule: may be signed and executed for 2h0m0s instead of 1h0m0s"}},
	} {
		to := proto.CloneOf(base)
		test.change(to)
		if got := SetLoosens(base, to); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// crew is a set of people who have several keys and several roles each.
func crew(t *testing.T) *Set {
	var approvers []*writv1.Approver
	for i := range 5 {
		var lines []string
		for range i%3 + 1 {
			_, l := newKey(t)
			lines = append(lines, l)
		}
		a := approver(fmt.Sprintf("p%d", i), lines...)
		a.Principals = []string{fmt.Sprintf("spiffe://p%d", i)}
		for j, r := range []string{"dba", "net", "sec"} {
			if i>>j&1 == 1 {
				a.Roles = append(a.Roles, r)
			}
		}
		approvers = append(approvers, a)
	}
	return checked(t, setOf(approvers...))
}

func TestMissingProperties(t *testing.T) {
	s := crew(t)
	var all []Signer
	for _, p := range s.people {
		for _, k := range p.keys {
			all = append(all, Signer{p.name, k.fingerprint})
		}
	}
	all = append(all, Signer{"stranger", "SHA256:x"})
	rapid.Check(t, func(t *rapid.T) {
		rule := &writv1.ApprovalRule{People: rapid.Uint32Range(0, 5).Draw(t, "people")}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"dba", "net", "sec"}), 0, 3, rapid.ID).Draw(t, "roles") {
			rule.Roles = append(rule.Roles, role(name, rapid.Uint32Range(1, 3).Draw(t, name)))
		}
		requester := rapid.SampledFrom([]string{"", "spiffe://p1", "spiffe://other", "p2"}).Draw(t, "requester")
		signers := rapid.SliceOfN(rapid.SampledFrom(all), 0, 10).Draw(t, "signers")

		missing := s.Missing(rule, requester, signers)
		short := s.shortfall(rule, requester, signers)

		// More signatures never make it worse.
		more := s.shortfall(rule, requester, append(slices.Clone(signers), rapid.SampledFrom(all).Draw(t, "next")))
		if more.people > short.people || more.other && !short.other {
			t.Fatalf("one more signature lacks %+v after %+v", more, short)
		}
		for i := range more.roles {
			if more.roles[i] > short.roles[i] {
				t.Fatalf("one more signature lacks %+v after %+v", more, short)
			}
		}
		// Other keys of the same people change nothing, nor does the order.
		again := slices.Clone(signers)
		for _, signer := range signers {
			again = append(again, Signer{signer.Approver, "another key"})
		}
		slices.Reverse(again)
		if got := s.Missing(rule, requester, again); got != missing {
			t.Fatalf("%q with one key each, %q with two", missing, got)
		}
		// An independent count.
		distinct, others := map[string]bool{}, 0
		for _, signer := range signers {
			if p := s.byName[signer.Approver]; p != nil && !distinct[p.name] {
				distinct[p.name] = true
				if p.name != requester && p.principals[0] != requester {
					others++
				}
			}
		}
		enough := len(distinct) >= int(max(rule.GetPeople(), 2)) && others > 0
		for _, r := range rule.GetRoles() {
			have := 0
			for _, p := range s.people {
				if distinct[p.name] && slices.Contains(p.roles, r.GetRole()) {
					have++
				}
			}
			enough = enough && have >= int(r.GetPeople())
		}
		if (missing == "") != enough {
			t.Fatalf("missing %q, and enough is %v", missing, enough)
		}
	})
}

// Whoever satisfies rules together satisfies each of them, and the other way round, but for one person alone or nobody.
func TestTogether(t *testing.T) {
	set := crew(t)
	rapid.Check(t, func(t *rapid.T) {
		var rules []*writv1.ApprovalRule
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			rule := &writv1.ApprovalRule{People: rapid.Uint32Range(2, 3).Draw(t, "people")}
			for _, name := range []string{"dba", "net"} {
				if n := rapid.Uint32Range(0, rule.People).Draw(t, name); n > 0 {
					rule.Roles = append(rule.Roles, role(name, n))
				}
			}
			if rapid.Bool().Draw(t, "none") {
				rule = &writv1.ApprovalRule{None: true}
			}
			if n := rapid.IntRange(0, 300).Draw(t, "minutes"); n > 0 {
				rule.ValidFor = durationpb.New(time.Duration(n) * time.Minute)
			}
			rules = append(rules, rule)
		}
		all := Together(rules)
		if err := CheckRule("rule", all, false); err != nil {
			t.Fatalf("%v together are %v: %v", rules, all, err)
		}
		var signers []Signer
		for _, p := range set.people {
			if rapid.Bool().Draw(t, p.name) {
				signers = append(signers, Signer{Approver: p.name})
			}
		}
		each := len(signers) >= 2
		for _, rule := range rules {
			each = each && set.Missing(rule, "", signers) == ""
			if Validity(all) > Validity(rule) {
				t.Fatalf("%v together may be signed for longer: %v", rules, all)
			}
		}
		if got := set.Missing(all, "", signers) == ""; got != each {
			t.Fatalf("%v satisfy %v: %t, and together %v: %t", signers, rules, each, all, got)
		}
	})
}
