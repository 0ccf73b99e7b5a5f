package region

import (
	"errors"
	"strings"
	"testing"

	"github.com/writ-io/writ/region/approval"
)

func peopleFile() string {
	return `rule: {people: 2, roles: [{role: dba, people: 1}]}
approvers:
  - name: ann
    keys:
      - ` + publicText(annKey) + ` ann@laptop
      - public_key: ` + publicText(annOther) + `
        expires_at: 2030-01-31T12:00:00Z
    roles: [sre]
    principals: [ann.example.org]
  - name: bob
    keys: ["` + publicText(bobKey) + `"]
    roles: [dba]
`
}

func TestParseApprovers(t *testing.T) {
	set, err := ParseApprovers([]byte(peopleFile()))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Approvers) != 2 || len(set.Approvers[0].Keys) != 2 || set.Approvers[0].Keys[1].ExpiresAt.AsTime().Year() != 2030 || set.Rule.People != 2 {
		t.Errorf("read %v", set)
	}
	if _, err := approval.NewSet(set); err != nil {
		t.Error(err)
	}
}

func TestParseApproversNamesTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		line     int
		field    string
	}{
		"a broken key":          {publicText(annOther), publicText(annOther)[:40], 6, "approvers[ann].keys[2].public_key"},
		"a broken key, short":   {publicText(annKey) + " ann@laptop", "ssh-ed25519 AAAA", 5, "approvers[ann].keys[1].public_key"},
		"one key twice":         {publicText(annOther), publicText(annKey), 6, "approvers[ann].keys[2].public_key"},
		"one person":            {"people: 2,", "people: 1,", 1, "rule.people"},
		"a role of nobody":      {"role: dba,", "role: boss,", 1, "rule.roles[0]"},
		"a name twice":          {"name: bob", "name: ann", 10, "approvers[1].name"},
		"a time without a zone": {"2030-01-31T12:00:00Z", "2030-01-31", 7, "approvers[0].keys[1].expires_at"},
		"an unknown field":      {"principals:", "principal:", 9, "approvers[0].principal"},
		"a broken role":         {"roles: [sre]", "roles: [SRE]", 8, "approvers[ann].roles"},
		"another document":      {"approvers:\n", "---\napprovers:\n", 1, "rule.people"},
	} {
		t.Run(name, func(t *testing.T) {
			file := strings.Replace(peopleFile(), c.from, c.to, 1)
			if file == peopleFile() {
				t.Fatal("the test changes nothing")
			}
			_, err := ParseApprovers([]byte(file))
			var at *FileError
			if !errors.As(err, &at) || at.Field != c.field || at.Line != c.line || at.Fix == "" {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := ParseApprovers(nil); err == nil {
		t.Error("nothing is a set")
	}
	if _, err := ParseApprovers([]byte(peopleFile() + "---\n" + peopleFile())); err == nil || !strings.Contains(err.Error(), "another document") {
		t.Errorf("two documents: %v", err)
	}
}

func FuzzParseApprovers(f *testing.F) {
	f.Add([]byte(peopleFile()))
	f.Add([]byte("approvers: [{name: a, keys: [x]}]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		set, err := ParseApprovers(file)
		if err != nil {
			if !errors.As(err, new(*FileError)) {
				t.Fatalf("%#v", err)
			}
			return
		}
		if _, err := approval.NewSet(set); err != nil {
			t.Fatalf("read, and then refused: %v", err)
		}
	})
}
