package audit_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/audit"
)

func chain(t *rapid.T) [][]byte {
	n := rapid.IntRange(2, 12).Draw(t, "records")
	var head audit.Head
	var stored [][]byte
	for range n {
		b, next, err := audit.Append(head, audit.Record{
			At:    time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), 0),
			Actor: rapid.String().Draw(t, "actor"), Action: "force-release", Target: rapid.String().Draw(t, "target"),
			Detail: rapid.MapOf(rapid.StringMatching(`[a-z]{1,5}`), rapid.StringMatching(`.{0,5}`)).Draw(t, "detail"),
		})
		if err != nil {
			t.Fatal(err)
		}
		stored, head = append(stored, b), next
	}
	return stored
}

func verify(stored [][]byte) error {
	var head audit.Head
	for _, b := range stored {
		_, next, err := audit.Verify(head, b)
		if err != nil {
			return err
		}
		head = next
	}
	return nil
}

func TestChainVerifies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := verify(chain(t)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestChainShowsEveryChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored := chain(t)
		at := rapid.IntRange(0, len(stored)-2).Draw(t, "at")
		switch rapid.SampledFrom([]string{"drop", "swap", "edit", "repeat"}).Draw(t, "change") {
		case "drop":
			stored = append(stored[:at:at], stored[at+1:]...)
		case "swap":
			stored[at], stored[at+1] = stored[at+1], stored[at]
		case "edit":
			stored[at] = bytes.Replace(stored[at], []byte("force-release"), []byte("force-unlease"), 1)
		case "repeat":
			stored = append(stored[:at+1:at+1], stored[at:]...)
		}
		if err := verify(stored); !errors.Is(err, audit.ErrBroken) {
			t.Fatalf("changed chain verifies: %v", err)
		}
	})
}
