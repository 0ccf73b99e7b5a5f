package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/region/approval"
)

// showDocument writes all that a document says, for the person who is asked to sign it, and answers it read. Nothing of it is
// left out, however little is known of it here; and nothing in it can move a cursor or look like a line of its own.
func (a *app) showDocument(w io.Writer, doc []byte) (approval.Document, error) {
	d, err := approval.ParseDocument(doc)
	if err != nil {
		return approval.Document{}, err
	}
	var body map[string]any
	dec := json.NewDecoder(bytes.NewReader(d.Body))
	dec.UseNumber()
	if err := dec.Decode(&body); err != nil {
		return approval.Document{}, fmt.Errorf("the document's body: %w", err)
	}
	left := cell{text: "expired " + span(a.now().Sub(d.Expires)) + " ago", style: bad}
	if until := d.Expires.Sub(a.now()); until > 0 {
		left = text("in " + span(until))
	}
	left.text = d.Expires.Format(time.RFC3339) + ", " + left.text
	lines := []pair{
		{"operation", text(shown(d.ID))},
		{"kind", text(shown(d.Kind))},
		{"group", text(shown(d.Group))},
	}
	if d.Group == "" {
		lines[2].value.text = "(none)"
	}
	lines = append(lines, bodyLines(body)...)
	lines = append(lines,
		pair{"requester", text(shown(d.Requester))},
		pair{"created", text(d.Created.Format(time.RFC3339) + ", " + span(max(0, a.now().Sub(d.Created))) + " ago")},
		pair{"expires", left},
		pair{"approvers' version", text(strconv.FormatUint(d.PolicyVersion, 10))},
		pair{"cluster", text(fmt.Sprintf("%s, epoch %d, incarnation %s", shown(d.Cluster), d.Epoch, shown(d.Incarnation)))},
		pair{"SHA-256", text(approval.Digest(doc))},
	)
	a.pairs(w, lines...)
	return d, nil
}

// member is a member of a body that people know by another name, or that is shown in another way.
type member struct {
	path, name string
	show       func(any) cell
}

// members are in the order in which they are read; what else a body has follows.
var members = []member{
	{"promotion", "promotion", nil},
	{"from", "from", nil},
	{"to", "to", nil},
	{"mode", "mode", modeCell},
	{"expected_token", "expected token", tokenCell},
	{"guard", "guard", nil},
	{"region", "guard's region", nil},
	{"session", "guard's enrolment", nil},
	{"store", "guard's floors", nil},
	{"tenures", "answers for", tenuresCell},
	{"token", "token", tokenCell},
	{"disposition", "disposition", nil},
	{"evidence.lag", "lag", unknownCell},
	{"evidence.estimated_loss", "estimated loss", lossCell},
	{"evidence.silence", "last heard of from", silenceCell},
	{"loss_cap", "loss cap", capCell},
	{"automatic", "automatic", nil},
	{"evidence.positions.from", "position of from", positionCell},
	{"evidence.positions.to", "position of to", positionCell},
	{"evidence.observed", "evidence", nil},
	{"reason", "reason", nil},
	{"supersedes", "takes the place of", nil},
	{"group_version", "group's version", nil},
}

func bodyLines(body map[string]any) []pair {
	var lines []pair
	for _, m := range members {
		value, ok := take(body, strings.Split(m.path, "."))
		if !ok {
			continue
		}
		switch {
		case m.name == "evidence":
			lines = append(lines, evidenceLines(m.name, value)...)
		case m.show == nil:
			lines = append(lines, flat(m.name, value)...)
		default:
			lines = append(lines, pair{m.name, m.show(value)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(body)) {
		// So that none looks like what stands outside of the body.
		lines = append(lines, flat("body."+memberName(name), body[name])...)
	}
	return lines
}

// take removes what stands at a path, and an object that is empty without it.
func take(object map[string]any, path []string) (any, bool) {
	value, ok := object[path[0]]
	if !ok {
		return nil, false
	}
	if len(path) == 1 {
		delete(object, path[0])
		return value, true
	}
	below, ok := value.(map[string]any)
	if !ok {
		return nil, false
	}
	value, ok = take(below, path[1:])
	if ok && len(below) == 0 {
		delete(object, path[0])
	}
	return value, ok
}

// flat gives each value within a value a line.
func flat(name string, value any) []pair {
	var lines []pair
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return []pair{{name, text("{}")}}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			lines = append(lines, flat(name+"."+memberName(key), v[key])...)
		}
		return lines
	case []any:
		if len(v) == 0 {
			return []pair{{name, text("(none)")}}
		}
		for i, element := range v {
			lines = append(lines, flat(fmt.Sprintf("%s[%d]", name, i+1), element)...)
		}
		return lines
	}
	return []pair{{name, text(scalar(value))}}
}

func memberName(name string) string {
	if strings.ContainsAny(name, ".[") {
		return strconv.Quote(name)
	}
	return shown(name)
}

// evidenceLines gives what each observer said a line.
func evidenceLines(name string, value any) []pair {
	all, ok := value.([]any)
	if !ok || len(all) == 0 {
		return flat(name, value)
	}
	var lines []pair
	for i, one := range all {
		object, _ := one.(map[string]any)
		var values [4]string
		known := len(object) == len(values)
		for j, key := range []string{"observer", "about", "what", "since"} {
			s, is := object[key].(string)
			values[j], known = shown(s), known && is
		}
		if !known {
			lines = append(lines, flat(fmt.Sprintf("%s[%d]", name, i+1), one)...)
			continue
		}
		lines = append(lines, pair{name, text(fmt.Sprintf("%s says of %s: %s, since %s", values[0], values[1], values[2], values[3]))})
	}
	return lines
}

func scalar(value any) string {
	switch v := value.(type) {
	case string:
		return shown(v)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case nil:
		return "(nothing)"
	}
	raw, _ := json.Marshal(value) // it comes from JSON
	return shown(string(raw))
}

func modeCell(value any) cell {
	c := text(scalar(value))
	if value == "failover" {
		c.style = weak
	}
	return c
}

// tenuresCell names the groups that rely on a guard.
func tenuresCell(value any) cell {
	all, ok := value.([]any)
	var names []string
	for _, one := range all {
		t, _ := one.(map[string]any)
		group, named := t["group"].(string)
		resource, held := t["resource"].(string)
		ok = ok && named && held && len(t) == 2
		name := shown(group)
		if resource != group {
			name += " (" + shown(resource) + ")"
		}
		names = append(names, name)
	}
	if !ok {
		return text(scalar(value))
	}
	return text(cmp.Or(strings.Join(names, ", "), "(none)"))
}

func tokenCell(value any) cell {
	s, _ := value.(string)
	n, err := strconv.ParseInt(s, 10, 64)
	if t := fence.Token(n); err == nil && t.Valid() && t.Decimal() == s {
		return text(bothTokens(uint64(n), t.String()))
	}
	return text(scalar(value))
}

func unknownCell(value any) cell {
	c := text(scalar(value))
	if value == "unknown" {
		c.style = bad
	}
	return c
}

func lossCell(value any) cell {
	if object, ok := value.(map[string]any); ok && len(object) == 0 {
		return cell{text: "unknown: it may be any amount", style: bad}
	}
	return lossText(value)
}

func silenceCell(value any) cell {
	s, ok := value.(string)
	if !ok || s == "unknown" {
		return unknownCell(value)
	}
	return text(shown(s) + " before")
}

func capCell(value any) cell {
	object, ok := value.(map[string]any)
	switch {
	case value == nil:
		return text("none of its own: the group's rpo")
	case ok && len(object) == 0:
		return cell{text: "none: any loss is accepted", style: bad}
	}
	return lossText(value)
}

// lossText shows bytes and time, if they are all that there is.
func lossText(value any) cell {
	object, _ := value.(map[string]any)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(object)) {
		s, ok := object[name].(string)
		switch {
		case name == "bytes" && ok:
			parts = append(parts, shown(s)+" bytes")
		case name == "at_least_bytes" && ok:
			parts = append(parts, "at least "+shown(s)+" bytes, and what was written since")
		case name == "time" && ok:
			parts = append(parts, shown(s))
		default:
			return text(scalar(value))
		}
	}
	if len(parts) == 0 {
		return text(scalar(value))
	}
	return text(strings.Join(parts, ", "))
}

func positionCell(value any) cell {
	object, ok := value.(map[string]any)
	var values [3]string
	for i, name := range []string{"text", "bytes", "log"} {
		s, is := object[name].(string)
		values[i], ok = shown(s), ok && is
	}
	if !ok || len(object) != len(values) {
		return unknownCell(value)
	}
	return text(fmt.Sprintf("%s (%s bytes of log %s)", values[0], values[1], values[2]))
}

// shown writes text of anybody's making so that it stays on its line and is what it looks like: quoted and escaped, if it has
// characters that do not print, or runs of spaces that could push something onto a line of its own.
func shown(s string) string {
	strange := s == "" || strings.HasPrefix(s, `"`) || strings.HasPrefix(s, "(") || strings.TrimSpace(s) != s || strings.Contains(s, "  ") ||
		!utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	if !strange {
		return s
	}
	return strings.ReplaceAll(strconv.Quote(s), "  ", `\x20\x20`)
}
