package quorum

import (
	"context"
	"fmt"
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
func (s *Service) Get(ctx context.Context, q GetQuery) (lease.Info, error) {
	if err := s.fresh(ctx, q.Consistency); err != nil {
		return lease.Info{}, err
	}
	read := s.view.resource(q.Resource)
	if !read.known {
		return lease.Info{}, &lease.Error{Reason: lease.ReasonNotFound, Resource: q.Resource, Message: fmt.Sprintf("nothing is known of %q", q.Resource)}
	}
	info, err := infoOf(read.lease)
	info.Revision = read.revision
	if q.WithCheckpoint {
		info.Checkpoint = read.checkpoint
	}
	return info, err
}

// List reads one page of resources at any node.
func (s *Service) List(ctx context.Context, q ListQuery) (ListPage, error) {
	if q.Limit < 1 || q.Limit > 1000 {
		return ListPage{}, lease.Invalid("page_size", fmt.Sprintf("is %d", q.Limit), "use 1 to 1,000")
	}
	if err := s.fresh(ctx, q.Consistency); err != nil {
		return ListPage{}, err
	}
	image := s.view.snapshot()
	page := ListPage{Revision: image.Revision()}
	var failed error
	image.Ascend(prefixLease+max(q.Prefix, q.After), func(e Entry) bool {
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

// watchProgress is how often an idle watch is told a fresh resume token.
const watchProgress = 10 * time.Second

// Watch tells the changes under prefix in order, without gap or duplicate, until ctx ends or deliver fails. It starts with
// the present state, or behind the resume token of an earlier watch at any node; a token that cannot be continued from is
// answered by one WatchResync and the present state.
func (s *Service) Watch(ctx context.Context, prefix, resume string, deliver func(WatchEvent) error) error {
	w := &watch{service: s, prefix: prefix, deliver: deliver}
	if resume == "" {
		return w.fromState(ctx, false)
	}
	var err error
	if w.at, err = ParseResume(resume); err != nil {
		return err
	}
	// Behind the newest state this node may not know of the history that the token is of.
	if err := s.fresh(ctx, Linearizable); err != nil {
		return err
	}
	if r := s.view.roster(); !w.at.Continues(r.identity, r.revision) {
		return w.fromState(ctx, true)
	}
	return w.follow(ctx)
}

type watch struct {
	service *Service
	prefix  string
	at      Resume // everything up to here has been told
	deliver func(WatchEvent) error
}

func (w *watch) fromState(ctx context.Context, resync bool) error {
	err := w.service.fresh(ctx, Linearizable)
	if err != nil {
		return err
	}
	if w.at, err = TellState(w.service.view.snapshot(), w.prefix, resync, w.deliver); err != nil {
		return err
	}
	return w.follow(ctx)
}

// follow tells what happens next.
func (w *watch) follow(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	changes, done := make(chan Change), make(chan error, 1)
	from := w.at.From()
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
	err, ended := w.relay(changes, done)
	cancel()
	if !ended {
		w.service.logger.Trace("watch ended", "error", <-done)
	}
	switch {
	case BeginsAnew(err):
		return w.fromState(ctx, true)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ended:
		return lease.Errorf(lease.ReasonNoQuorum, "the node is stopping; resume at another one")
	}
	return err
}

// relay delivers until something fails; ended says that the store's watch is over.
func (w *watch) relay(changes <-chan Change, done <-chan error) (err error, ended bool) {
	idle := time.NewTicker(watchProgress)
	defer idle.Stop()
	for {
		select {
		case c := <-changes:
			if err := w.tell(c); err != nil {
				return err, false
			}
		case <-idle.C:
			if w.at.Told > 0 {
				continue
			}
			if err := w.deliver(WatchEvent{Kind: WatchProgress, Resume: w.at.String()}); err != nil {
				return err, false
			}
		case err := <-done:
			return err, true
		}
	}
}

func (w *watch) tell(c Change) error {
	events, err := Tell(c, w.prefix, w.at)
	for _, ev := range events {
		if err := w.deliver(ev); err != nil {
			return err
		}
	}
	w.at = w.at.After(c)
	return err
}
