//writ:core

package lease

import "strings"

// What the table tells for the audit log. Who held a guarded resource is on record, for its storage is worth a guard; of
// other resources, leases are too many and too short.

// note tells something for the audit log.
func (t *Table) note(n Note) {
	t.effects.Notes = append(t.effects.Notes, n)
	t.noteBytes += n.size()
}

// noteLate is note outside of a step.
func (t *Table) noteLate(n Note) { t.lateNotes = append(t.lateNotes, n) }

// noteGrant tells of the grant of a guarded resource.
func (t *Table) noteGrant(e *entry) {
	if t.guarded(e.name) == nil {
		return
	}
	detail := map[string]string{"token": e.token.Decimal(), "holder": e.by().String()}
	if region := e.by().Region; region != "" {
		detail["region"] = region
	}
	if e.extra != nil && len(e.extra.proofs) > 0 {
		detail["proofs"] = proofText(e.extra.proofs)
	}
	t.note(Note{Actor: string(e.by().Principal), Action: "grant", Target: string(e.name), Detail: detail})
}

// noteEnd tells of its end.
func (t *Table) noteEnd(e *entry, how End) {
	if t.guarded(e.name) == nil {
		return
	}
	actor := "quorum"
	if how == EndReleased {
		actor = string(e.by().Principal)
	}
	t.note(Note{Actor: actor, Action: "end", Target: string(e.name),
		Detail: map[string]string{"token": e.token.Decimal(), "holder": e.by().String(), "how": how.String()}})
}

func proofText(proofs []Proof) string {
	words := make([]string, len(proofs))
	for i, p := range proofs {
		words[i] = p.Guard + "=" + p.How.String()
	}
	return strings.Join(words, " ")
}

// noteOverhead bounds what a record of the log takes beside its texts: names of fields, a number, a hash and a time.
const noteOverhead = 384

// size bounds from above what a note takes in the log.
func (n *Note) size() int {
	size := noteOverhead + quotedSize(n.Actor) + quotedSize(n.Action) + quotedSize(n.Target) + quotedSize(n.Reason)
	//writ:unordered a sum
	for key, value := range n.Detail {
		size += quotedSize(key) + quotedSize(value)
	}
	return size
}

// quotedSize bounds the length of a text as JSON: what is not plain may become six bytes.
func quotedSize(text string) int {
	size := len(text) + len(`"":,`)
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c == '"', c == '\\', c == '<', c == '>', c == '&', c > '~':
			size += 5
		}
	}
	return size
}
