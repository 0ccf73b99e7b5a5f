package quorum

import (
	"context"
	"slices"
	"strings"
	"time"
)

// How a Service keeps house: see house.

func (s *Service) softQuota() int64 { return s.config.QuotaBytes / 100 * softQuotaPart }

// keepHouse does what nobody asks for.
func (s *Service) keepHouse() {
	tick := time.NewTicker(houseTick)
	defer tick.Stop()
	h := newHouse(s.clock.Now(), s.config.QuotaBytes, s.config.KeepRevisions)
	for {
		select {
		case <-tick.C:
		case <-s.houseDue:
		case <-s.ctx.Done():
			return
		}
		s.unseenBytes.Store(0)
		leader, _ := s.member.Leadership()
		progress := s.member.Progress()
		if h.counts(progress) {
			s.member.Recount()
			progress = s.member.Progress()
		}
		s.tidy(h.look(sight{
			now: s.clock.Now(), leader: leader, turn: s.defragTurn(), revision: s.view.roster().revision, progress: progress,
		}))
	}
}

// callHouse has housekeeping look at once when much has been committed: a tick is too long for a small store.
func (s *Service) callHouse(writes []Write) {
	var size int64
	for _, w := range writes {
		size += int64(len(w.Key) + len(w.Value))
	}
	if s.config.QuotaBytes == 0 || s.unseenBytes.Add(size) < s.config.QuotaBytes/100*growthPart {
		return
	}
	select {
	case s.houseDue <- struct{}{}:
	default:
	}
}

// tidy does the chores of one look.
func (s *Service) tidy(c chores) {
	if s.overQuota.Swap(c.exceeded) != c.exceeded {
		s.tellQuota(c.exceeded)
	}
	if c.clearAlarm {
		s.clearAlarm()
	}
	if c.promote {
		s.promoteLearners()
	}
	if c.compact != 0 {
		s.compact(c.compact)
	}
	if c.handOver {
		// Who takes over has a minute of its own; this one's is now, so that its next look defragments.
		if to, err := s.MoveCoordinator(s.ctx, ""); err == nil {
			s.logger.Info("handed over, to give free pages of the store back", "node", to)
			return
		}
	}
	if c.defragment {
		if err := s.member.Defragment(); err != nil {
			s.logger.Warn("defragmentation failed", "error", err)
		}
	}
	if c.place {
		s.place()
	}
}

// tellQuota passes on whether the soft quota is exceeded.
func (s *Service) tellQuota(exceeded bool) {
	p := s.member.Progress()
	if exceeded {
		s.logger.Warn("the store is above its soft quota: new resources and checkpoints that grow are refused",
			"in_use_bytes", p.DBBytes, "soft_quota_bytes", s.softQuota(), "quota_bytes", s.config.QuotaBytes)
	} else {
		s.logger.Info("the store is below its soft quota again", "in_use_bytes", p.DBBytes, "soft_quota_bytes", s.softQuota())
	}
	s.step(Quota{Exceeded: exceeded})
}

func (s *Service) clearAlarm() {
	ctx, cancel := context.WithTimeout(s.ctx, 2*s.config.Election)
	defer cancel()
	if err := s.member.ClearNoSpace(ctx); err != nil {
		s.logger.Debug("the alarm for want of space stays", "error", err)
	}
}

func (s *Service) promoteLearners() {
	for _, m := range s.member.Members() {
		if !m.Learner || m.Name == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, 2*s.config.Election)
		if err := s.member.PromoteMember(ctx, m.ID); err != nil {
			s.logger.Debug("learner is not ready for its vote", "member", m.Name, "error", err)
		} else {
			s.logger.Info("member has got its vote", "member", m.Name)
		}
		cancel()
	}
}

func (s *Service) compact(revision int64) {
	ctx, cancel := context.WithTimeout(s.ctx, houseTick)
	defer cancel()
	if err := s.member.Compact(ctx, revision); err != nil && !strings.Contains(err.Error(), "compacted") {
		s.logger.Debug("compaction failed", "error", err)
	}
}

// defragTurn says whether this minute is this node's to defragment: each has one by the wall clock, so that the nodes need
// not talk about it. Two at a time would do no harm but to latency.
func (s *Service) defragTurn() bool {
	names := []string{}
	for _, n := range s.Nodes() {
		names = append(names, n.Name)
	}
	turn := slices.Index(names, s.config.Name)
	return turn >= 0 && int(s.clock.Wall().Unix()/60)%len(names) == turn
}

// place moves the coordinator to a reachable node in a region that is preferred to this one's.
func (s *Service) place() {
	if len(s.config.PreferredRegions) == 0 {
		return
	}
	best, err := s.successor("")
	if err != nil || s.rank(best.Region) >= s.rank(s.config.Region) {
		return
	}
	s.logger.Info("moving the coordinator to a preferred region", "node", best.Name, "region", best.Region)
	if _, err := s.MoveCoordinator(s.ctx, best.Name); err != nil {
		s.logger.Warn("the coordinator stays", "error", err)
	}
}
