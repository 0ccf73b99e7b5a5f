//go:build linux

package report

import (
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/workload"
)

func TestTokens(t *testing.T) {
	token := func(sequence uint64) fence.Token {
		made, err := fence.NewToken(1, sequence)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	dir := t.TempDir()
	w, err := record.Create(dir, record.Run{Name: "run", Workloads: []string{"belief"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []workload.Belief{
		{Resource: "b", From: 10, Until: 40}, {Resource: "b", From: 20, Until: 30}, {Resource: "b", From: 35, Until: 50}, {Resource: "a", From: 1, Until: 2},
		{Resource: "b", From: 60, Until: 70},
	} {
		b.Token = token(uint64(i + 1))
		b.From, b.Until = b.From*time.Second, b.Until*time.Second
		w.Event("belief", "x", "believed", b)
	}
	for _, sequence := range []uint64{5, 5, 7, 6, 6, 9} {
		w.Event("appends", "store", "applied", appends.Applied{Token: token(sequence)})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := record.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.Last = 100 * time.Second
	shown, err := newTokens(h)
	if err != nil {
		t.Fatal(err)
	}
	if len(shown.Lanes) != 2 || shown.Lanes[0].Name != "a" || len(shown.Lanes[1].Bars) != 4 {
		t.Fatalf("the lanes are %+v", shown.Lanes)
	}
	for i, want := range []bar{{X: 160, W: 300}, {X: 260, W: 100, Odd: true, Overlap: true}, {X: 410, W: 150, Overlap: true}, {X: 660, W: 100, Odd: true}} {
		got := shown.Lanes[1].Bars[i]
		if got.Title == "" || got.X != want.X || got.W != want.W || got.Odd != want.Odd || got.Overlap != want.Overlap {
			t.Errorf("bar %d is %+v, want %+v", i, got, want)
		}
	}
	if len(shown.Stairs) != 1 || shown.Stairs[0].Low != "1.5" || shown.Stairs[0].Top != "1.9" || len(shown.Stairs[0].Dots) != 6 {
		t.Fatalf("the stairs are %+v", shown.Stairs)
	}
	for i, want := range []step{{Y: 145}, {Y: 145}, {Y: 55}, {Y: 100, Down: true}, {Y: 100, Down: true}, {Y: 10}} {
		if got := shown.Stairs[0].Dots[i]; got.Y != want.Y || got.Down != want.Down {
			t.Errorf("step %d is %+v, want %+v", i, got, want)
		}
	}
	if shown, err := newTokens(&record.History{Run: h.Run}); shown != nil || err != nil {
		t.Errorf("of nothing: %+v, %v", shown, err)
	}
}
