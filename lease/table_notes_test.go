package lease

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/audit"
)

// What a tick takes a note to be is at least what the log stores of it: a round that turns out too large ends the term.
func TestNotesAreNotLargerThanTheyAreTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }), rapid.StringMatching(`[<>&"\\]{0,40}`))
		n := Note{Actor: text.Draw(t, "actor"), Action: text.Draw(t, "action"), Target: text.Draw(t, "target"), Reason: text.Draw(t, "reason"),
			Detail: rapid.MapOf(text, text).Draw(t, "detail")}
		stored, _, err := audit.Append(audit.Head{Sequence: 1<<64 - 2, Hash: make([]byte, 32)}, audit.Record{
			At: time.Date(2026, 11, 12, 13, 14, 15, 999_999_999, time.UTC), Actor: n.Actor, Action: n.Action, Target: n.Target, Reason: n.Reason, Detail: n.Detail})
		if err != nil {
			t.Fatal(err)
		}
		if most := n.size(); len(stored)+128 > most {
			t.Fatalf("%+v takes %d bytes and its key, and was taken to be %d", n, len(stored), most)
		}
	})
}
