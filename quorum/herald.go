package quorum

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// witnessEvery is how often a node's witness takes note of how far the store has come.
const witnessEvery = 5 * time.Second

// herald keeps this node's witness and announcement up to date with what the quorum commits, and hands announcements of
// all nodes to the engine.
func (s *Service) herald() {
	tick := time.NewTicker(witnessEvery)
	defer tick.Stop()
	// A member may apply an entry a moment before its own log has it on disk. What the witness holds against the log
	// is how far the member was a tick ago: by now the log has that, whatever happens.
	var earlier Progress
	for {
		r := s.view.roster()
		s.saveWitness(func(w *writv1.WitnessRecord) *writv1.WitnessRecord {
			return NoteIdentity(w, r.identity, r.revision, earlier)
		})
		s.watchAuditHeads(r)
		if !s.heads.current {
			// An announcement repeats the head that this node signed last, perhaps before it was restarted.
			if s.heads.current = s.fresh(s.ctx, Linearizable) == nil; !s.heads.current && !s.pause(s.ctx) {
				return
			}
			continue
		}
		if !s.announce(r, s.signAuditHead(r, false)) {
			if !s.pause(s.ctx) {
				return
			}
			continue
		}
		s.step(NodesChanged{Nodes: sortedNodes(r.nodes), Members: s.member.Members()})
		select {
		case <-r.changed:
		case <-tick.C:
			revision := s.view.roster().revision
			s.saveWitness(func(w *writv1.WitnessRecord) *writv1.WitnessRecord { return NoteProgress(w, revision, earlier) })
			earlier = s.member.Progress()
		case <-s.ctx.Done():
			return
		}
	}
}

// witnessed is what this node remembers. The record is never changed in place.
func (s *Service) witnessed() *writv1.WitnessRecord {
	s.witnessMu.Lock()
	defer s.witnessMu.Unlock()
	return s.witness
}

// saveWitness makes the next witness durable before anybody can see it. What answers the one that it was given changes
// nothing.
func (s *Service) saveWitness(note func(*writv1.WitnessRecord) *writv1.WitnessRecord) bool {
	s.witnessMu.Lock()
	defer s.witnessMu.Unlock()
	next := note(s.witness)
	if next == s.witness {
		return true
	}
	next.Cluster, next.Node, next.MemberId = s.config.Cluster, s.config.Name, s.member.ID()
	if proto.Equal(next, s.witness) {
		return true
	}
	if err := s.config.SaveWitness(next); err != nil {
		s.logger.Error("the witness file cannot be written", "error", err)
		return false
	}
	s.witness = next
	return true
}

// witnessCeiling makes a committed ceiling part of this node's own memory: only then may its tokens be handed out. A node
// that cannot remember is no coordinator, so it tries to hand over.
func (s *Service) witnessCeiling(w Witnessed) {
	for !s.tryWitness(w) {
		if _, err := s.MoveCoordinator(s.ctx, ""); err == nil || !s.pause(s.ctx) {
			return
		}
	}
	s.step(w)
}

func (s *Service) tryWitness(ceiling Witnessed) bool {
	holds := false
	saved := s.saveWitness(func(w *writv1.WitnessRecord) (next *writv1.WitnessRecord) {
		next, holds = NoteCeiling(w, ceiling)
		return next
	})
	return saved && holds
}

// nodeRecord is what this node is and remembers.
func (s *Service) nodeRecord(r roster, head *writv1.AuditHead) *writv1.NodeRecord {
	jwks, err := s.config.Keys.Keys().MarshalJWKS()
	if err != nil {
		s.logger.Error("no public keys to announce", "error", err)
	}
	return &writv1.NodeRecord{
		Name: s.config.Name, Region: s.config.Region, ApiAddress: s.config.APIAddress, HttpAddress: s.config.HTTPAddress,
		PeerUrl: s.config.PeerURL, MemberId: s.member.ID(), Version: s.config.Version, Principal: string(s.config.Principal),
		Jwks: string(jwks), Witness: s.witnessed(), RecoveryId: r.identity.GetRecovery().GetId(),
		AuditHead: head,
	}
}

// announce tells the quorum what this node is and remembers, if it has not been told so.
func (s *Service) announce(r roster, head *writv1.AuditHead) bool {
	n := s.nodeRecord(r, head)
	if !WorthAnnouncing(r.nodes[s.config.Name], n) {
		return true
	}
	value, err := proto.Marshal(n)
	if err != nil {
		s.logger.Error("the announcement cannot be encoded", "error", err)
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*s.config.Election)
	defer cancel()
	revision, err := s.member.Announce(ctx, Write{Key: NodeKey(s.config.Name), Value: value})
	if err != nil {
		s.logger.Debug("announcement failed", "error", err)
		return false
	}
	return s.view.reach(ctx, revision) == nil
}
