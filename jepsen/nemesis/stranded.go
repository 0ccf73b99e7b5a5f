//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// stranding is what happens to a guard that holds a write which cannot get to the store.
type stranding uint8

const (
	killed stranding = iota
	isolated
	left // to notice by itself
)

// strand cuts a guard from the store until it has taken a write that cannot get there, something has happened to it, and
// somebody else has been granted the resource and has written. What is left of the write must not arrive when the cut is
// mended.
func (s *strike) strand(ctx context.Context, what stranding) error {
	i := s.rng.IntN(lab.GuardCount)
	g := guard(i)
	quorum := both(g, regions...)
	if !s.take(append(names(quorum), g, way{g, lab.Store}.String())...) {
		return nil
	}
	s.warm(ctx, i)
	cut := func() error { s.lab.Net.Cut(g, lab.Store); return nil }
	mend := func() error { s.lab.Net.Mend(g, lab.Store); return nil }
	return s.while(ctx, way{g, lab.Store}.String(), cut, func(ctx context.Context) error {
		within, cancel := context.WithTimeout(ctx, lab.Lapse)
		defer cancel()
		write, ok := s.lab.Book.Await(within, func(said writer.Said) bool { return said.Kind == writer.Put && said.Front == i })
		if !ok {
			return nil
		}
		heard, stop := s.lab.Book.Listen(overtaking(write.Token))
		defer stop()
		detail := fmt.Sprintf("%s, with %s", g, write.Element)
		outlive := func(ctx context.Context) error {
			within, cancel := context.WithTimeout(ctx, 3*lab.Lapse)
			defer cancel()
			select {
			case <-heard:
			case <-within.Done():
			}
			_ = mend()
			wait.For(ctx, s.between(1000, 3000))
			return nil
		}
		switch what {
		case killed:
			wait.For(ctx, s.between(20, 300))
			return s.while(ctx, detail+": SIGKILL", s.lab.Guards[i].Kill, outlive, s.lab.Guards[i].Start)
		case isolated:
			return s.while(ctx, detail+": cut from the quorum", s.each(quorum, s.lab.Net.Cut), outlive, s.each(quorum, s.lab.Net.Mend))
		case left:
		}
		return outlive(ctx)
	}, mend)
}

// overtaking is an append that is acknowledged under a newer token.
func overtaking(token fence.Token) func(writer.Said) bool {
	return func(said writer.Said) bool {
		return said.Kind == writer.Done && said.Outcome == appends.Acked && said.Token > token
	}
}

// rebirth is when the guard of a zombie is killed, if it is.
type rebirth uint8

const (
	alive     rebirth = iota
	unaware           // before it could hear of the newer token
	forgetful         // after it has raised its floor
)

// zombie pauses a writer between reading and writing, cuts a guard off from the quorum and from the other writers, and has
// the writer present its writ there when another one has written. The guard cannot hear of the newer token; it has to know
// that it cannot, or to remember. If it is killed, it is started again when it hears nothing.
func (s *strike) zombie(ctx context.Context, dies rebirth) error {
	w, i := s.writer(), s.rng.IntN(lab.GuardCount)
	g := guard(i)
	ways := both(g, regions...)
	for _, other := range s.lab.Writers {
		if other != w {
			ways = append(ways, way{other.Party, g})
		}
	}
	if !s.take(append(names(ways), g, w.Party)...) {
		return nil
	}
	return s.held(ctx, w, writer.Hold, i, func(ctx context.Context, reader writer.Said, goOn func() error) error {
		if dies == forgetful {
			s.lab.Book.Await(ctx, overtaking(reader.Token))
		}
		return s.while(ctx, g+" hears nothing of a newer token", s.each(ways, s.lab.Net.Cut), func(ctx context.Context) error {
			if dies != alive {
				if err := s.lab.Guards[i].Kill(); err != nil {
					return err
				}
			}
			if dies != forgetful {
				s.lab.Book.Await(ctx, overtaking(reader.Token))
			}
			if dies != alive {
				if err := s.lab.Guards[i].Start(); err != nil {
					return err
				}
				s.awaitFront(ctx, i)
			}
			done, stop := s.lab.Book.Listen(func(said writer.Said) bool { return said.Kind == writer.Done && w.Said(said) })
			defer stop()
			if err := goOn(); err != nil {
				return err
			}
			select {
			case <-done:
			case <-ctx.Done():
			}
			return nil
		}, s.each(ways, s.lab.Net.Mend))
	})
}

// holdWriter pauses a writer between reading and writing, or a process in the middle of a slot, until another one has written,
// and has it write then.
func (s *strike) holdWriter(ctx context.Context) error {
	w, hold := s.whoever(), writer.Hold
	if slices.Contains(s.lab.Services, w) {
		job := s.job()
		if w = s.jobHolder(job); w == nil {
			return nil
		}
		hold += " " + job
	}
	if !s.take(w.Party) {
		return nil
	}
	return s.held(ctx, w, hold, -1, func(ctx context.Context, reader writer.Said, _ func() error) error {
		overtakes := overtaking(reader.Token)
		w.Book.Await(ctx, func(said writer.Said) bool {
			return overtakes(said) && (reader.Element == "" || said.Element == reader.Element)
		})
		return nil
	})
}

// job draws a cron job.
func (s *strike) job() string {
	jobs := s.lab.Config.Jobs()
	return jobs[s.rng.IntN(len(jobs))].Name
}

// jobHolder is the process that was granted a job last; nil if there is none.
func (s *strike) jobHolder(job string) *lab.Worker {
	newest := s.lab.Config.Services.Newest(job)
	for _, w := range s.lab.Services {
		if w.Said(newest) {
			return w
		}
	}
	return nil
}

// held pauses a writer, which the strike has taken, between reading and writing while something happens, and has it write
// by a front then; a negative one: by any. It does so when goOn is called, or else at the end. Hold is the command that it
// waits at. If it never comes so far, nothing happens.
func (s *strike) held(ctx context.Context, w *lab.Worker, hold string, front int, meanwhile func(ctx context.Context, reader writer.Said, goOn func() error) error) error {
	ctx, cancel := context.WithTimeout(ctx, 4*lab.Lapse)
	defer cancel()
	read, stop := w.Book.Listen(func(said writer.Said) bool { return said.Kind == writer.Read && w.Said(said) })
	defer stop()
	if err := w.Tell(hold); err != nil {
		return err
	}
	var once sync.Once
	goOn := func() (err error) {
		once.Do(func() {
			_, err = w.Resume()
			err = errors.Join(err, w.Tell(fmt.Sprint(writer.Go, " ", front)))
		})
		return err
	}
	select {
	case reader := <-read:
		return s.while(ctx, fmt.Sprintf("%s, which has read under %v %s", w.Party, reader.Token, reader.Element), w.Pause, func(ctx context.Context) error {
			return meanwhile(ctx, reader, goOn)
		}, goOn)
	case <-ctx.Done():
		return w.Tell(writer.Go)
	}
}

// awaitFront waits until a guard listens.
func (s *strike) awaitFront(ctx context.Context, guard int) {
	dial := s.lab.Net.Dial(lab.Observer)
	for {
		conn, err := dial(ctx, strings.TrimPrefix(s.lab.Front(guard), "http://"))
		if err == nil {
			_ = conn.Close()
			return
		}
		if !wait.For(ctx, s.between(20, 20)) {
			return
		}
	}
}

// warm leaves a guard with many connections to the store that it keeps, so that the next write goes out at once.
func (s *strike) warm(ctx context.Context, guard int) {
	dial := s.lab.Net.Dial(lab.Observer)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, writer.ReadLimit)
	defer cancel()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			url := s.lab.Front(guard) + store.Path + "?delay=100ms"
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
