//go:build linux

package workload

import (
	"testing"

	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// floorTape is a script of guards that say what they refuse.
type floorTape struct{ *tape }

func (p floorTape) append(token int, front int, outcome record.Outcome) {
	p.call(Appends, opAppend, attempt{Element: "e", Token: nth(token), Front: front}, outcome, attempt{})
}

func (p floorTape) granted(token int, proofs map[string]string) {
	p.w.Event(Appends, "writer1", opGranted, granted{Token: nth(token), Proofs: proofs})
}

func (p floorTape) said(guard string, seeded bool, base, floor int, outcome record.Outcome) {
	value := map[string]any{"seeded": seeded, "ready": seeded, "base": nth(base)}
	if floor != 0 {
		value["tokens"] = []map[string]any{{"resource": store.Resource, "token": nth(floor)}}
	}
	p.w.Call(Floors, guard, opStatus, nil)(outcome, value)
}

func TestFloors(t *testing.T) {
	raised := map[string]string{"guard1": "acked", "guard2": "cut"}
	for name, row := range map[string]struct {
		do       func(floorTape)
		want     verdict.Verdict
		evidence string
	}{
		"sound": {func(p floorTape) {
			p.said("guard1", true, 1, 0, record.OK)
			p.granted(5, raised)
			p.said("guard1", true, 1, 5, record.OK)
			p.append(5, 0, record.OK)
			p.granted(7, raised)
			p.said("guard1", true, 1, 7, record.OK)
			p.said("guard1", true, 9, 7, record.OK)
		}, verdict.Valid, "told their floors 4 times, and had proved one before in 3"},
		"the base counts":         {func(p floorTape) { p.granted(5, raised); p.said("guard1", true, 5, 0, record.OK) }, verdict.Valid, ""},
		"one that was cut":        {func(p floorTape) { p.granted(5, raised); p.said("guard2", true, 1, 2, record.OK) }, verdict.Unknown, "in 0"},
		"not seeded":              {func(p floorTape) { p.append(5, 0, record.OK); p.said("guard1", false, 1, 5, record.OK) }, verdict.Valid, "before in 1"},
		"acknowledged by leaving": {func(p floorTape) { p.granted(5, raised); p.said("guard1", false, 1, 2, record.OK) }, verdict.Unknown, "in 0"},
		"about to end": {func(p floorTape) {
			p.granted(5, raised)
			p.said("guard1", true, 1, 5, record.OK)
			p.granted(6, raised)
			p.w.Call(Floors, "guard1", opStatus, nil)(record.OK, map[string]any{"seeded": true, "ready": false, "base": nth(5)})
		}, verdict.Valid, "before in 2"},
		"not on disk": {func(p floorTape) { p.append(5, 0, record.OK); p.said("guard1", false, 1, 2, record.OK) }, verdict.Invalid, "let a write through under 1.5"},
		"told, acknowledged, and not on disk": {func(p floorTape) {
			p.granted(5, raised)
			p.said("guard1", true, 1, 5, record.OK)
			p.granted(6, raised)
			p.said("guard1", false, 1, 4, record.OK)
		}, verdict.Invalid, "acknowledged 1.5"},
		"the disk was put back": {func(p floorTape) {
			p.append(5, 0, record.OK)
			p.w.Fault("old-image", "guard1")()
			p.said("guard1", false, 1, 2, record.OK)
			p.append(6, 0, record.OK)
			p.said("guard1", false, 1, 6, record.OK)
		}, verdict.Valid, "before in 1"},
		"the disk is being put back": {func(p floorTape) {
			p.append(5, 0, record.OK)
			p.w.Fault("old-image", "guard1")
			p.said("guard1", false, 1, 2, record.OK)
		}, verdict.Unknown, ""},
		"the disk of another was put back": {func(p floorTape) {
			p.append(5, 0, record.OK)
			p.w.Fault("old-image", "guard2")()
			p.said("guard1", false, 1, 2, record.OK)
		}, verdict.Invalid, "let a write through under 1.5"},
		"seeded with a disk that was put back": {func(p floorTape) {
			p.granted(5, raised)
			p.w.Fault("old-image", "guard1")()
			p.said("guard1", true, 1, 2, record.OK)
		}, verdict.Invalid, "acknowledged 1.5"},
		"a write that was refused":  {func(p floorTape) { p.append(5, 0, record.Fail); p.said("guard1", true, 1, 2, record.OK) }, verdict.Unknown, ""},
		"a write by another":        {func(p floorTape) { p.append(5, 1, record.OK); p.said("guard1", true, 1, 2, record.OK) }, verdict.Unknown, ""},
		"no answer":                 {func(p floorTape) { p.granted(5, raised); p.said("guard1", true, 1, 2, record.Fail) }, verdict.Unknown, ""},
		"below what was raised":     {func(p floorTape) { p.granted(5, raised); p.said("guard1", true, 1, 4, record.OK) }, verdict.Invalid, "it acknowledged 1.5"},
		"below what it let through": {func(p floorTape) { p.append(5, 0, record.OK); p.said("guard1", true, 1, 4, record.OK) }, verdict.Invalid, "let a write through under 1.5"},
		"forgotten":                 {func(p floorTape) { p.granted(5, raised); p.said("guard1", true, 1, 0, record.OK) }, verdict.Invalid, "it acknowledged 1.5"},
		"below the largest of many": {func(p floorTape) {
			p.granted(5, raised)
			p.append(3, 0, record.OK)
			p.said("guard1", true, 1, 4, record.OK)
		}, verdict.Invalid, "it acknowledged 1.5"},
		"garbled": {func(p floorTape) { p.w.Call(Floors, "guard1", opStatus, nil)(record.OK, "nothing") }, verdict.Unknown, "the answer to call"},
		"told of a token that is old": {func(p floorTape) {
			p.w.Call(Floors, "guard1", opStatus, nil)(record.OK, map[string]any{"seeded": true, "alarms": []map[string]any{{"floor": "9"}}})
		}, verdict.Invalid, "was told of a token below its floor"},
	} {
		t.Run(name, func(t *testing.T) {
			p := floorTape{newTape(t)}
			row.do(p)
			expect(t, []verdict.Judgement{checkFloors(p.read(true))}, row.want, row.evidence)
		})
	}
}
