//writ:core

package quorum

import (
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// Intervals of housekeeping.
const (
	houseTick    = time.Second
	compactEvery = 30 * time.Second
	placeEvery   = 5 * time.Second
	placeDwell   = 10 * time.Second
	// overEvery is between compactions while the soft quota is exceeded: what was given up since is to count soon.
	overEvery = 10 * time.Second
	// compactPatience is how long a compaction is waited for. It takes time by the size of the state; one that an error
	// has ended would never be over.
	compactPatience = 10 * time.Minute
	defragSlack     = 64 << 20
	// graceRate is how fast a node surely loads the state. History is kept for as long as that takes, however full the
	// store is: a load goes on at one revision.
	graceRate = 64 << 20 // bytes a second
)

// Parts of the quota, per cent. While more than historyPart is in use, history is kept for as long as a load takes and no
// longer, so that history alone cannot fill the store. It is dropped whenever another growthPart has come together.
const (
	growthPart    = 5
	slackPart     = 10
	historyPart   = 50
	softQuotaPart = 80
	fullPart      = 100
)

// house decides what is due of what nobody asks for: the soft quota, history, free pages, votes of new members, and the
// place of the coordinator. Its shell looks once a tick, and whenever a growthPart has been committed.
type house struct {
	quotaBytes    int64 // 0: none
	keepRevisions int64

	leadingSince clock.Instant
	compactedAt  clock.Instant
	placedAt     clock.Instant
	overSince    clock.Instant // above the soft quota
	exceeded     bool
	leastBytes   int64 // in use since the last compaction
	past         []houseMark
}

// houseMark is which revision a look saw.
type houseMark struct {
	at       clock.Instant
	revision int64
}

// sight is what a look sees.
type sight struct {
	now      clock.Instant
	leader   bool
	turn     bool  // to defragment: members do so one at a time
	revision int64 // of the node's view
	progress Progress
}

// chores is what a look finds to do.
type chores struct {
	exceeded   bool  // the soft quota is
	promote    bool  // members that are ready for their vote
	clearAlarm bool  // of a store that was full
	compact    int64 // to this revision; 0: not now
	defragment bool
	handOver   bool // before that
	place      bool
}

func newHouse(now clock.Instant, quotaBytes, keepRevisions int64) *house {
	return &house{
		quotaBytes: quotaBytes, keepRevisions: keepRevisions,
		leadingSince: clock.Never, compactedAt: now, placedAt: now, overSince: clock.Never,
	}
}

func (h *house) part(percent int64) int64 { return h.quotaBytes / 100 * percent }

// counts says whether so much is in use, as far as is known, that it is worth a write to the disk to know it for certain.
func (h *house) counts(p Progress) bool { return h.quotaBytes > 0 && p.DBBytes > h.part(historyPart) }

// above says whether more than that part of the quota is in use.
func (h *house) above(s sight, percent int64) bool {
	return h.quotaBytes > 0 && s.progress.DBBytes > h.part(percent)
}

// look takes in what there is to see.
func (h *house) look(s sight) chores {
	h.leastBytes = min(h.leastBytes, s.progress.DBBytes)
	old := h.remember(s)
	c := chores{exceeded: h.judge(s)}
	bloated := h.bloated(s)
	if !s.leader {
		h.leadingSince, h.leastBytes = clock.Never, 0
		c.defragment = bloated && s.turn
		return c
	}
	h.leadingSince = min(h.leadingSince, s.now)
	c.promote, c.clearAlarm = true, true
	c.compact = h.compaction(s, old)
	// The coordinator writes its free pages again; that they are many matters when the file has outgrown the quota.
	if bloated && s.turn && h.quotaBytes > 0 && s.progress.DBFileBytes > h.part(softQuotaPart) {
		c.handOver, c.defragment = true, true
	}
	if s.now.Sub(h.placedAt) >= placeEvery && s.now.Sub(h.leadingSince) >= placeDwell {
		h.placedAt, c.place = s.now, true
	}
	return c
}

// grace is for how long history is kept in any case.
func (h *house) grace() time.Duration {
	return time.Duration(h.quotaBytes/graceRate) * time.Second
}

// remember notes the revision and answers which one is older than the grace; 0: not known yet.
func (h *house) remember(s sight) int64 {
	h.past = append(h.past, houseMark{s.now, s.revision})
	for len(h.past) > 1 && s.now.Sub(h.past[1].at) >= h.grace() {
		h.past = h.past[1:]
	}
	if s.now.Sub(h.past[0].at) < h.grace() {
		return 0
	}
	return h.past[0].revision
}

// judge says whether the soft quota is exceeded: by what compaction does not help, or by so much that there is no time to
// find that out. It holds until less is in use.
func (h *house) judge(s sight) bool {
	if !h.above(s, softQuotaPart) {
		h.overSince, h.exceeded = clock.Never, false
		return false
	}
	h.overSince = min(h.overSince, s.now)
	if s.now.Sub(h.overSince) >= h.grace()+3*overEvery || h.above(s, fullPart) {
		h.exceeded = true
	}
	return h.exceeded
}

// compaction answers the revision to compact to; 0: nothing is due. old is one that nobody loads any more.
func (h *house) compaction(s sight, old int64) int64 {
	since := s.now.Sub(h.compactedAt)
	if s.progress.Compacting && since < compactPatience {
		return 0
	}
	to, due := s.revision-h.keepRevisions, since >= compactEvery
	if h.above(s, historyPart) {
		to = max(to, old)
		due = due || s.progress.DBBytes >= h.leastBytes+h.part(growthPart) || h.above(s, softQuotaPart) && since >= overEvery
	}
	if !due || to <= s.progress.Oldest {
		return 0
	}
	h.compactedAt, h.leastBytes = s.now, s.progress.DBBytes
	return to
}

// bloated says whether most of the file is free pages.
func (h *house) bloated(s sight) bool {
	slack := int64(defragSlack)
	if h.quotaBytes > 0 {
		slack = min(slack, h.part(slackPart))
	}
	return s.progress.DBFileBytes >= 2*s.progress.DBBytes+slack
}
