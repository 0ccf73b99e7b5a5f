//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/cluster"
)

// Faults that are aimed at the moments in which a guard, or the quorum, that breaks a rule gives itself away. By chance they
// would take hours to come together.

// stranding is what happens to a guard that holds a write which cannot get to the store.
type stranding uint8

const (
	killed stranding = iota
	isolated
	left // to notice by itself
)

// aimed happens to guards and writers.
var aimed = []fault{
	{"guard killed with a write that cannot reach the store", func(p *plague, ctx context.Context) error { return p.strand(ctx, killed) }, true},
	{"guard cut from the quorum with a write that cannot reach the store", func(p *plague, ctx context.Context) error { return p.strand(ctx, isolated) }, true},
	{"guard left with a write that cannot reach the store", func(p *plague, ctx context.Context) error { return p.strand(ctx, left) }, true},
	{"guard killed in the middle of a slow write", func(p *plague, ctx context.Context) error {
		i, ok := p.write(ctx, func(s said) bool { return s.Slow })
		if !ok {
			return nil
		}
		wait(ctx, 50*time.Millisecond)
		return p.during(ctx, 0, p.lab.guards[i].Kill, p.lab.guards[i].Start)
	}, true},
	{"stale writer at a guard that is cut from the quorum", func(p *plague, ctx context.Context) error { return p.zombie(ctx, false) }, true},
	{"stale writer at a guard that was restarted and is cut from the quorum", func(p *plague, ctx context.Context) error { return p.zombie(ctx, true) }, true},
}

// strand cuts a guard from the store until it has taken a write that cannot get there, something has happened to it, and
// somebody else has been granted the resource and has written. What is left of the write must not arrive when the cut is
// mended.
func (p *plague) strand(ctx context.Context, what stranding) (err error) {
	i := p.guard()
	g := guardParty(i)
	p.lab.warm(ctx, i)
	if err := p.lab.net.Cut(g, storeParty); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.lab.net.Mend(g, storeParty)) }()
	within, cancel := context.WithTimeout(ctx, lapse)
	defer cancel()
	write, ok := p.lab.book.await(within, func(s said) bool { return s.Kind == saidPut && s.Front == i })
	if !ok {
		return nil
	}
	heard, stop := p.lab.book.listen(func(s said) bool {
		return s.Kind == saidDone && s.Outcome == appends.Acked && s.Token > write.Token
	})
	defer stop()
	p.log.note("stranded at %s: %s", g, write.Element)
	end := func() error { return nil }
	switch what {
	case killed:
		wait(ctx, p.between(20, 300))
		err, end = p.lab.guards[i].Kill(), p.lab.guards[i].Start
	case isolated:
		err = p.lab.isolate(g)
		end = func() error { return p.lab.rejoin(g) }
	case left:
	}
	if err != nil {
		return err
	}
	within, cancel = context.WithTimeout(ctx, 3*lapse)
	defer cancel()
	select {
	case <-heard:
	case <-within.Done():
	}
	err = p.lab.net.Mend(g, storeParty)
	wait(ctx, p.between(1000, 3000))
	return errors.Join(err, end())
}

// zombie pauses a writer between reading and writing, cuts a guard off from the quorum and from the other writers, and has
// the writer present its writ there when another one has written. The guard cannot know of the newer token; it has to
// know that it does not. If restart is set, it is killed, and started again only then.
func (p *plague) zombie(ctx context.Context, restart bool) (err error) {
	w, i := p.writer(), p.guard()
	g := guardParty(i)
	defer func() { err = errors.Join(err, p.lab.net.Heal()) }() // nobody else does harm
	var failed error
	s, err := p.pauseAtRead(ctx, w, i, func(ctx context.Context, reader said) {
		failed = p.lab.isolate(g)
		for _, other := range p.lab.writers {
			if other != w {
				failed = errors.Join(failed, p.lab.net.Cut(other.party, g))
			}
		}
		if restart {
			failed = errors.Join(failed, p.lab.guards[i].Kill())
		}
		p.log.note("%s waits with %v for %s", w.party, reader.Token, g)
		p.overtaken(ctx, reader.Token)
		if restart {
			failed = errors.Join(failed, p.lab.guards[i].Start())
			p.lab.awaitFront(ctx, i)
		}
	})
	p.log.note("it was %s: %s", s.Outcome, s.Detail)
	return errors.Join(err, failed)
}

// isolate cuts a guard off from the quorum, both ways.
func (l *lab) isolate(guard string) error { return l.quorumWays(guard, l.net.Cut) }

func (l *lab) rejoin(guard string) error { return l.quorumWays(guard, l.net.Mend) }

func (l *lab) quorumWays(guard string, do func(from, to string) error) (all error) {
	for _, node := range cluster.Regions {
		all = errors.Join(all, do(guard, node), do(node, guard))
	}
	return all
}

// awaitFront waits until a guard listens.
func (l *lab) awaitFront(ctx context.Context, guard int) {
	dial := l.net.Dial(observerParty)
	for {
		conn, err := dial(ctx, strings.TrimPrefix(l.front(guard), "http://"))
		if err == nil {
			_ = conn.Close()
			return
		}
		if !wait(ctx, 20*time.Millisecond) {
			return
		}
	}
}

// warm leaves a guard with many connections to the store that it keeps, so that the next write goes out at once.
func (l *lab) warm(ctx context.Context, guard int) {
	dial := l.net.Dial(observerParty)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			url := l.front(guard) + storePath + "?delay=100ms"
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				panic(err)
			}
			if response, err := transport.RoundTrip(request); err == nil {
				_, _ = io.Copy(io.Discard, response.Body) // only the connection counts
				_ = response.Body.Close()
			}
		})
	}
	all.Wait()
}

// pauseReader has a writer stop after it has read, and go on when another one has written.
func (p *plague) pauseReader(ctx context.Context, w *labWriter) error {
	_, err := p.pauseAtRead(ctx, w, p.guard(), func(ctx context.Context, reader said) { p.overtaken(ctx, reader.Token) })
	return err
}

// overtaken waits until somebody has written under a newer token.
func (p *plague) overtaken(ctx context.Context, token fence.Token) bool {
	_, ok := p.lab.book.await(ctx, func(s said) bool {
		return s.Kind == saidDone && s.Outcome == appends.Acked && s.Token > token
	})
	return ok
}

// pauseAtRead pauses a writer between reading and writing until meanwhile returns, has it write through a guard then, and
// returns what came of that; nothing if the writer never comes so far.
func (p *plague) pauseAtRead(ctx context.Context, w *labWriter, guard int, meanwhile func(ctx context.Context, reader said)) (said, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*lapse)
	defer cancel()
	mine := func(kind string) func(said) bool {
		return func(s said) bool { return s.Kind == kind && strings.HasPrefix(s.Writer, w.party+".") }
	}
	read, stop := p.lab.book.listen(mine(saidRead))
	defer stop()
	if err := w.tell(commandHold); err != nil {
		return said{}, err
	}
	select {
	case reader := <-read:
		if err := w.Pause(); err != nil {
			return said{}, err
		}
		meanwhile(ctx, reader)
		if _, err := w.Resume(); err != nil {
			return said{}, err
		}
	case <-ctx.Done():
	}
	done, stop := p.lab.book.listen(mine(saidDone))
	defer stop()
	if err := w.tell(fmt.Sprint(commandGo, " ", guard)); err != nil {
		return said{}, err
	}
	select {
	case s := <-done:
		return s, nil
	case <-ctx.Done():
		return said{}, nil
	}
}
