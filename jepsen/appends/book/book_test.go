//go:build linux

package book_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
)

// Lines may come in any pieces. Who listens hears the first that is sought, and what was said is judged.
func TestBook(t *testing.T) {
	b := book.New()
	var stored, heard int
	b.OnStored, b.OnHeard = func(store.Line) { stored++ }, func(writer.Said) { heard++ }
	done, stop := b.Listen(func(s writer.Said) bool { return s.Kind == writer.Done })
	defer stop()
	from := b.FromWriter()
	for _, piece := range []string{
		`{"Kind":"granted","Writer":"a","Token":"281474976710657"}` + "\n" + `{"Kind":"put","Token":"281474976710657","Elem`, `ent":"x"}` + "\n",
		`{"Kind":"done","Token":"281474976710657","Element":"x","Outcome":1}` + "\n", `{"Kind":"granted","Writer":"b","Token":"281474976710658"}` + "\n" + `{"Kind":"unfini`,
	} {
		if _, err := fmt.Fprint(from, piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	if s := <-done; s.Element != "x" || s.Outcome != appends.Acked {
		t.Errorf("heard %+v", s)
	}
	if kinds := found(b); !slices.Equal(kinds, []appends.Kind{appends.Lost}) {
		t.Errorf("acknowledged and never applied: %v", kinds)
	}
	if _, err := fmt.Fprintln(b.FromStore(), `{"Applied":{"Page":{"Number":0,"Elements":["x"]},"Token":"281474976710657","Presented":"281474976710657"},"Stall":5}`); err != nil {
		t.Fatal(err)
	}
	if kinds := found(b); kinds != nil {
		t.Errorf("a sound history: %v", kinds)
	}
	if tally := b.Tally(); tally.Acked != 1 || tally.HandOffs != 1 || tally.Applied != 1 || b.Stall() != 5 || stored != 1 || heard != 4 {
		t.Errorf("%+v, %v, %d lines of the store, %d of writers", tally, b.Stall(), stored, heard)
	}
	if err := b.Err(); err != nil {
		t.Error(err)
	}
	if _, err := fmt.Fprintln(from, `shed`); err != nil {
		t.Fatal(err)
	}
	if b.Err() == nil {
		t.Error("a line that says nothing was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, ok := b.Await(ctx, func(writer.Said) bool { return true }); ok {
		t.Errorf("nothing was said, but %+v heard", s)
	}
}

func found(b *book.Book) (kinds []appends.Kind) {
	for _, v := range b.Judge() {
		kinds = append(kinds, v.Kind)
	}
	return kinds
}
