package quorum

import (
	"context"
	"fmt"
	"io"
	"slices"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Coordinator names the node that decides, as far as this node knows, and whether that is this one. changed is closed when
// the answer may have become another.
func (s *Service) Coordinator() (node Node, self bool, changed <-chan struct{}) {
	r := s.view.roster()
	s.mu.Lock()
	self = s.role != Follower
	s.mu.Unlock()
	name := r.term.GetNode()
	if self {
		name = s.config.Name
	}
	if n := r.nodes[name]; n != nil {
		return s.describe(n, name), self, r.changed
	}
	return Node{Name: name}, self, r.changed
}

// Nodes lists every node that has announced itself, by name.
func (s *Service) Nodes() []Node {
	r := s.view.roster()
	var nodes []Node
	for _, n := range sortedNodes(r.nodes) {
		nodes = append(nodes, s.describe(n, r.term.GetNode()))
	}
	return nodes
}

func (s *Service) describe(n *writv1.NodeRecord, coordinator string) Node {
	node := Node{
		Name: n.Name, Region: n.Region, APIAddress: n.ApiAddress, HTTPAddress: n.HttpAddress, PeerURL: n.PeerUrl,
		MemberID: n.MemberId, Version: n.Version, Principal: lease.Principal(n.Principal), JWKS: n.Jwks,
		Coordinator: n.Name == coordinator, Reachable: n.Name == s.config.Name || s.member.Reachable(n.MemberId),
		WitnessedEpoch: fence.Epoch(n.Witness.GetEpoch()), WitnessForeign: n.Witness.GetForeign(),
	}
	for _, m := range s.member.Members() {
		node.Learner = node.Learner || (m.ID == n.MemberId && m.Learner)
	}
	return node
}

// Status tells what this node knows, also without a quorum.
func (s *Service) Status() Status {
	r := s.view.roster()
	p := s.member.Progress()
	coordinator, self, _ := s.Coordinator()
	s.mu.Lock()
	role, held, waitFor, until := s.role, s.held, s.waitFor, s.until
	s.mu.Unlock()
	st := Status{
		Node: s.config.Name, Cluster: s.config.Cluster, Incarnation: r.identity.GetIncarnation(), Epoch: fence.Epoch(r.identity.GetEpoch()),
		Coordinator: coordinator.Name, Term: r.termRev, Nodes: s.Nodes(), Revision: r.revision,
		DBBytes: p.DBBytes, QuotaBytes: s.softQuota(), OverQuota: s.overQuota.Load(), Leases: held,
	}
	if p.Leader == 0 { // whoever claimed last decides nothing: no majority hears it
		st.Coordinator = ""
		for i := range st.Nodes {
			st.Nodes[i].Coordinator = false
		}
	}
	if until != clock.Never {
		st.RecoveringFor = max(until.Sub(s.clock.Now()), 0)
	}
	switch recovery := r.identity.GetRecovery(); {
	case p.Leader == 0:
		st.NotReady = "no majority of nodes can be reached: there is no leader"
	case r.revision == 0:
		st.NotReady = "the state has not been loaded yet"
	case s.config.QuotaBytes > 0 && p.DBBytes >= RefusedAt(s.config.QuotaBytes):
		st.NotReady = fmt.Sprintf("the store is full: %d bytes are in use, the quota is %d", p.DBBytes, s.config.QuotaBytes)
	case recovery != nil && waitFor != "":
		st.NotReady = fmt.Sprintf("recovering from a foreign state (%s): waiting until %s", recovery.Reason, waitFor)
	case recovery != nil:
		st.NotReady = fmt.Sprintf("recovering from a foreign state (%s)", recovery.Reason)
	case !s.published():
		st.NotReady = "the other nodes have not been told yet that this one has started"
	case coordinator.Name == "":
		st.NotReady = "no coordinator has claimed its term yet"
	case self && role != Serving:
		st.NotReady = "this node is taking over as coordinator (" + role.String() + ")"
	case !self && !coordinator.Reachable:
		st.NotReady = fmt.Sprintf("the coordinator %s cannot be reached", coordinator.Name)
	}
	return st
}

// published says whether this node's member has made itself known. Until then nobody could tell that it has lost its data.
func (s *Service) published() bool {
	id := s.member.ID()
	return slices.ContainsFunc(s.member.Members(), func(m MemberInfo) bool { return m.ID == id && m.Started })
}

// Sign signs a writ with this node's key.
func (s *Service) Sign(w fence.Writ) (string, error) {
	w.Issuer = s.config.Cluster
	return s.config.Keys.Sign(w)
}

// Snapshot answers a backup of the state as this node has it.
func (s *Service) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	r, _, err := s.member.Snapshot(ctx)
	return r, err
}

// MoveCoordinator hands over to the named node, or to the best other one. Only the coordinator does it.
func (s *Service) MoveCoordinator(ctx context.Context, to string) (string, error) {
	if leader, _ := s.member.Leadership(); !leader {
		return "", lease.ErrNotCoordinator
	}
	target, err := s.successor(to)
	if err != nil {
		return "", err
	}
	if target.MemberID == s.member.ID() {
		return target.Name, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 4*s.config.Election)
	defer cancel()
	if err := s.member.MoveLeader(ctx, target.MemberID); err != nil {
		return "", lease.Errorf(lease.ReasonNoQuorum, "the coordinator could not be moved to %s: %v", target.Name, err)
	}
	return target.Name, s.claimedBy(ctx, target.Name)
}

// claimedBy waits until a node's claim can be seen.
func (s *Service) claimedBy(ctx context.Context, name string) error {
	for {
		r := s.view.roster()
		if r.term.GetNode() == name {
			return nil
		}
		select {
		case <-r.changed:
		case <-ctx.Done():
			return lease.Errorf(lease.ReasonNoQuorum, "%s was asked to take over and has not done so yet", name)
		}
	}
}

// successor chooses whom to hand over to.
func (s *Service) successor(to string) (Node, error) {
	var best *Node
	nodes := s.Nodes()
	for i := range nodes {
		n := &nodes[i]
		switch {
		case to != "" && n.Name != to:
			continue
		case to == "" && n.Name == s.config.Name:
			continue
		case to != "" && !n.Reachable:
			return Node{}, lease.Errorf(lease.ReasonConflict, "node %s cannot be reached from the coordinator", to)
		case to != "" && n.Learner:
			return Node{}, lease.Errorf(lease.ReasonConflict, "node %s is a learner and has no vote yet", to)
		case !n.Reachable || n.Learner:
			continue
		}
		if best == nil || s.rank(n.Region) < s.rank(best.Region) {
			best = n
		}
	}
	if best == nil && to != "" {
		return Node{}, &lease.Error{Reason: lease.ReasonNotFound, Message: fmt.Sprintf("no node is named %q", to)}
	}
	if best == nil {
		return Node{}, lease.Errorf(lease.ReasonNoQuorum, "no other voting node can be reached")
	}
	return *best, nil
}

// rank is the place of a region among the preferred ones.
func (s *Service) rank(region string) int {
	if i := slices.Index(s.config.PreferredRegions, region); i >= 0 {
		return i
	}
	return len(s.config.PreferredRegions)
}
