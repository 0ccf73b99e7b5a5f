package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/remains"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// lastKnown is what the data directory of a node that does not run says of the quorum; nil: there is none.
type lastKnown struct{ *remains.State }

// remains reads the directory that was given.
func (a *app) remains(f breakglassPlan) (*lastKnown, error) {
	if f.dataDir == "" {
		return nil, nil
	}
	state, err := remains.Read(f.dataDir, hclog.NewNullLogger())
	if err != nil {
		fix := "name the data_dir of a node of this quorum"
		switch {
		case errors.Is(err, remains.ErrRunning):
			fix = "stop that server: one that knows a quorum must not be planned around, and one that knows none is not needed to run"
		case errors.Is(err, remains.ErrDamaged), errors.Is(err, remains.ErrOlder):
			fix = "take the directory of another node, or a saved --status and --guards"
		case errors.Is(err, fs.ErrPermission):
			fix = "read it as the user that the server ran as"
		}
		return nil, lease.Invalid("--data-dir", "cannot be used: "+oneLine(err.Error()), fix)
	}
	as := "of an unknown time"
	if !state.AsOf.IsZero() {
		as = fmt.Sprintf("of %s, %s ago", state.AsOf.UTC().Format(time.RFC3339), span(a.now().Sub(state.AsOf)))
	}
	a.say("%s is of node %s in cluster %s, epoch %d; its newest record is %s: of what changed after that it knows nothing",
		oneLine(f.dataDir), oneLine(state.Node), oneLine(state.Cluster), state.Epoch, as)
	return &lastKnown{state}, nil
}

// addTo adds the nodes and guards to those that somebody has saved.
func (l *lastKnown) addTo(status *writv1.StatusResponse, list *writv1.ListGuardsResponse) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		same := func(s *writv1.NodeStatus) bool {
			return s.GetName() == n.GetName() && s.GetApiAddress() == n.GetApiAddress()
		}
		if !slices.ContainsFunc(status.GetNodes(), same) {
			status.Nodes = append(status.Nodes, &writv1.NodeStatus{Name: n.GetName(), Region: n.GetRegion(), ApiAddress: n.GetApiAddress()})
		}
	}
	for _, g := range l.Guards {
		same := func(s *writv1.Guard) bool { return s.GetName() == g.GetName() }
		if !slices.ContainsFunc(list.GetGuards(), same) {
			list.Guards = append(list.Guards, &writv1.Guard{Name: g.GetName(), Region: g.GetRegion()})
		}
	}
}

// agree refuses a directory that is of another history than what the guards remember.
func (a *app) agree(l *lastKnown, guards []knownGuard) error {
	if l == nil {
		return nil
	}
	known, name := guards[0].Known, guards[0].Name
	switch {
	case known.Cluster != l.Cluster:
		return lease.Invalid("--data-dir", fmt.Sprintf("%s is of the cluster %q, and guard %s of %q", l.Dir, l.Cluster, name, known.Cluster),
			"name the data_dir of a node of the guard's quorum")
	case known.Incarnation != l.Incarnation || known.Epoch != uint32(l.Epoch):
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("%s holds epoch %d, incarnation %s, and guard %s remembers epoch %d, incarnation %s: one has missed what came after",
			l.Dir, l.Epoch, l.Incarnation, name, known.Epoch, known.Incarnation), Fix: "take the directory of another node, or a saved --status and --guards"}
	case known.ApproversVersion != l.ApproversVersion:
		a.say("warning: %s holds version %d of the approvers, and guard %s remembers version %d, by whose rule it judges", oneLine(l.Dir), l.ApproversVersion, name, known.ApproversVersion)
	}
	return nil
}

// granted completes what is planned for a resource by what the directory says was granted last, and refuses that a region goes on
// under the token of another one.
func (l *lastKnown) granted(f breakglassPlan, resource, group string, last fence.Token) (string, fence.Token, error) {
	if l == nil {
		return group, last, nil
	}
	record := l.Leases[resource]
	if of := record.GetTenureGroup(); of != "" {
		if group != "" && group != of {
			return "", 0, lease.Invalid("--resource", fmt.Sprintf("says that %q is of group %q, and %s that it is of %q", resource, group, l.Dir, of), "write "+resource+"="+of)
		}
		group = of
	}
	newest := max(fence.Token(record.GetToken()), fence.Token(record.GetFencing()))
	if newest == 0 || newest < last || f.advance {
		return group, max(last, newest), nil
	}
	switch {
	case record.GetFencing() != 0:
		return "", 0, lease.Errorf(lease.ReasonConflict, "%q was being handed over: %v was to be granted next, and nobody says to whom. Move ahead of it: --advance", resource, newest)
	case record.GetRegion() != "" && record.GetRegion() != f.to:
		return "", 0, lease.Errorf(lease.ReasonConflict, "%v of %q is the token of region %s, and not of %s. A region that takes over moves ahead: --advance",
			newest, resource, record.GetRegion(), f.to)
	}
	return group, newest, nil
}
