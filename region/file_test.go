package region

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const ordersFile = `# The orders.
name: orders
regions:
  - {name: eu, role: primary, agent: agent.eu, guards: [eu-1]}
  - name: us
    role: REGION_ROLE_STANDBY
    priority: 10
    agent: agent.us
    guards: [us-1]
    writers: [app.us]
  - {name: ap, role: witness, agent: agent.ap}
rpo: {time: 5s, bytes: 16777216}
headroom: 300
automatic: [{from: eu, to: us}]
hold: 90s
drain: 2m
hooks:
  - {kind: promote, timeout: 1m}
  - {kind: HOOK_KIND_VERIFY}
  - {kind: shift, optional: true}
approvals:
  switchover: {none: true}
  failover: {people: 2, roles: [{role: sre, people: 1}], validFor: 30m}
shift: [10, 50, 100]
`

func TestParseGroups(t *testing.T) {
	specs, err := ParseGroups([]byte(ordersFile + "---\nname: bills\nregions: [{name: eu, role: primary}, {name: us, role: standby}]\n---\n"))
	if err != nil || len(specs) != 2 {
		t.Fatalf("%d specs, %v", len(specs), err)
	}
	s := specs[0]
	if s.Name != "orders" || len(s.Regions) != 3 || s.Regions[1].Priority != 10 || s.Regions[1].Role != writv1.RegionRole_REGION_ROLE_STANDBY ||
		s.Rpo.Time.AsDuration() != 5*time.Second || s.Rpo.GetBytes() != 16777216 || s.Headroom != 300 || s.Hold.AsDuration() != 90*time.Second ||
		s.Hooks[0].Kind != writv1.HookKind_HOOK_KIND_PROMOTE || !s.Hooks[2].Optional || !s.Approvals.Switchover.None ||
		s.Approvals.Failover.ValidFor.AsDuration() != 30*time.Minute || s.Shift[2] != 100 || s.Automatic[0].To != "us" {
		t.Errorf("read %v", s)
	}
	if specs[1].Name != "bills" {
		t.Errorf("the second is %v", specs[1])
	}
}

func TestParseGroupsNamesTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		line     int
		field    string
	}{
		"unknown field":        {"headroom: 300", "head_room: 300", 13, "head_room"},
		"field twice":          {"headroom: 300", "headroom: 300\nheadroom: 10", 14, "headroom"},
		"other spelling twice": {"drain: 2m", "drain: 2m\ndrain: 3m", 17, "drain"},
		"unknown nested field": {"priority: 10", "prio: 10", 7, "regions[1].prio"},
		"number for text":      {"name: us\n", "name: 12\n", 5, "regions[1].name"},
		"text for number":      {"priority: 10", "priority: high", 7, "regions[1].priority"},
		"negative":             {"headroom: 300", "headroom: -1", 13, "headroom"},
		"no duration":          {"hold: 90s", "hold: 90", 15, "hold"},
		"unknown role":         {"REGION_ROLE_STANDBY", "boss", 6, "regions[1].role"},
		"unspecified role":     {"REGION_ROLE_STANDBY", "unspecified", 6, "regions[1].role"},
		"scalar for list":      {"guards: [us-1]\n    writers", "guards: us-1\n    writers", 9, "regions[1].guards"},
		"empty value":          {"hold: 90s", "hold:", 15, "hold"},
		"empty item":           {"guards: [us-1]\n    writers", "guards: [~]\n    writers", 9, "regions[1].guards[0]"},
		"list for mapping":     {"rpo: {time: 5s, bytes: 16777216}", "rpo: [1]", 12, "rpo"},
		"an alias":             {"rpo: {time: 5s, bytes: 16777216}", "rpo: &a {time: 5s}\napprovals: *a", 13, "approvals"},
		"merged":               {"headroom: 300", "<<: {headroom: 300}", 13, "<<"},
		"syntax":               {"headroom: 300", "headroom: [300", 13, ""},
		"refused by the spec":  {"REGION_ROLE_STANDBY", "primary", 6, "regions[1].role"},
		"refused, deep":        {"people: 2, roles", "people: 1, roles", 23, "approvals.failover.people"},
		"refused, not there":   {"hold: 90s\n", "hold: 1s\n", 15, "hold"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(ordersFile, c.from) {
				t.Fatal("the test changes nothing")
			}
			_, err := ParseGroups([]byte(strings.Replace(ordersFile, c.from, c.to, 1)))
			var at *FileError
			if !errors.As(err, &at) || at.Field != c.field || at.Fix == "" {
				t.Fatalf("%v", err)
			}
			if at.Line != c.line && name != "syntax" {
				t.Errorf("line %d, want %d: %v", at.Line, c.line, err)
			}
		})
	}
	for name, file := range map[string]string{"empty": "", "comment": "# nothing\n", "only separators": "---\n---\n", "same name twice": ordersFile + "---\n" + ordersFile,
		"too large": strings.Repeat("#\n", MaxFileBytes)} {
		if _, err := ParseGroups([]byte(file)); !errors.As(err, new(*FileError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseGroups(f *testing.F) {
	f.Add([]byte(ordersFile))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [a]\n: b\n---\n{}"))
	f.Fuzz(func(t *testing.T, file []byte) {
		specs, err := ParseGroups(file)
		if err != nil {
			var at *FileError
			if !errors.As(err, &at) || at.Line < 0 || at.Problem == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		for _, s := range specs {
			n, err := normal(s)
			if err != nil {
				t.Fatalf("read, and then refused: %v", err)
			}
			again, err := normal(n)
			if err != nil || !proto.Equal(n, again) {
				t.Fatalf("normal changes what is normal: %v", err)
			}
		}
	})
}
