package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// How the membership changes: the change is announced (BeginMemberChange), the store carries it out, and what came of it is
// committed (EndMemberChange). What has been announced is ended whether or not the caller waits; where that fails, the next change,
// or the next coordinator, does it.

// MemberAdd admits a node as a learner; it gets its vote when it has caught up. Only the coordinator does it. Asked again for a
// node that has been admitted and not started, it answers as before.
func (s *Service) MemberAdd(ctx context.Context, by lease.Principal, name, peerURL string) (uint64, map[string]string, error) {
	if name == "" || len(name) > 64 {
		return 0, nil, lease.Invalid("name", "is empty or too long", "use 1 to 64 bytes")
	}
	if problem := s.member.PeerURLProblem(peerURL); problem != "" {
		return 0, nil, lease.Invalid("peer_url", problem, "use the URL under which the others reach the node, such as https://10.0.0.1:7413")
	}
	if !s.changing.TryLock() {
		return 0, nil, errChanging()
	}
	defer s.changing.Unlock()
	known, _, err := s.settleMembers(ctx)
	if err != nil {
		return 0, nil, err
	}
	members := s.member.Members() // once: it may change at any time
	at := slices.IndexFunc(members, func(m MemberInfo) bool { return slices.Contains(m.PeerURLs, peerURL) })
	switch id := known[name]; {
	case id != 0 && at >= 0 && members[at].ID == id && !members[at].Started:
		return id, s.peerURLs(known), nil
	case id != 0:
		return 0, nil, lease.Errorf(lease.ReasonConflict, "a member named %q exists (%x); remove it first", name, id)
	case at >= 0:
		return 0, nil, lease.Errorf(lease.ReasonConflict, "member %x has the URL %s; remove it first", members[at].ID, peerURL)
	}
	if _, err := s.do(ctx, BeginMemberChange{Actor: by, Change: &writv1.MemberChange{Name: name, Add: true, PeerUrl: peerURL}}); err != nil {
		return 0, nil, err
	}
	storeCtx, cancel := s.detached(ctx)
	defer cancel()
	id, err := s.member.AddMember(storeCtx, peerURL)
	if err == nil {
		known[name] = id
	}
	if err := s.endMemberChange(ctx, known, "", err); err != nil {
		return 0, nil, err
	}
	return id, s.peerURLs(known), nil
}

// MemberRemove takes a node out. Only the coordinator does it, and hands over first when it is the one to go.
func (s *Service) MemberRemove(ctx context.Context, by lease.Principal, name string) error {
	if !s.changing.TryLock() {
		return errChanging()
	}
	defer s.changing.Unlock()
	known, removed, err := s.settleMembers(ctx)
	if err != nil || removed == name && name != "" {
		return err
	}
	id := known[name]
	if n := s.view.roster().nodes[name]; id == 0 && n != nil {
		id = n.MemberId
	}
	// A node may have left its record behind in a quorum that was rebuilt without it.
	if !slices.ContainsFunc(s.member.Members(), func(m MemberInfo) bool { return m.ID == id }) {
		return &lease.Error{Reason: lease.ReasonNotFound, Message: fmt.Sprintf("no member is named %q", name)}
	}
	if id == s.member.ID() {
		if _, err := s.MoveCoordinator(ctx, ""); err != nil {
			return err
		}
		return lease.ErrNotCoordinator
	}
	if _, err := s.do(ctx, BeginMemberChange{Actor: by, Change: &writv1.MemberChange{Name: name, MemberId: id}}); err != nil {
		return err
	}
	storeCtx, cancel := s.detached(ctx)
	defer cancel()
	return s.endMemberChange(ctx, known, name, s.member.RemoveMember(storeCtx, id))
}

func errChanging() *lease.Error {
	return lease.Errorf(lease.ReasonConflict, "another change of membership is under way")
}

// detached is for what has to be done though the caller may leave: a round in flight, and one more.
func (s *Service) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 4*s.config.Election)
}

// settleMembers answers the members that are committed, by name, after it has ended a change that nobody else will; removed is who
// left by that. The caller holds changing: no change of this coordinator is under way.
func (s *Service) settleMembers(ctx context.Context) (known map[string]uint64, removed string, err error) {
	answer, err := s.do(ctx, SettleMembers{})
	if err != nil {
		return nil, "", err
	}
	committed, _ := answer.(*Membership)
	p := committed.Pending
	if p == nil {
		known = NameMembers(s.member.Members(), committed.Members, nil)
		return known, "", nil
	}
	added, gone := map[string]uint64{}, !p.Add
	for _, m := range s.member.Members() {
		if p.Add && slices.Contains(m.PeerURLs, p.PeerUrl) {
			added[p.Name] = m.ID
		}
		gone = gone && m.ID != p.MemberId
	}
	if gone {
		removed = p.Name
	}
	known = NameMembers(s.member.Members(), committed.Members, added)
	s.logger.Warn("ending a change of membership that was left unfinished", "member", p.Name, "add", p.Add, "happened", gone || len(added) > 0)
	_, err = s.do(ctx, EndMemberChange{Members: known, Removed: removed})
	return known, removed, err
}

// endMemberChange commits the membership as the store now has it, whatever came of the change, unless that is not known: then the
// change stays announced, so that nobody takes the member for a stranger's.
func (s *Service) endMemberChange(ctx context.Context, known map[string]uint64, removed string, outcome error) error {
	if errors.Is(outcome, ErrUnknown) {
		return unknownChange(outcome)
	}
	if outcome != nil {
		removed = ""
	}
	ctx, cancel := s.detached(ctx)
	defer cancel()
	_, err := s.do(ctx, EndMemberChange{Members: NameMembers(s.member.Members(), known, nil), Removed: removed})
	switch {
	case outcome != nil:
		return lease.Errorf(lease.ReasonConflict, "the membership was not changed: %v", outcome)
	case err != nil:
		return unknownChange(err)
	}
	return nil
}

func unknownChange(cause error) *lease.Error {
	err := lease.Errorf(lease.ReasonUnknownOutcome, "whether the membership was changed is not known: %v", cause)
	err.Fix = "ask again: that finds out, and finishes it"
	return err
}

// peerURLs lists the URLs of the members by name.
func (s *Service) peerURLs(known map[string]uint64) map[string]string {
	urls := map[string]string{}
	for name, id := range known {
		for _, m := range s.member.Members() {
			if m.ID == id && len(m.PeerURLs) > 0 {
				urls[name] = m.PeerURLs[0]
			}
		}
	}
	return urls
}
