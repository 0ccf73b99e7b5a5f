package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

const (
	// maxFloorsPage is how many floors a page has at most.
	maxFloorsPage = 1000
)

// floorsAsk reads which page is asked for.
func floorsAsk(req *writv1.GetGuardRequest) (*writv1.GuardFloorsAsk, error) {
	ask := &writv1.GuardFloorsAsk{Prefix: req.GetPrefix(), Limit: uint32(req.GetPageSize())}
	if ask.Limit == 0 {
		ask.Limit = maxFloorsPage
	}
	if err := checkText("name", req.GetName(), maxGuardName); err != nil {
		return nil, err
	}
	if token := req.GetPageToken(); token != "" {
		after, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(after) == 0 || len(after) > lease.MaxResourceBytes {
			return nil, lease.Invalid("page_token", "is not one of this API's", "use next_page_token of the answer before, or none")
		}
		ask.After = string(after)
	}
	return ask, checkFloorsAsk(ask)
}

func checkFloorsAsk(ask *writv1.GuardFloorsAsk) error {
	if n := ask.GetLimit(); n < 1 || n > maxFloorsPage {
		return lease.Invalid("limit", fmt.Sprintf("is %d", n), fmt.Sprintf("use 1 to %d", maxFloorsPage))
	}
	if n := len(ask.GetAfter()); n > lease.MaxResourceBytes {
		return tooLong("after", n, lease.MaxResourceBytes)
	}
	return checkPrefix("prefix", ask.GetPrefix())
}

// checkPrefix refuses what no name of a resource begins with.
func checkPrefix(field, prefix string) error {
	if err := checkText(field, prefix, lease.MaxResourceBytes); err != nil || prefix == "" {
		return err
	}
	name := prefix
	if len(name) < lease.MaxResourceBytes {
		name += "x"
	}
	if _, err := lease.ParseResource(name); err != nil {
		return lease.Invalid(field, fmt.Sprintf("is %q, and no name of a resource begins with it", prefix),
			"use what names begin with, such as billing/, or leave it out")
	}
	return nil
}

// get answers a page of a guard's floors beside what the quorum knows of them; first: and of the guard.
func (g *guards) get(ctx context.Context, name string, ask *writv1.GuardFloorsAsk, first bool) (*writv1.GetGuardResponse, error) {
	f := g.find(ctx, name, ask)
	resp := &writv1.GetGuardResponse{Reach: f.resp.GetReach(), Detail: f.resp.GetDetail(), Node: f.node}
	answered := resp.Reach == writv1.GuardReach_GUARD_REACH_ANSWERED
	if answered {
		g.compare(ctx, f, ask, resp)
	} else {
		resp.SilentNodes = f.silent
	}
	switch {
	case !first && answered:
		return resp, nil
	case !g.chain.readsAll(callerOf(ctx)):
		addDetail(resp, "what the quorum knows of the guard is told to those who may read everything")
		return resp, nil
	}
	list, err := g.list(ctx, "")
	for _, known := range list.GetGuards() {
		if known.GetName() == name {
			resp.Guard = known
		}
	}
	connected := resp.Reach != writv1.GuardReach_GUARD_REACH_NOT_CONNECTED
	switch {
	case resp.Guard != nil:
	case err != nil && !connected:
		return nil, err
	case err != nil:
		addDetail(resp, "the coordinator does not say what it knows of the guard: "+lastWords(err))
	case !connected:
		e := lease.Errorf(lease.ReasonNotFound, "no guard %q is enrolled, or connected to a node that could be asked", name)
		e.Fix = "use a name that writ guard list shows"
		return nil, e
	default:
		addDetail(resp, "the guard is connected, and not enrolled")
	}
	return resp, nil
}

// floorsHere asks the guard of a name whose session is at this node for a page.
func (g *guards) floorsHere(ctx context.Context, name string, ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsResponse {
	var s *guardSession
	for _, other := range g.all() {
		if other.name == name {
			s = other // the newest is the last
		}
	}
	switch {
	case s == nil:
		return &writv1.GuardFloorsResponse{Reach: writv1.GuardReach_GUARD_REACH_NOT_CONNECTED}
	case !s.tellsFloors:
		return &writv1.GuardFloorsResponse{
			Reach:  writv1.GuardReach_GUARD_REACH_TOO_OLD,
			Detail: "the guard is of a version that does not tell its floors: install a newer writ-guard",
		}
	}
	patience := g.patienceFor(ctx)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := s.demand(ctx, &writv1.GuardResponse{Say: &writv1.GuardResponse_Floors{Floors: ask}})
	if err == nil {
		err = checkPage(ask, answer.GetFloors())
	}
	switch {
	case errors.Is(err, errProbeGone):
		return &writv1.GuardFloorsResponse{
			Reach: writv1.GuardReach_GUARD_REACH_NOT_CONNECTED, Detail: "the guard disconnected while it was asked: ask again when it is back",
		}
	case errors.Is(err, context.DeadlineExceeded):
		return silentGuard("it did not answer within " + patience.Round(time.Millisecond).String() + ": see what its process does, and ask again")
	case err != nil:
		return silentGuard(err.Error() + ": ask again, and look into its log if it stays so")
	}
	return &writv1.GuardFloorsResponse{Reach: writv1.GuardReach_GUARD_REACH_ANSWERED, Page: answer.GetFloors()}
}

// patienceFor is how long a guard may take, so that whoever asks for it hears the rest of the answer before its time is up.
func (g *guards) patienceFor(ctx context.Context) time.Duration {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		return g.probing
	}
	return min(g.probing, time.Until(deadline)*3/4)
}

func silentGuard(detail string) *writv1.GuardFloorsResponse {
	return &writv1.GuardFloorsResponse{Reach: writv1.GuardReach_GUARD_REACH_SILENT, Detail: detail}
}

// checkPage tells why a page that a guard has sent does not answer what it was asked; nil: it does.
func checkPage(ask *writv1.GuardFloorsAsk, page *writv1.GuardFloorsPage) error {
	last := ask.GetAfter()
	wrong := func(what string, args ...any) error {
		return fmt.Errorf("the guard answered what makes no sense: "+what, args...)
	}
	switch {
	case page == nil:
		return errOtherAnswer
	case len(page.GetFloors()) > int(ask.GetLimit()):
		return wrong("%d floors, and at most %d were asked for", len(page.GetFloors()), ask.GetLimit())
	case fence.Token(page.GetBase()) < 0:
		return wrong("the base %d", page.GetBase())
	}
	for _, f := range page.GetFloors() {
		name := f.GetResource()
		switch {
		case name == "" || len(name) > lease.MaxResourceBytes || checkText("", name, lease.MaxResourceBytes) != nil:
			return wrong("a floor for the name %.64q", name)
		case name <= last || !strings.HasPrefix(name, ask.GetPrefix()):
			return wrong("a floor for %q, behind %q and asked for the prefix %q", name, last, ask.GetPrefix())
		case fence.Token(f.GetToken()) < 0:
			return wrong("the floor %d for %q", f.GetToken(), name)
		}
		last = name
	}
	if next := page.GetNext(); next != "" && (next < last || next == ask.GetAfter() || len(next) > lease.MaxResourceBytes) {
		return wrong("that the next page begins behind %.64q, and this one ends with %q", next, last)
	}
	return nil
}
