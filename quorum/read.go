package quorum

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/lease"
)

// fresh waits until the view has everything that was acknowledged before the call.
func (s *Service) fresh(ctx context.Context, c Consistency) error {
	if c == Local {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	head, err := s.member.Head(ctx)
	if err != nil {
		return lease.Errorf(lease.ReasonNoQuorum, "no majority confirms what is newest; ask for what this node has seen with local consistency")
	}
	return s.view.reach(ctx, head)
}

// Get reads one resource at any node.
func (s *Service) Get(ctx context.Context, resource lease.Resource, c Consistency) (lease.Info, error) {
	if err := s.fresh(ctx, c); err != nil {
		return lease.Info{}, err
	}
	e, revision, ok := s.view.get(LeaseKey(resource))
	if !ok {
		return lease.Info{}, &lease.Error{Reason: lease.ReasonNotFound, Resource: resource, Message: fmt.Sprintf("nothing is known of %q", resource)}
	}
	info, err := infoOf(e)
	info.Revision = revision
	return info, err
}

func infoOf(e Entry) (lease.Info, error) {
	var rec lease.Record
	if err := rec.UnmarshalBinary(e.Value); err != nil {
		return lease.Info{}, lease.Errorf(lease.ReasonInternal, "%s: %v", e.Key, err)
	}
	return rec.Info(), nil
}

// List reads one page of resources at any node.
func (s *Service) List(ctx context.Context, q ListQuery) (ListPage, error) {
	if q.Limit < 1 || q.Limit > 1000 {
		return ListPage{}, lease.Invalid("page_size", fmt.Sprintf("is %d", q.Limit), "use 1 to 1,000")
	}
	if err := s.fresh(ctx, q.Consistency); err != nil {
		return ListPage{}, err
	}
	tree, revision := s.view.snapshot()
	page := ListPage{Revision: revision}
	var failed error
	from := prefixLease + max(q.Prefix, q.After)
	tree.AscendGreaterOrEqual(Entry{Key: from}, func(e Entry) bool {
		name, ok := cutKey(e.Key, prefixLease)
		if !ok || (name > q.Prefix && !strings.HasPrefix(name, q.Prefix)) {
			return false
		}
		if q.After != "" && name <= q.After {
			return true
		}
		var info lease.Info
		if info, failed = infoOf(e); failed != nil {
			return false
		}
		if q.HeldOnly && info.State == lease.Free {
			return true
		}
		if len(page.Leases) == q.Limit {
			page.More = true
			return false
		}
		info.Revision = e.Revision
		page.Leases = append(page.Leases, info)
		return true
	})
	return page, failed
}

// resumeToken names a point of one history: a revision means nothing in another incarnation. It is behind the first told
// entries of the change at revision, or behind the whole change if told is 0.
func resumeToken(incarnation string, revision int64, told int) string {
	token := incarnation + ":" + strconv.FormatInt(revision, 10)
	if told > 0 {
		token += ":" + strconv.Itoa(told)
	}
	return token
}

func parseResume(token string) (incarnation string, revision int64, told int, err error) {
	parts := strings.Split(token, ":")
	ok := len(parts) == 2 || len(parts) == 3
	if ok {
		revision, err = strconv.ParseInt(parts[1], 10, 64)
		ok = err == nil && revision >= 0 && revision < 1<<62 && parts[0] != ""
	}
	if ok && len(parts) == 3 {
		told, err = strconv.Atoi(parts[2])
		ok = err == nil && told > 0
	}
	if !ok {
		return "", 0, 0, lease.Invalid("resume_token", "is not one of this service", "pass a resume_token of an earlier event, or leave it out to start with the present state")
	}
	return parts[0], revision, told, nil
}

// watchProgress is how often an idle watch is told a fresh resume token.
const watchProgress = 10 * time.Second

// errReincarnated ends the inner watch when the history changes under it.
var errReincarnated = errors.New("quorum: another incarnation")

// Watch tells the changes under prefix in order, without gap or duplicate, until ctx ends or deliver fails. It starts with
// the present state, or behind the resume token of an earlier watch at any node; a token that cannot be continued from is
// answered by one WatchResync and the present state.
func (s *Service) Watch(ctx context.Context, prefix, resume string, deliver func(WatchEvent) error) error {
	w := &watch{service: s, prefix: prefix, deliver: deliver}
	if resume == "" {
		return w.fromState(ctx, false)
	}
	incarnation, revision, told, err := parseResume(resume)
	if err != nil {
		return err
	}
	// Behind the newest state this node may not know of the history that the token is of.
	if err := s.fresh(ctx, Linearizable); err != nil {
		return err
	}
	r := s.view.roster()
	if r.identity == nil || r.identity.Incarnation != incarnation || revision > r.revision {
		return w.fromState(ctx, true)
	}
	w.incarnation = incarnation
	return w.follow(ctx, revision, told)
}

type watch struct {
	service     *Service
	prefix      string
	incarnation string
	deliver     func(WatchEvent) error
}

func (w *watch) fromState(ctx context.Context, resync bool) error {
	if err := w.service.fresh(ctx, Linearizable); err != nil {
		return err
	}
	if resync {
		if err := w.deliver(WatchEvent{Kind: WatchResync}); err != nil {
			return err
		}
	}
	// The roster first: a change of incarnation between the two is then noticed by follow.
	w.incarnation = w.service.view.roster().identity.GetIncarnation()
	tree, revision := w.service.view.snapshot()
	at := resumeToken(w.incarnation, revision, 0)
	var failed error
	tree.AscendGreaterOrEqual(Entry{Key: prefixLease + w.prefix}, func(e Entry) bool {
		name, ok := cutKey(e.Key, prefixLease)
		if !ok || !strings.HasPrefix(name, w.prefix) {
			return false
		}
		var info lease.Info
		if info, failed = infoOf(e); failed == nil {
			info.Revision = e.Revision
			// A stream cut here has not told the whole state: only WatchSynced carries a token.
			failed = w.deliver(WatchEvent{Kind: WatchState, Lease: info})
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err := w.deliver(WatchEvent{Kind: WatchSynced, Resume: at}); err != nil {
		return err
	}
	return w.follow(ctx, revision, 0)
}

// follow tells what happens after the first told entries of the change at revision; told 0 means all of that change.
func (w *watch) follow(ctx context.Context, revision int64, told int) error {
	from := revision + 1
	if told > 0 {
		from = revision
	}
	inner, cancel := context.WithCancel(ctx)
	changes, done := make(chan Change), make(chan error, 1)
	go func() {
		done <- w.service.member.Watch(inner, from, func(c Change) bool {
			select {
			case changes <- c:
				return true
			case <-inner.Done():
				return false
			}
		})
	}()
	err, ended := w.relay(revision, told, changes, done)
	cancel()
	if !ended {
		w.service.logger.Trace("watch ended", "error", <-done)
	}
	switch {
	case errors.Is(err, errReincarnated), errors.Is(err, ErrCompacted):
		return w.fromState(ctx, true)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ended:
		return lease.Errorf(lease.ReasonNoQuorum, "the node is stopping; resume at another one")
	}
	return err
}

// relay delivers until something fails; ended says that the store's watch is over.
func (w *watch) relay(revision int64, told int, changes <-chan Change, done <-chan error) (err error, ended bool) {
	idle := time.NewTicker(watchProgress)
	defer idle.Stop()
	for {
		select {
		case c := <-changes:
			if c.Revision != revision {
				told = 0
			}
			if err := w.tell(c, told); err != nil {
				return err, false
			}
			revision, told = c.Revision, 0
		case <-idle.C:
			if told > 0 {
				continue
			}
			if err := w.deliver(WatchEvent{Kind: WatchProgress, Resume: resumeToken(w.incarnation, revision, 0)}); err != nil {
				return err, false
			}
		case err := <-done:
			return err, true
		}
	}
}

// tell delivers a change from entry skip on. Every event carries a token that goes on right behind it.
func (w *watch) tell(c Change, skip int) error {
	for i, e := range c.Entries {
		if e.Key == KeyIdentity && w.service.incarnationOf(e) != w.incarnation {
			return errReincarnated
		}
		name, ok := cutKey(e.Key, prefixLease)
		if i < skip || !ok || !strings.HasPrefix(name, w.prefix) {
			continue
		}
		ev := WatchEvent{Kind: WatchRemoved, Lease: lease.Info{Resource: lease.Resource(name), State: lease.Free}}
		if e.Value != nil {
			info, err := infoOf(e)
			if err != nil {
				return err
			}
			ev = WatchEvent{Kind: WatchChanged, Lease: info}
		}
		ev.Lease.Revision = c.Revision
		ev.Resume = resumeToken(w.incarnation, c.Revision, (i+1)%len(c.Entries))
		if err := w.deliver(ev); err != nil {
			return err
		}
	}
	return nil
}
