package server

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// AgentPoll takes what an agent has to say to the coordinator, and brings its tasks back. A node that stops answers at once
// and without tasks, so that the agent turns to another one; what was reported has been taken in, or comes again.
func (s *regionService) AgentPoll(ctx context.Context, req *writv1.AgentPollRequest) (*writv1.AgentPollResponse, error) {
	wait := longPoll(ctx, req.GetWait())
	if s.draining.Err() != nil {
		wait = 0
	}
	bounded := req
	if wait != req.GetWait().AsDuration() {
		bounded = proto.CloneOf(req)
		bounded.Wait = durationpb.New(wait)
	}
	waiting, cancel := s.untilDraining(ctx)
	defer cancel()
	resp, err := askRegion(waiting, s, bounded, manner{wait: wait}, writv1.RegionServiceClient.AgentPoll)
	switch {
	case interrupted(waiting, err):
		return nil, drainingError()
	case err != nil:
		return nil, err
	}
	from := callerOf(ctx)
	for _, g := range resp.GetGroups() {
		if err := s.chain.need(from, policy.Agent, g.GetGroup()); err != nil {
			return nil, err
		}
	}
	if from.forwarded {
		return resp, nil // the node that the agent is connected to signs
	}
	return s.withWrits(req.GetRegion(), resp)
}

// withWrits adds the writs that tasks need, in an answer of its own: what the coordinator answers is not ours to change.
func (s *regionService) withWrits(at string, resp *writv1.AgentPollResponse) (*writv1.AgentPollResponse, error) {
	needs := false
	for _, t := range resp.GetTasks() {
		needs = needs || holdsTenure(at, t, resp.GetGroups())
	}
	if !needs {
		return resp, nil
	}
	resp = proto.CloneOf(resp)
	for _, t := range resp.GetTasks() {
		if !holdsTenure(at, t, resp.GetGroups()) {
			continue
		}
		var err error
		if t.Writ, err = s.tenureWrit(t, at, t.GetToken()); err != nil {
			return nil, err
		}
		// To be refused: what it proves is that guards refuse it.
		if t.GetKind() == writv1.HookKind_HOOK_KIND_VERIFY && t.GetOldToken() != 0 && t.GetOldToken() < t.GetToken() {
			if t.OldWrit, err = s.tenureWrit(t, t.GetFrom(), t.GetOldToken()); err != nil {
				return nil, err
			}
		}
	}
	return resp, nil
}

// holdsTenure reports whether a task is for the region that has the tenure, under that tenure's token. The agent of any other
// region gets no writ, whatever the task says.
func holdsTenure(at string, t *writv1.Task, groups []*writv1.AgentGroup) bool {
	for _, g := range groups {
		if g.GetGroup() == t.GetGroup() {
			return at != "" && g.GetPrimary() == at && g.GetToken() == t.GetToken() && t.GetToken() != 0
		}
	}
	return false
}

// tenureHolder is who has the tenure of a group, as writs name it.
func tenureHolder(group string) string { return tenurePrefix + group }

const tenurePrefix = "group/"

func (s *regionService) tenureWrit(t *writv1.Task, at string, token uint64) (string, error) {
	return s.signer.sign(fence.Writ{
		Resource: t.GetResource(), Holder: tenureHolder(t.GetGroup()), Region: at, Token: fence.Token(token),
		IssuedAt: s.clock.Wall(), RequestID: t.GetPromotion(),
	})
}
