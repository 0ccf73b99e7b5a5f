//writ:core

package quorum

import (
	"errors"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/mutant"
)

// ErrReincarnated ends the telling of a history when another one begins.
var ErrReincarnated = errors.New("quorum: another incarnation")

// Resume names a point of one history: a revision means nothing in another incarnation. It is behind the first Told entries
// of the change at Revision, or behind the whole change if Told is 0.
type Resume struct {
	Incarnation string
	Revision    int64
	Told        int
}

// String is the resume token; empty before a quorum has its first incarnation, when there is nothing to continue.
func (r Resume) String() string {
	if r.Incarnation == "" {
		return ""
	}
	token := r.Incarnation + ":" + strconv.FormatInt(r.Revision, 10)
	if r.Told > 0 {
		token += ":" + strconv.Itoa(r.Told)
	}
	return token
}

// ParseResume reads a resume token.
func ParseResume(token string) (Resume, error) {
	var r Resume
	var err error
	parts := strings.Split(token, ":")
	ok := (len(parts) == 2 || len(parts) == 3) && parts[0] != ""
	if ok {
		r.Incarnation = parts[0]
		r.Revision, err = strconv.ParseInt(parts[1], 10, 64)
		ok = err == nil && r.Revision >= 0 && r.Revision < 1<<62
	}
	if ok && len(parts) == 3 {
		r.Told, err = strconv.Atoi(parts[2])
		ok = err == nil && r.Told > 0
	}
	if !ok {
		return Resume{}, lease.Invalid("resume_token", "is not one of this service", "pass a resume_token of an earlier event, or leave it out to start with the present state")
	}
	return r, nil
}

// From is the first revision of the store's history that has something to tell.
func (r Resume) From() int64 {
	switch {
	case r.Told > 0 || mutant.On(mutant.WatchRepeats):
		return r.Revision
	case mutant.On(mutant.WatchSkipsAfterResume):
		return r.Revision + 2
	}
	return r.Revision + 1
}

// Continues says whether a history with that identity and of that revision goes on behind r. The newest revision is needed:
// behind it a node may not know of the history that r is of.
func (r Resume) Continues(id *writv1.IdentityRecord, revision int64) bool {
	return id != nil && id.Incarnation == r.Incarnation && r.Revision <= revision
}

// After is the point behind a change.
func (r Resume) After(c Change) Resume {
	return Resume{Incarnation: r.Incarnation, Revision: c.Revision}
}

// BeginsAnew says that a watch which ended with err cannot go on from where it was: it goes on with WatchResync and the
// present state.
func BeginsAnew(err error) bool {
	return errors.Is(err, ErrReincarnated) || errors.Is(err, ErrCompacted)
}

// TellState tells the present state under prefix, behind a WatchResync if resync, and answers the point behind it. An error
// is deliver's, or of a record that cannot be read.
func TellState(image *Image, prefix string, resync bool, deliver func(WatchEvent) error) (Resume, error) {
	at := Resume{Incarnation: image.Identity().GetIncarnation(), Revision: image.Revision()}
	if resync {
		if mutant.On(mutant.CompactionIgnored) {
			return at, nil
		}
		if err := deliver(WatchEvent{Kind: WatchResync}); err != nil {
			return at, err
		}
	}
	var failed error
	image.Ascend(prefixLease+prefix, func(e Entry) bool {
		name, ok := cutKey(e.Key, prefixLease)
		if !ok || !strings.HasPrefix(name, prefix) {
			return false
		}
		var info lease.Info
		if info, failed = infoOf(e); failed == nil {
			info.Revision = e.Revision
			// A stream cut here has not told the whole state: only WatchSynced carries a token.
			failed = deliver(WatchEvent{Kind: WatchState, Lease: info, Traceparent: raisedBy(info, image.ascendGroup)})
		}
		return failed == nil
	})
	if failed != nil {
		return at, failed
	}
	return at, deliver(WatchEvent{Kind: WatchSynced, Resume: at.String()})
}

// Tell answers what a watch under prefix that stands at r is told of a change. Every event carries a token that goes on
// right behind it. What comes with an error is to be told before it; ErrReincarnated says that another history begins with
// this change.
func Tell(c Change, prefix string, r Resume) (events []WatchEvent, err error) {
	skip := 0
	if c.Revision == r.Revision {
		skip = r.Told
	}
	for i, e := range c.Entries {
		if e.Key == KeyIdentity && incarnationOf(e) != r.Incarnation {
			return events, ErrReincarnated
		}
		name, ok := cutKey(e.Key, prefixLease)
		if i < skip || !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		ev := WatchEvent{Kind: WatchRemoved, Lease: lease.Info{Resource: lease.Resource(name), State: lease.Free}}
		if e.Value != nil {
			info, err := infoOf(e)
			if err != nil {
				return events, err
			}
			ev = WatchEvent{Kind: WatchChanged, Lease: info, Traceparent: raisedBy(info, c.ascendGroup)}
		}
		ev.Lease.Revision = c.Revision
		ev.Resume = Resume{Incarnation: r.Incarnation, Revision: c.Revision, Told: (i + 1) % len(c.Entries)}.String()
		events = append(events, ev)
	}
	return events, nil
}

// raisedBy is the trace context of the promotion that raises the guards of a tenure; empty if there is none. ascend calls its
// function for the promotions of a group.
func raisedBy(info lease.Info, ascend func(group string, f func(Entry) bool)) (traceparent string) {
	if info.TenureGroup == "" || info.State != lease.Fencing {
		return ""
	}
	ascend(info.TenureGroup, func(e Entry) bool {
		var p writv1.Promotion
		// One that cannot be read is told of by the view.
		if proto.Unmarshal(e.Value, &p) == nil && p.Group == info.TenureGroup && !region.PromotionEnded(p.State) && p.Token == uint64(info.Fencing) {
			traceparent = region.PresentSpan(&p)
		}
		return traceparent == ""
	})
	return traceparent
}

// ascendGroup calls f for what a change says of the promotions of a group, until f answers false.
func (c Change) ascendGroup(group string, f func(Entry) bool) {
	for _, e := range c.Entries {
		if strings.HasPrefix(e.Key, prefixPromotion+group+"-") && e.Value != nil && !f(e) {
			return
		}
	}
}

// ascendGroup calls f for the promotions of a group, until f answers false.
func (i *Image) ascendGroup(group string, f func(Entry) bool) {
	of := prefixPromotion + group + "-"
	i.Ascend(of, func(e Entry) bool { return strings.HasPrefix(e.Key, of) && f(e) })
}

func incarnationOf(e Entry) string {
	var id writv1.IdentityRecord
	if err := proto.Unmarshal(e.Value, &id); err != nil {
		return ""
	}
	return id.Incarnation
}

func infoOf(e Entry) (lease.Info, error) {
	var rec lease.Record
	if err := rec.UnmarshalBinary(e.Value); err != nil {
		return lease.Info{}, lease.Errorf(lease.ReasonInternal, "%s: %v", e.Key, err)
	}
	return rec.Info(), nil
}
