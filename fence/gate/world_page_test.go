package gate_test

import (
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// pages asks for every page of a gate's floors.
func pages(g *gate.Gate, ask *writv1.GuardFloorsAsk) (floors []*writv1.GuardKeptFloor, n int) {
	for after := ask.GetAfter(); ; n++ {
		page := g.Page(&writv1.GuardFloorsAsk{Prefix: ask.GetPrefix(), After: after, Limit: ask.GetLimit()})
		floors = append(floors, page.GetFloors()...)
		if after = page.GetNext(); after == "" {
			return floors, n + 1
		}
	}
}

// judgePages holds what the gate tells of its floors against what the world knows of them.
func (w *world) judgePages() {
	told := make(map[string]*writv1.GuardKeptFloor)
	last := ""
	floors, _ := pages(w.gate, &writv1.GuardFloorsAsk{Limit: 2})
	for _, f := range floors {
		if f.GetResource() <= last {
			w.fail("the floor of %q is told behind that of %q", f.GetResource(), last)
		}
		last = f.GetResource()
		told[last] = f
		floor := fence.Token(f.GetToken())
		if floor != w.gate.Floor(last) || w.gate.Seeded() && (floor < w.highest[last] || floor < w.acked[last]) {
			w.fail("%s: the floor is told to be %v, and is %v; admitted %v, acknowledged %v", last, floor, w.gate.Floor(last), w.highest[last], w.acked[last])
		}
	}
	for _, f := range w.gate.Floors() {
		if told[f.Resource] == nil || told[f.Resource].GetBase() {
			w.fail("the floor of %s is its own, and told as %v", f.Resource, told[f.Resource])
		}
	}
	inFlight, waiting := make(map[string]uint64), make(map[string]uint64)
	for _, write := range w.under {
		inFlight[write.resource]++
	}
	for _, write := range w.parked {
		waiting[write.resource]++
	}
	for _, r := range worldResources {
		f := told[r]
		if f.GetInFlight() != inFlight[r] || f.GetWaiting() != waiting[r] {
			w.fail("%s: %d in flight and %d waiting, told %v", r, inFlight[r], waiting[r], f)
		}
		for _, write := range w.alive {
			if write.resource == r && write.until > w.now && write.token < fence.Token(f.GetToken()) && !f.GetDraining() {
				w.fail("%s: %v may reach the storage, and the floor is told as %v", r, write.token, f)
			}
		}
	}
}
