//writ:core

package gate

import (
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const (
	// MaxPageFloors bounds the floors of one page.
	MaxPageFloors = 1000
	// MaxPageBytes bounds a page as it is sent.
	MaxPageBytes = 256 << 10

	// pageFloorBytes is more than a floor takes of a page besides its name.
	pageFloorBytes = 48
	// maxPageLooks bounds the resources that are looked at for one page: not each has a floor to tell.
	maxPageLooks = 4 * MaxPageFloors
)

// Page answers a page of floors, and changes nothing. It costs time in proportion to the page, however many floors there are.
// A limit of 0, or above MaxPageFloors, is MaxPageFloors.
//
// A resource is in it that has a floor of its own, or writes that are under way, wait, or may still reach the storage.
func (g *Gate) Page(ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
	limit := int(ask.GetLimit())
	if limit < 1 || limit > MaxPageFloors {
		limit = MaxPageFloors
	}
	page := &writv1.GuardFloorsPage{Base: uint64(g.base)}
	prefix, after := ask.GetPrefix(), ask.GetAfter()
	last, looks, bytes := "", 0, maxResource+pageFloorBytes // next is in it, too
	g.resources.names.from(max(prefix, after), func(r *resource) bool {
		if !strings.HasPrefix(r.name, prefix) {
			return false
		}
		if after != "" && r.name == after {
			return true
		}
		f := g.kept(r)
		size := len(r.name) + pageFloorBytes
		if looks == maxPageLooks || f != nil && (len(page.Floors) == limit || bytes+size > MaxPageBytes) {
			page.Next = last
			return false
		}
		last = r.name
		looks++
		if f != nil {
			page.Floors = append(page.Floors, f)
			bytes += size
		}
		return true
	})
	return page
}

// kept tells what the gate keeps of a resource; nil: nothing that would be missed.
func (g *Gate) kept(r *resource) *writv1.GuardKeptFloor {
	f := &writv1.GuardKeptFloor{
		Resource: r.name, Token: uint64(r.floor), Waiting: uint64(len(r.waiting)), Draining: !r.drained(r.floor, g.now), Base: !r.own,
	}
	for i := range r.live {
		f.InFlight += uint64(r.live[i].count)
	}
	if f.Base && f.InFlight == 0 && f.Waiting == 0 && !f.Draining {
		return nil
	}
	return f
}

// tellFloors answers a node that asks for a page.
func (g *Gate) tellFloors(id uint64, ask *writv1.GuardFloorsAsk) {
	g.out.Send = append(g.out.Send, &writv1.GuardRequest{
		Id: id, Guard: g.cfg.Name, Session: g.sessionNow(), Ask: &writv1.GuardRequest_Floors{Floors: g.Page(ask)},
	})
}
