package etcd

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/raft/v3"

	"github.com/writ-io/writ/quorum"
)

// Members answers the membership as this member has applied it, by id.
func (m *Member) Members() []quorum.MemberInfo {
	var out []quorum.MemberInfo
	for _, member := range m.server.Cluster().Members() {
		out = append(out, quorum.MemberInfo{
			ID: uint64(member.ID), Name: member.Name, PeerURLs: slices.Clone(member.PeerURLs),
			Started: hasStarted(member), Learner: member.IsLearner,
		})
	}
	return out
}

// Reachable says whether the member id has its message streams to this one open. Of itself it is always true while it
// runs. A peer that vanished without a word is noticed within five seconds.
func (m *Member) Reachable(id uint64) bool {
	if id == m.ID() {
		return m.gate.ctx.Err() == nil
	}
	return m.peers.connected(id)
}

// PeerURLProblem says what is wrong with the URL of a member to be, which has to be as those of the others are.
func (m *Member) PeerURLProblem(peerURL string) string {
	var problem *ConfigError
	if err := checkPeerURL("peer_url", peerURL, false); errors.As(err, &problem) {
		return problem.Reason
	}
	switch tls := m.cfg.PeerTLS != nil; {
	case tls && !secure(peerURL):
		return fmt.Sprintf("%q must begin with https:// with peer.tls", peerURL)
	case !tls && secure(peerURL):
		return fmt.Sprintf("%q must begin with http:// with peer.insecure", peerURL)
	}
	return ""
}

// AddMember adds a learner. Its id is random: etcd's own rule, a hash of address and time, would need the time.
func (m *Member) AddMember(ctx context.Context, peerURL string) (uint64, error) {
	if err := checkPeerURL("peer_url", peerURL, false); err != nil {
		return 0, err
	}
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	id := randomID()
	_, err = m.server.AddMember(ctx, membership.Member{
		ID:             types.ID(id),
		RaftAttributes: membership.RaftAttributes{PeerURLs: []string{peerURL}, IsLearner: true},
	})
	if err != nil {
		return 0, fmt.Errorf("add member %s: %w", peerURL, membershipError(ctx, err))
	}
	return id, nil
}

// PromoteMember gives a learner its vote. ErrNotReady says that it has not caught up: etcd asks for nine tenths of the
// leader's log.
func (m *Member) PromoteMember(ctx context.Context, id uint64) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := m.server.PromoteMember(ctx, id); err != nil {
		return fmt.Errorf("promote member %x: %w", id, membershipError(ctx, err))
	}
	return nil
}

// RemoveMember takes a member out of the cluster. A removed member stops about a second after it has learned of it.
func (m *Member) RemoveMember(ctx context.Context, id uint64) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := m.server.RemoveMember(ctx, id); err != nil {
		return fmt.Errorf("remove member %x: %w", id, membershipError(ctx, err))
	}
	return nil
}

// MoveLeader hands leadership to another voting member. Raft gives a transfer up after an election, so this waits for
// two at most.
func (m *Member) MoveLeader(ctx context.Context, to uint64) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	lead := m.server.Lead()
	if lead != m.ID() {
		return fmt.Errorf("move leader: %w", ErrNotLeader)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.cfg.Election)
	defer cancel()
	if err := m.server.MoveLeader(ctx, lead, to); err != nil {
		return fmt.Errorf("move leader to %x: %w", to, membershipError(ctx, err))
	}
	return nil
}

// abdicate hands leadership to a voting member that is connected, if this one leads and there is one, so that the
// cluster need not wait for an election when this member stops. It waits for one election at most.
func (m *Member) abdicate() {
	lead := m.server.Lead()
	if lead != m.ID() {
		return
	}
	for _, member := range m.Members() {
		if member.ID == lead || member.Learner || !m.peers.connected(member.ID) {
			continue
		}
		ctx, cancel := context.WithTimeout(m.gate.ctx, m.cfg.Election)
		err := m.server.MoveLeader(ctx, lead, member.ID)
		cancel()
		if err != nil {
			m.log.Warn("could not hand leadership over before stopping", "to", member.Name, "error", err)
		}
		return
	}
}

// membershipError translates etcd's refusals. What is not certainly a refusal is ErrUnknown.
func membershipError(ctx context.Context, err error) error {
	for _, known := range []struct{ etcd, ours error }{
		{etcderrors.ErrLearnerNotReady, ErrNotReady},
		{etcderrors.ErrNotEnoughStartedMembers, ErrNotReady},
		{etcderrors.ErrUnhealthy, ErrNotReady},
		{membership.ErrTooManyLearners, ErrNotReady},
		{membership.ErrIDNotFound, ErrNoSuchMember},
		{membership.ErrIDRemoved, ErrNoSuchMember},
		{etcderrors.ErrBadLeaderTransferee, ErrNoSuchMember},
		{membership.ErrPeerURLexists, ErrMemberExists},
		{membership.ErrIDExists, ErrMemberExists},
		{membership.ErrMemberNotLearner, ErrMemberExists},
		{etcderrors.ErrNotLeader, ErrNotLeader},
		{raft.ErrStopped, ErrStopped},
	} {
		if errors.Is(err, known.etcd) {
			return fmt.Errorf("%w: %w", known.ours, err)
		}
	}
	return unknown(ctx, err)
}

// randomID answers a member id: not 0, which is nobody.
func randomID() uint64 {
	for {
		var raw [8]byte
		_, _ = rand.Read(raw[:]) // never fails
		if id := binary.BigEndian.Uint64(raw[:]); id != 0 {
			return id
		}
	}
}
