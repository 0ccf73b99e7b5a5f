package quorum

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func TestResumeTokens(t *testing.T) {
	for _, c := range []struct {
		at    Resume
		token string
		from  int64
	}{
		{Resume{Incarnation: "i", Revision: 7}, "i:7", 8},
		{Resume{Incarnation: "i"}, "i:0", 1},
		{Resume{Incarnation: "i", Revision: 7, Told: 3}, "i:7:3", 7},
		{Resume{Incarnation: "i", Revision: 1<<62 - 1}, "i:4611686018427387903", 1 << 62},
	} {
		got, err := ParseResume(c.token)
		if err != nil || got != c.at || c.at.String() != c.token || c.at.From() != c.from {
			t.Errorf("%q is %+v, %v, from %d", c.token, got, err, got.From())
		}
	}
	for _, token := range []string{"", ":", ":7", "i", "i:", "i:x", "i:-1", "i:7:", "i:7:0", "i:7:-1", "i:7:1:1", "i:4611686018427387904", "i:9223372036854775807"} {
		if got, err := ParseResume(token); !errors.Is(err, lease.ErrInvalid) || got != (Resume{}) {
			t.Errorf("%q: %+v, %v", token, got, err)
		}
	}
}

func FuzzParseResume(f *testing.F) {
	f.Add("i:7:3")
	f.Fuzz(func(t *testing.T, token string) {
		at, err := ParseResume(token)
		if err != nil {
			return
		}
		if again, err := ParseResume(at.String()); err != nil || again != at {
			t.Errorf("%q is %+v, which is read back as %+v, %v", token, at, again, err)
		}
	})
}

// Such a token could not be read back: there is nothing that it would be a point of.
func TestAWatchBeforeTheFirstIncarnationGetsNoToken(t *testing.T) {
	var told []WatchEvent
	at, err := TellState(NewImage(), "", false, func(ev WatchEvent) error {
		told = append(told, ev)
		return nil
	})
	if err != nil || len(told) != 1 || told[0].Kind != WatchSynced || told[0].Resume != "" || at.String() != "" {
		t.Errorf("told %+v, behind which stands %q (%v)", told, at, err)
	}
}

func TestWhatAResumeTokenContinuesFrom(t *testing.T) {
	at, id := Resume{Incarnation: "i", Revision: 7}, &writv1.IdentityRecord{Incarnation: "i"}
	for _, c := range []struct {
		id       *writv1.IdentityRecord
		revision int64
		want     bool
	}{
		{id, 7, true}, {id, 8, true}, {id, 6, false}, {nil, 7, false}, {&writv1.IdentityRecord{Incarnation: "j"}, 7, false},
	} {
		if got := at.Continues(c.id, c.revision); got != c.want {
			t.Errorf("in %v at %d: %v", c.id, c.revision, got)
		}
	}
	for err, want := range map[error]bool{ErrCompacted: true, ErrReincarnated: true, ErrUnknown: false, nil: false} {
		if got := BeginsAnew(err); got != want {
			t.Errorf("BeginsAnew(%v) is %v", err, got)
		}
	}
}

// Wherever a watch is cut, its last token goes on with what it has not told, and with nothing else.
func TestAWatchThatIsCutAnywhereGoesOnWithoutGapOrDuplicate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var history []Change
		for revision := range rapid.Int64Range(1, 8).Draw(t, "changes") {
			c := Change{Revision: 10 + 2*revision}
			for i := range rapid.IntRange(0, 4).Draw(t, "entries") {
				e := Entry{Key: KeyHead, Value: []byte("x")}
				if name := rapid.SampledFrom([]string{"a/", "a/", "b/", ""}).Draw(t, "under"); name != "" {
					name = fmt.Sprint(name, i)
					e.Key, e.Value = LeaseKey(lease.Resource(name)), nil
					if rapid.Bool().Draw(t, "put") {
						e.Value = recordOf(t, lease.Record{Resource: lease.Resource(name)})
					}
				}
				c.Entries = append(c.Entries, e)
			}
			history = append(history, c)
		}
		// told is everything from a point on, as "revision resource", with the tokens.
		told := func(at Resume) (events, tokens []string) {
			for _, c := range history {
				if c.Revision < at.From() {
					continue
				}
				got, err := Tell(c, "a/", at)
				if err != nil {
					t.Fatal(err)
				}
				for _, ev := range got {
					events = append(events, fmt.Sprint(ev.Kind, ev.Lease.Revision, ev.Lease.Resource))
					tokens = append(tokens, ev.Resume)
				}
				at = at.After(c)
			}
			return events, tokens
		}
		whole, tokens := told(Resume{Incarnation: "i"})
		want := 0
		for _, c := range history {
			for _, e := range c.Entries {
				if strings.HasPrefix(e.Key, LeaseKey("a/")) {
					want++
				}
			}
		}
		if len(whole) != want {
			t.Fatalf("%d events, want %d", len(whole), want)
		}
		for i, token := range tokens {
			at, err := ParseResume(token)
			if err != nil {
				t.Fatal(err)
			}
			if rest, _ := told(at); !slices.Equal(rest, whole[i+1:]) {
				t.Fatalf("behind event %d, %s, come %q, want %q", i, token, rest, whole[i+1:])
			}
		}
	})
}

func TestTellingEndsWithTheIncarnation(t *testing.T) {
	identity := func(incarnation string) Entry {
		return Entry{Key: KeyIdentity, Value: encoded(t, &writv1.IdentityRecord{Incarnation: incarnation})}
	}
	c := Change{Revision: 5, Entries: []Entry{{Key: LeaseKey("a")}, identity("j"), {Key: LeaseKey("b")}}}
	if events, err := Tell(c, "", Resume{Incarnation: "i"}); !errors.Is(err, ErrReincarnated) || len(events) != 1 {
		t.Errorf("told %v, %v", events, err)
	}
	c.Entries[1] = identity("i")
	if events, err := Tell(c, "", Resume{Incarnation: "i"}); err != nil || len(events) != 2 {
		t.Errorf("told %v, %v", events, err)
	}
}

func TestThePresentStateIsTold(t *testing.T) {
	image := NewImage()
	var entries []Entry
	for _, name := range []lease.Resource{"a/1", "a/2", "b/1"} {
		entries = append(entries, Entry{Key: LeaseKey(name), Value: recordOf(t, lease.Record{Resource: name}), Revision: 3})
	}
	entries = append(entries, Entry{Key: KeyIdentity, Value: encoded(t, &writv1.IdentityRecord{Incarnation: "i"})})
	image.Reset(entries, 9)
	for resync, want := range map[bool]string{true: "5 1a/1 1a/2 2i:9", false: "1a/1 1a/2 2i:9"} {
		var told []string
		at, err := TellState(image, "a/", resync, func(ev WatchEvent) error {
			told = append(told, fmt.Sprint(ev.Kind, ev.Lease.Resource, ev.Resume))
			return nil
		})
		if got := strings.Join(told, " "); err != nil || got != want || at != (Resume{Incarnation: "i", Revision: 9}) {
			t.Errorf("told %q, %v, now at %v, want %q", got, err, at, want)
		}
	}
	broken := errors.New("broken")
	if _, err := TellState(image, "", true, func(WatchEvent) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("deliver's error became %v", err)
	}
}
