package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/route"
)

// told is an admission that keeps what it is told.
type told struct{ outcomes []fence.Outcome }

func (a *told) Token() fence.Token      { return 1 }
func (a *told) Cut() <-chan struct{}    { return nil }
func (a *told) Done(o fence.Outcome)    { a.outcomes = append(a.outcomes, o) }
func (a *told) is(o fence.Outcome) bool { return len(a.outcomes) == 1 && a.outcomes[0] == o }

func testExchange(t *testing.T) (*exchange, *told, context.Context) {
	t.Helper()
	p := &Proxy{errorLog: log.New(io.Discard, "", 0)}
	var err error
	if p.metrics, err = newMetrics(p, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	a := &told{}
	return &exchange{
		proxy: p, match: route.Match{Route: &route.Route{Name: "r"}}, admission: a, counts: p.metrics.counters("r"), cancel: cancel,
		control: http.NewResponseController(httptest.NewRecorder()),
	}, a, ctx
}

// pipe returns a connection whose other side reads everything.
func pipe(t *testing.T) *conn {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, far)
	}()
	t.Cleanup(func() { near.Close(); far.Close(); <-done })
	return &conn{Conn: near}
}

func usable(c *conn) bool {
	_, err := c.Write([]byte("x"))
	return err == nil
}

// A write that is broken off late leaves the connection to the one that has got it since.
func TestLateBreakOffSparesTheNext(t *testing.T) {
	c := pipe(t)
	first, told, _ := testExchange(t)
	second, _, _ := testExchange(t)
	first.gotConn(httptrace.GotConnInfo{Conn: c})
	second.gotConn(httptrace.GotConnInfo{Conn: c})
	first.breakOff()
	if !usable(c) {
		t.Error("the connection of the next write was closed")
	}
	if len(told.outcomes) != 1 {
		t.Errorf("told %v", told.outcomes)
	}
	second.breakOff()
	if usable(c) {
		t.Error("the connection of a write that was broken off goes on")
	}
}

// A settled write has no connection any more.
func TestSettledLeavesTheConnection(t *testing.T) {
	c := pipe(t)
	e, told, _ := testExchange(t)
	e.gotConn(httptrace.GotConnInfo{Conn: c})
	e.settle(fence.Finished, outcomeFinished)
	e.breakOff()
	e.abort(errCut)
	if !usable(c) || !told.is(fence.Finished) {
		t.Errorf("usable %v, told %v", usable(c), told.outcomes)
	}
}

// Should the transport ever take another connection after something was sent, the write is broken off before it is sent
// again.
func TestSecondConnectionAfterSending(t *testing.T) {
	e, told, ctx := testExchange(t)
	one, two := pipe(t), pipe(t)
	e.gotConn(httptrace.GotConnInfo{Conn: one})
	if !usable(one) {
		t.Fatal("closed")
	}
	e.gotConn(httptrace.GotConnInfo{Conn: two})
	if usable(two) || !errors.Is(context.Cause(ctx), errResent) {
		t.Errorf("it may be sent again: %v", context.Cause(ctx))
	}
	e.framed = true
	e.uploaded.Store(true)
	e.complete() // an answer does not make it good
	if !told.is(fence.Broken) {
		t.Errorf("told %v", told.outcomes)
	}
}

func TestSecondConnectionBeforeSending(t *testing.T) {
	e, told, ctx := testExchange(t)
	one, two := pipe(t), pipe(t)
	e.gotConn(httptrace.GotConnInfo{Conn: one})
	e.gotConn(httptrace.GotConnInfo{Conn: two})
	if !usable(two) || ctx.Err() != nil {
		t.Error("it was not sent, and may not be")
	}
	e.breakOff()
	if !told.is(fence.Broken) {
		t.Errorf("told %v", told.outcomes)
	}
}

// What others sent over a kept connection does not count.
func TestNothingSentOverAKeptConnection(t *testing.T) {
	c := pipe(t)
	if !usable(c) {
		t.Fatal("closed")
	}
	e, told, _ := testExchange(t)
	e.gotConn(httptrace.GotConnInfo{Conn: c})
	e.breakOff()
	if !told.is(fence.Finished) {
		t.Errorf("told %v", told.outcomes)
	}
}

// A connection that comes after the write was broken off is not used.
func TestConnectionComesTooLate(t *testing.T) {
	for name, end := range map[string]func(*exchange){"cut": func(e *exchange) { e.abort(errCut) }, "over": (*exchange).breakOff} {
		e, told, _ := testExchange(t)
		end(e)
		c := pipe(t)
		e.gotConn(httptrace.GotConnInfo{Conn: c})
		if usable(c) || !told.is(fence.Finished) {
			t.Errorf("%s: told %v, and the connection is usable", name, told.outcomes)
		}
	}
}
