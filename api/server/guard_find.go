package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// found is what came of the search for a guard.
type found struct {
	resp *writv1.GuardFloorsResponse
	node string // that has its session
	// again asks the same guard once more; nil if it has not answered.
	again  func(context.Context) *writv1.GuardFloorsResponse
	silent []string // nodes that could not be asked
}

// find asks the node that has a guard's session for a page: this one, or whichever other one says that it has it.
func (g *guards) find(ctx context.Context, name string, ask *writv1.GuardFloorsAsk) *found {
	self := g.quorum.Status().Node
	here := func(ctx context.Context) *writv1.GuardFloorsResponse { return g.floorsHere(ctx, name, ask) }
	best := &found{resp: here(ctx), node: self, again: here}
	if best.resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED {
		return best
	}
	ctx, cancel := context.WithTimeout(ctx, g.patienceFor(ctx))
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	var silent, words []string
	for _, n := range g.quorum.Nodes() {
		if n.Name == self {
			continue
		}
		all.Go(func() {
			there := func(ctx context.Context) (*writv1.GuardFloorsResponse, error) {
				return g.floorsThere(ctx, n, name, ask)
			}
			resp, err := there(ctx)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil && best.resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED: // given up, because it has been found
			case err != nil:
				silent, words = append(silent, n.Name), append(words, fmt.Sprintf("node %s could not be asked: %s", n.Name, lastWords(err)))
			case tells(resp) > tells(best.resp):
				best.resp, best.node = resp, n.Name
				best.again = func(ctx context.Context) *writv1.GuardFloorsResponse {
					resp, err := there(ctx)
					if err != nil {
						return silentGuard(lastWords(err))
					}
					return resp
				}
				if resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED {
					cancel()
				}
			}
		})
	}
	all.Wait()
	if best.resp.GetReach() != writv1.GuardReach_GUARD_REACH_ANSWERED {
		best.unanswered(silent, words)
	}
	return best
}

// tells orders answers by how much they say of a guard.
func tells(resp *writv1.GuardFloorsResponse) int {
	return slices.Index([]writv1.GuardReach{
		writv1.GuardReach_GUARD_REACH_NOT_CONNECTED, writv1.GuardReach_GUARD_REACH_SILENT,
		writv1.GuardReach_GUARD_REACH_TOO_OLD, writv1.GuardReach_GUARD_REACH_ANSWERED,
	}, resp.GetReach())
}

// unanswered completes what is told of a guard that has not answered.
func (f *found) unanswered(silent, words []string) {
	f.again = nil
	slices.Sort(silent)
	slices.Sort(words)
	f.silent = silent
	detail := f.resp.GetDetail()
	if f.resp.GetReach() == writv1.GuardReach_GUARD_REACH_NOT_CONNECTED {
		f.node = ""
		if detail == "" {
			detail = "no node that could be asked has a session of it: see that writ-guard runs, and that it reaches a node"
		}
	}
	f.resp = &writv1.GuardFloorsResponse{Reach: f.resp.GetReach(), Detail: strings.Join(append([]string{detail}, words...), "; ")}
}

// floorsThere asks another node.
func (g *guards) floorsThere(ctx context.Context, n quorum.Node, name string, ask *writv1.GuardFloorsAsk) (*writv1.GuardFloorsResponse, error) {
	if n.APIAddress == "" {
		return nil, errors.New("it has not told its address yet")
	}
	conn, err := g.forwarder.tracker.connection(n.APIAddress)
	if err != nil {
		return nil, err
	}
	principal := string(callerOf(ctx).principal)
	ctx = metadata.AppendToOutgoingContext(ctx, keyForwarded, principal)
	resp, err := writv1.NewPeerServiceClient(conn).GuardFloors(ctx, &writv1.GuardFloorsRequest{Principal: principal, Guard: name, Ask: ask})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, errors.New("it is of a version that does not ask guards for their floors")
	case err != nil:
		return nil, err
	case tells(resp) < 0 || resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED && checkPage(ask, resp.GetPage()) != nil:
		return nil, errors.New("it answered what makes no sense")
	}
	return resp, nil
}

// knownToken is what the quorum knows of a resource.
type knownToken struct{ granted, next fence.Token }

func (k knownToken) newest() fence.Token { return max(k.granted, k.next) }

// compare puts a page beside what the quorum knows. Either may move on while the other one is read. What the quorum knew before a
// guard told its floor is not above it, and so a page with floors that look as if they were behind is asked for once more; what
// is known after a floor was told is not below it.
func (g *guards) compare(ctx context.Context, f *found, ask *writv1.GuardFloorsAsk, resp *writv1.GetGuardResponse) {
	page := f.resp.GetPage()
	known, err := g.known(ctx, page)
	if err != nil {
		addDetail(resp, "floors are not compared with what the quorum knows: "+lastWords(err))
	}
	earlier := make(map[string]fence.Token, len(page.GetFloors()))
	behind := false
	for _, k := range page.GetFloors() {
		token := fence.Token(k.GetToken())
		earlier[k.GetResource()] = token
		behind = behind || token < known[k.GetResource()].newest()
	}
	if behind {
		if again := f.again(ctx); again.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED {
			page = again.GetPage()
		}
	}
	resp.Base = page.GetBase()
	if next := page.GetNext(); next != "" {
		resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(next))
	}
	for _, k := range page.GetFloors() {
		of := known[k.GetResource()]
		resp.Floors = append(resp.Floors, &writv1.GuardShownFloor{Floor: k, Known: uint64(of.newest()), Standing: standing(k, of, earlier[k.GetResource()])})
	}
}

// standing judges a floor. earlier is what it was before the quorum was asked; 0: that is not known.
func standing(k *writv1.GuardKeptFloor, known knownToken, earlier fence.Token) writv1.GuardFloorStanding {
	floor := fence.Token(k.GetToken())
	switch {
	case known.newest().IsZero():
		return writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_UNSPECIFIED
	case floor < known.granted:
		return writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_BEHIND
	case floor < known.next:
		return writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_RAISING
	case earlier > known.newest() && !k.GetBase():
		return writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_AHEAD
	}
	return writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_SAME
}

// known answers what the quorum knows of the resources of a page. The first read waits for the newest state, and those that come
// behind it see no less.
func (g *guards) known(ctx context.Context, page *writv1.GuardFloorsPage) (map[string]knownToken, error) {
	all := make(map[string]knownToken, len(page.GetFloors()))
	consistency := quorum.Linearizable
	for _, k := range page.GetFloors() {
		info, err := g.quorum.Get(ctx, quorum.GetQuery{Resource: lease.Resource(k.GetResource()), Consistency: consistency})
		switch {
		case err == nil:
			all[k.GetResource()] = knownToken{granted: info.Token, next: info.Fencing}
		case errors.Is(err, lease.ErrNotFound):
		case consistency == quorum.Linearizable:
			return nil, err
		}
		consistency = quorum.Local
	}
	return all, nil
}

func addDetail(resp *writv1.GetGuardResponse, text string) {
	resp.Detail = strings.TrimPrefix(resp.GetDetail()+"; "+text, "; ")
}
