//go:build linux

package jepsen_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/wait"
)

// lateness is how long a write is waited for that must not arrive.
const lateness = 15 * time.Second

// TestKilledGuardLeavesNothing kills a guard that has sent a write which cannot get to the store. When the network is mended,
// others have been granted the resource and have written, and what was left of the write must not arrive. S2, S3.
func TestKilledGuardLeavesNothing(t *testing.T) {
	seed := uint64(setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano()))
	l := startLab(t, seed, lab.Config{Writers: 2})
	f, began := l.field(), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	strike(ctx, t, f, "strand-kill", rand.New(rand.NewPCG(seed, 2)))
	for until := time.Now().Add(lateness); time.Now().Before(until) && l.Book.Judge() == nil; {
		wait.For(ctx, 100*time.Millisecond)
	}
	l.calm(t)
	if got := l.verdict(t, f, time.Since(began)); got != verdict.Valid {
		t.Errorf("the run is %s", got)
	}
}

// holding is a grant that the test itself holds, without keeping it alive.
type holding struct {
	token    fence.Token
	writ     string
	instance string
	proofs   map[string]string
}

// acquire waits for a grant, and notes it like one of a writer's.
func (l *theLab) acquire(ctx context.Context, t *testing.T, instance string) holding {
	t.Helper()
	client := writv1.NewLeaseServiceClient(l.conn(t, 0))
	for {
		response, err := client.Acquire(ctx, &writv1.AcquireRequest{
			Resource: store.Resource, Ttl: durationpb.New(lab.WriterTTL), RequestId: instance, Instance: instance, WantWrit: true,
		})
		if g := response.GetGrant(); g != nil {
			h := holding{fence.Token(g.GetToken()), g.GetWrit(), instance, make(map[string]string)}
			got, err := client.Get(ctx, &writv1.GetRequest{Resource: store.Resource})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range got.GetLease().GetProofs() {
				h.proofs[p.GetGuard()] = p.GetHow()
			}
			l.Book.Note(writer.Said{Kind: writer.Granted, Writer: instance, Token: h.token, Proofs: h.proofs})
			return h
		}
		if !wait.For(ctx, 100*time.Millisecond) {
			t.Fatalf("no grant: %v", err)
		}
	}
}

// request is a write of the test's own, and what it is called.
func (l *theLab) request(t *testing.T, h holding, page appends.Page, guard int) (element string, request []byte) {
	t.Helper()
	element = h.instance + "-1"
	body, err := json.Marshal(store.Body{Page: page.Append(element), Token: h.token})
	if err != nil {
		t.Fatal(err)
	}
	l.Book.Note(writer.Said{Kind: writer.Put, Writer: h.instance, Token: h.token, Element: element, Front: guard})
	var b bytes.Buffer
	fmt.Fprintf(&b, "PUT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
		store.Path, strings.TrimPrefix(l.Front(guard), "http://"), fence.HeaderWrit, h.writ, len(body), body)
	return element, b.Bytes()
}

func (l *theLab) dialFront(ctx context.Context, t *testing.T, guard int) net.Conn {
	t.Helper()
	conn, err := l.Net.Dial(lab.Observer)(ctx, strings.TrimPrefix(l.Front(guard), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// list reads the list through a guard.
func (l *theLab) list(ctx context.Context, t *testing.T, guard int) (page appends.Page) {
	t.Helper()
	conn := l.dialFront(ctx, t, guard)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n", store.Path)
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	if err := json.Unmarshal(body, &page); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	return page
}

// conclude reads the answer to a write and notes what came of it.
func (l *theLab) conclude(t *testing.T, h holding, element string, conn net.Conn) appends.Outcome {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	line, _, _ := strings.Cut(string(answer), "\r\n")
	outcome := appends.Unknown
	switch {
	case strings.HasSuffix(line, http.StatusText(http.StatusOK)):
		outcome = appends.Acked
	case strings.HasSuffix(line, http.StatusText(http.StatusPreconditionFailed)):
		outcome = appends.Refused
	}
	t.Logf("%s under %v: %s (%v, %v)", element, h.token, outcome, line, err)
	l.Book.Note(writer.Said{Kind: writer.Done, Writer: h.instance, Token: h.token, Element: element, Outcome: outcome, Detail: line})
	return outcome
}

// pausedGuard has a guard admit a write and pass half of it on, pauses it until the quorum has given it up and another one
// has written, and lets it go on with the rest in its hands.
func (l *theLab) pausedGuard(ctx context.Context, t *testing.T, round int) {
	t.Helper()
	old := l.acquire(ctx, t, fmt.Sprintf("old%d", round))
	element, request := l.request(t, old, l.list(ctx, t, 0), 0)
	begun, stop := l.Book.Listen(func(s writer.Said) bool { return s.Kind == writer.Begun && s.Token == old.token })
	defer stop()
	conn := l.dialFront(ctx, t, 0)
	half := len(request) - 10
	if _, err := conn.Write(request[:half]); err != nil {
		t.Fatal(err)
	}
	select {
	case <-begun:
	case <-ctx.Done():
		t.Fatal("the beginning of a write did not reach the store")
	}
	if err := l.Guards[0].Pause(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(request[half:]); err != nil {
		t.Fatal(err)
	}
	successor := l.acquire(ctx, t, fmt.Sprintf("new%d", round))
	if how := successor.proofs[lab.Guard(0)]; how != "lapsed" {
		t.Errorf("the paused guard is %q", how)
	}
	later, request := l.request(t, successor, l.list(ctx, t, 1), 1)
	other := l.dialFront(ctx, t, 1)
	if _, err := other.Write(request); err != nil {
		t.Fatal(err)
	}
	if got := l.conclude(t, successor, later, other); got != appends.Acked {
		t.Fatalf("the successor's write is %v", got)
	}
	span, err := l.Guards[0].Resume()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("paused for %v; W is %v", span.Round(time.Millisecond), lab.Slack)
	l.conclude(t, old, element, conn)
	if err := l.AwaitGuards(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestPausedGuard pauses a guard for longer than W in the middle of a write. The form that drains does not survive that,
// which is its limit; a storage that compares tokens itself does, such as PostgreSQL with a fence.
func TestPausedGuard(t *testing.T) {
	const rounds = 5
	run := func(t *testing.T, config lab.Config, until func(*theLab) bool) *theLab {
		l := startLab(t, 1, config)
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		for round := 0; round < rounds && !until(l); round++ {
			l.pausedGuard(ctx, t, round)
		}
		l.calm(t)
		return l
	}
	t.Run("before a store that compares nothing", func(t *testing.T) {
		l := run(t, lab.Config{}, func(l *theLab) bool { return l.Book.Judge() != nil })
		found := l.Book.Judge()
		if found == nil {
			t.Skipf("the guard noticed in time, %d times: that is luck", rounds)
		}
		t.Logf("the limit: %v", found)
	})
	atomic := func(t *testing.T, config lab.Config) {
		l := run(t, config, func(l *theLab) bool { return l.Book.Tally().Stale > 0 })
		if found := l.Book.Judge(); found != nil {
			t.Errorf("a stale write came through: %v", found)
		}
		if l.Book.Tally().Stale == 0 {
			t.Skipf("the guard noticed in time, %d times, so that the store had nothing to refuse: that is luck", rounds)
		}
	}
	t.Run("before a store that compares tokens", func(t *testing.T) { atomic(t, lab.Config{Atomic: true}) })
	t.Run("before PostgreSQL", func(t *testing.T) { atomic(t, lab.Config{Postgres: preparePostgres(t)}) })
}
