package quorum

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// household is a house and a store as it sees it: so many bytes of state, and history of so many bytes a revision.
type household struct {
	house    *house
	sight    sight
	state    int64
	perRev   int64
	compacts []int64
}

func newHousehold(quotaBytes, keepRevisions int64) *household {
	start := clock.Instant(time.Hour)
	return &household{house: newHouse(start, quotaBytes, keepRevisions), sight: sight{now: start, leader: true}}
}

// look lets a second pass, in which so many revisions are committed.
func (h *household) look(revisions int64) chores {
	h.sight.now = h.sight.now.Add(houseTick)
	h.sight.revision += revisions
	p := &h.sight.progress
	p.Revision = h.sight.revision
	p.DBBytes = h.state + (p.Revision-p.Oldest)*h.perRev
	p.DBFileBytes = max(p.DBFileBytes, p.DBBytes)
	c := h.house.look(h.sight)
	if c.compact != 0 {
		p.Oldest = c.compact
		h.compacts = append(h.compacts, c.compact)
	}
	if c.defragment && !c.handOver {
		p.DBFileBytes = p.DBBytes
	}
	return c
}

// A day of writing does not bring a store of little state to its soft quota, however few its revisions are.
func TestHistoryAloneDoesNotFillTheStore(t *testing.T) {
	for name, perSecond := range map[string]int64{"ten checkpoints a second": 10 * 32 << 10, "as fast as it goes": 10 << 20} {
		t.Run(name, func(t *testing.T) {
			h := newHousehold(2<<30, 200_000)
			h.state, h.perRev = 16<<20, perSecond
			for range 24 * 60 * 60 {
				if c := h.look(1); c.exceeded || h.sight.progress.DBBytes > h.house.part(softQuotaPart) {
					t.Fatalf("%d bytes are in use at revision %d", h.sight.progress.DBBytes, h.sight.revision)
				}
				if kept := h.sight.revision - h.sight.progress.Oldest; kept < min(h.sight.revision, 32) {
					t.Fatalf("%d revisions are kept", kept)
				}
			}
		})
	}
}

func TestHistoryIsBoundedByCount(t *testing.T) {
	h := newHousehold(2<<30, 1000)
	h.perRev = 1
	for range 300 {
		h.look(10)
		if kept := h.sight.revision - h.sight.progress.Oldest; kept > 1000+31*10 {
			t.Fatalf("%d revisions are kept", kept)
		}
	}
	if len(h.compacts) < 5 || len(h.compacts) > 10 {
		t.Errorf("compacted to %v", h.compacts)
	}
	h.sight.progress.Compacting = true
	h.compacts = nil
	for range 300 {
		h.look(10)
	}
	if len(h.compacts) != 0 {
		t.Errorf("compacted to %v, while a compaction was under way", h.compacts)
	}
}

func TestTheSoftQuotaIsExceededByStateThatStays(t *testing.T) {
	const quota = 64 << 20
	h := newHousehold(quota, 200_000)
	h.state, h.perRev = quota/100*82, 1000
	var after int
	for !h.look(1).exceeded {
		if after++; after > 60 {
			t.Fatal("not exceeded within a minute")
		}
	}
	if after < 30 {
		t.Errorf("exceeded after %d s, before compaction was tried for long", after)
	}
	h.state = quota / 100 * 70
	if h.look(1).exceeded {
		t.Error("still exceeded below it")
	}
	h.state = quota
	if !h.look(1).exceeded {
		t.Error("not exceeded at once when the quota is used up")
	}
	h.state = quota / 100 * 85
	if !h.look(1).exceeded {
		t.Error("not exceeded any more above it")
	}
	h = newHousehold(0, 200_000)
	h.state = 1 << 40
	for range 100 {
		if h.look(1).exceeded {
			t.Fatal("there is no quota")
		}
	}
}

func TestFreePagesAreGivenBack(t *testing.T) {
	const quota = 1 << 30
	for name, test := range map[string]struct {
		leader, turn         bool
		file                 int64
		defragment, handOver bool
	}{
		"in its turn":                      {false, true, 300 << 20, true, false},
		"in another's":                     {false, false, 300 << 20, false, false},
		"little to give":                   {false, true, 220 << 20, false, false},
		"coordinator":                      {true, true, 300 << 20, false, false},
		"coordinator near the quota":       {true, true, 900 << 20, true, true},
		"coordinator near it, no turn yet": {true, false, 900 << 20, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHousehold(quota, 1000)
			h.state, h.sight.leader, h.sight.turn, h.sight.progress.DBFileBytes = 100<<20, test.leader, test.turn, test.file
			if c := h.look(1); c.defragment != test.defragment || c.handOver != test.handOver {
				t.Errorf("%+v", c)
			}
		})
	}
}

// The dwell counts from when the coordinator began: who has led for longer moves at the next check.
func TestTheCoordinatorsPlaceIsLookedAt(t *testing.T) {
	h := newHousehold(0, 1000)
	var looks []int
	for second := range 20 {
		if h.look(0).place {
			looks = append(looks, second)
		}
	}
	if len(looks) != 2 || looks[0] != 10 || looks[1] != 15 {
		t.Errorf("looked in seconds %v of its office", looks)
	}
	h.sight.leader = false
	h.look(0)
	h.sight.leader = true
	for range 10 {
		if h.look(0).place {
			t.Fatal("a new coordinator looked at once")
		}
	}
	if !h.look(0).place {
		t.Error("it does not look after the dwell")
	}
}
