package quorum

import (
	"cmp"
	"context"
	"maps"
	"slices"
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
		s.takeNote(r, earlier)
		if !s.announce(r) {
			if !s.pause(s.ctx) {
				return
			}
			continue
		}
		s.step(NodesChanged{Nodes: sortedNodes(r.nodes), Members: s.member.Members()})
		select {
		case <-r.changed:
		case <-tick.C:
			s.saveWitness(func(w *writv1.WitnessRecord) { s.noteProgress(w, earlier) })
			earlier = s.member.Progress()
		case <-s.ctx.Done():
			return
		}
	}
}

func sortedNodes(nodes map[string]*writv1.NodeRecord) []*writv1.NodeRecord {
	return slices.SortedFunc(maps.Values(nodes), func(a, b *writv1.NodeRecord) int { return cmp.Compare(a.Name, b.Name) })
}

// takeNote writes what the quorum has committed about itself into the witness, unless that contradicts the witness:
// then the contradiction has to be seen, not overwritten.
func (s *Service) takeNote(r roster, earlier Progress) {
	id := r.identity
	if id == nil {
		return
	}
	w := s.witnessed()
	newer := id.Epoch > w.Epoch
	same := id.Epoch == w.Epoch && w.Foreign == "" && (w.Incarnation == "" || w.Incarnation == id.Incarnation)
	if !newer && !same {
		return
	}
	if !newer && w.Incarnation == id.Incarnation && w.Ceiling >= id.Ceiling && w.MaxTtlMs >= id.MaxTtlMs {
		return
	}
	s.saveWitness(func(w *writv1.WitnessRecord) {
		if newer {
			w.Ceiling, w.Foreign = 0, ""
		}
		w.Incarnation, w.Epoch = id.Incarnation, id.Epoch
		w.Ceiling = max(w.Ceiling, id.Ceiling)
		w.MaxTtlMs = max(w.MaxTtlMs, id.MaxTtlMs)
		if newer {
			w.Revision = 0
		}
		s.noteProgress(w, earlier)
	})
}

func (s *Service) noteProgress(w *writv1.WitnessRecord, p Progress) {
	if w.Incarnation == "" || w.Foreign != "" {
		return
	}
	w.RaftTerm, w.AppliedIndex = max(w.RaftTerm, p.RaftTerm), max(w.AppliedIndex, p.AppliedIndex)
	w.Revision = max(w.Revision, s.view.roster().revision)
}

// witnessed is what this node remembers. The record is never changed in place.
func (s *Service) witnessed() *writv1.WitnessRecord {
	s.witnessMu.Lock()
	defer s.witnessMu.Unlock()
	return s.witness
}

// saveWitness changes the witness and makes it durable before anybody can see it.
func (s *Service) saveWitness(change func(*writv1.WitnessRecord)) bool {
	s.witnessMu.Lock()
	defer s.witnessMu.Unlock()
	next := proto.CloneOf(s.witness)
	change(next)
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

func (s *Service) tryWitness(w Witnessed) bool {
	return s.saveWitness(func(next *writv1.WitnessRecord) {
		id := s.view.roster().identity
		if next.Foreign == "" && id != nil && uint32(w.Epoch) == id.Epoch && next.Epoch <= id.Epoch {
			next.Incarnation, next.Epoch = id.Incarnation, id.Epoch
		}
		if next.Epoch == uint32(w.Epoch) {
			next.Ceiling = max(next.Ceiling, w.Ceiling)
		}
	})
}

// announce tells the quorum what this node is and remembers, if it has not been told so.
func (s *Service) announce(r roster) bool {
	jwks, err := s.config.Keys.Keys().MarshalJWKS()
	if err != nil {
		s.logger.Error("no public keys to announce", "error", err)
	}
	w := proto.CloneOf(s.witnessed())
	n := &writv1.NodeRecord{
		Name: s.config.Name, Region: s.config.Region, ApiAddress: s.config.APIAddress, HttpAddress: s.config.HTTPAddress,
		PeerUrl: s.config.PeerURL, MemberId: s.member.ID(), Version: s.config.Version, Principal: string(s.config.Principal),
		Jwks: string(jwks), Witness: w, RecoveryId: r.identity.GetRecovery().GetId(),
	}
	known := r.nodes[s.config.Name]
	if known != nil && known.Witness != nil {
		// Progress moves all the time and is not worth an announcement of its own.
		if known.Witness.Epoch == w.Epoch && known.Witness.Incarnation == w.Incarnation {
			w.RaftTerm, w.AppliedIndex, w.Revision = known.Witness.RaftTerm, known.Witness.AppliedIndex, known.Witness.Revision
			w.Ceiling = known.Witness.Ceiling
		}
		if proto.Equal(known, n) {
			return true
		}
		n.Witness = s.witnessed()
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
