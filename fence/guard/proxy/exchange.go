package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/route"
	"github.com/writ-io/writ/sim/mutant"
)

var (
	// errCut: a newer token waited for the write long enough.
	errCut = errors.New("a newer token waits: broken off")
	// errLinger: the caller has gone, and the answer did not come in time.
	errLinger = errors.New("caller gone, and no answer in time")
	// errResent: the transport went on to a second connection although something had been sent over the first.
	errResent = errors.New("request about to be sent twice")
	// errSwitched: the upstream switched protocols, although nobody asked it to.
	errSwitched = errors.New("upstream switched protocols")
	// errCanary: the write was a probe, which goes no further.
	errCanary = errors.New("probe admitted")
	// errTooLarge: the body is longer than the limit.
	errTooLarge = errors.New("body too large")
)

// exchange is one admitted write on its way to the upstream and back. It is the transport of its own request.
//
// It settles once, that is, it tells the admission how the write ended. Finished needs all of: the request was handed over
// completely, over one connection; the response was read to its end, said itself where that is, and is not one of those by which
// something in between tells that it does not know. Or: nothing was sent.
// Everything else is Broken, and then the connection is closed before the admission is told, so that nothing of the write
// leaves this process any more.
type exchange struct {
	proxy     *Proxy
	upstream  *upstream
	counts    *counters
	match     route.Match
	stamp     fence.Token // mode stamp
	admission fence.Admission
	probe     *canary // nil but for a probe
	w         http.ResponseWriter
	in        *http.Request
	control   *http.ResponseController
	ctx       context.Context         // of the request to the upstream, and not the caller's: see RoundTrip
	cancel    context.CancelCauseFunc // set before the watcher starts
	watcher   *time.Timer

	// uploaded says that the whole body was handed over to the transport.
	uploaded atomic.Bool
	// In one piece with the exchange, because there is one of each.
	passing  httputil.ReverseProxy
	upload   upload
	download download

	// framed says that the response tells itself where it ends, and unknown that it may be that of something in between, which
	// has given up on the storage. Only the goroutine of the handler uses them.
	framed, unknown bool

	mu       sync.Mutex
	conn     *conn // guarded by mu; what the request is, or is about to be, sent over
	mark     int64 // guarded by mu; how much had been written to conn before
	resent   bool  // guarded by mu
	answered bool  // guarded by mu; the header of the response is there
	done     bool  // guarded by mu; settled
	over     bool  // guarded by mu; the handler has returned, so the caller's connection is not ours any more
	cause    error // guarded by mu; why it was broken off
	// What the watcher waits for; nil as long as there is none.
	settled, left chan struct{} // guarded by mu, closed by settle and leave
	gone          bool          // guarded by mu; nobody reads the response any more
}

// serve carries the exchange out.
func (e *exchange) serve() {
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	defer e.end()
	e.proxy.watchers.Add(1)
	e.watcher = time.AfterFunc(watchAfter, e.watch)
	e.passing = httputil.ReverseProxy{
		Rewrite:      e.rewrite,
		Transport:    (*detached)(e),
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { e.fail(err) },
		BufferPool:   buffers,
		ErrorLog:     e.proxy.errorLog,
	}
	e.passing.ServeHTTP(e.w, e.in)
}

// end is the last thing, also when the handler panics because the caller has gone in the middle of the response.
func (e *exchange) end() {
	e.breakOff()
	if e.watcher.Stop() {
		e.proxy.watchers.Done()
	}
	e.cancel(nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	if !e.uploaded.Load() {
		_ = e.control.SetReadDeadline(hangUpDeadline())
	}
}

// watchAfter is how long a write is under way before it is watched. Most are over by then, and need no goroutine.
const watchAfter = 20 * time.Millisecond

// watch breaks the write off when it has to be, and stops when it has settled.
func (e *exchange) watch() {
	defer e.proxy.watchers.Done()
	e.mu.Lock()
	if e.done {
		e.mu.Unlock()
		return
	}
	settled, left := make(chan struct{}), make(chan struct{})
	e.settled, e.left = settled, left
	if e.gone {
		close(left)
	}
	e.mu.Unlock()
	gone := e.in.Context().Done()
	var limit <-chan time.Time
	for {
		select {
		case <-settled:
			return
		case <-e.admission.Cut():
			e.abort(errCut)
			return
		case <-limit:
			e.abort(errLinger)
			return
		case <-gone:
			if mutant.On(mutant.CancelledWithItsCaller) {
				e.settle(fence.Finished, outcomeFinished)
				e.cancel(context.Canceled)
				return
			}
		case <-left:
		}
		gone, left = nil, nil
		timer := time.NewTimer(e.proxy.limits.Linger)
		defer timer.Stop()
		limit = timer.C
	}
}

// abort breaks the write off from outside the handler, which may be waiting for the caller or for the upstream.
func (e *exchange) abort(cause error) {
	e.mu.Lock()
	if e.done {
		e.mu.Unlock()
		return
	}
	e.cause = cause
	answered := e.answered
	e.mu.Unlock()
	e.breakOff()
	e.cancel(cause)
	if answered {
		// The rest of the response cannot be had any more, and the caller may never read what there is.
		e.deadline(e.control.SetWriteDeadline)
	}
}

// breakOff settles an exchange that has not finished.
func (e *exchange) breakOff() {
	e.mu.Lock()
	if e.done {
		e.mu.Unlock()
		return
	}
	if e.cause == nil {
		e.cause = errors.New("handler returned") // a connection that comes now is not used
	}
	c, mark, resent := e.conn, e.mark, e.resent
	e.mu.Unlock()
	if c != nil {
		c.breakOff(e)
	}
	e.unblockUpload()
	// After breakOff nothing is written that counts.
	if !resent && (c == nil || c.writes.Load() == mark) {
		e.settle(fence.Finished, outcomeNotSent)
		return
	}
	e.settle(fence.Broken, outcomeBroken)
}

// settle tells the admission, once.
func (e *exchange) settle(how fence.Outcome, label outcome) {
	e.mu.Lock()
	if e.done {
		e.mu.Unlock()
		return
	}
	e.done = true
	c := e.conn
	if e.settled != nil {
		close(e.settled)
	}
	e.mu.Unlock()
	if c != nil {
		c.give(e)
	}
	e.admission.Done(how)
	e.counts[label].Inc()
}

// leave says that nobody reads the response any more.
func (e *exchange) leave() (settled bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.done && !e.gone {
		e.gone = true
		if e.left != nil {
			close(e.left)
		}
	}
	return e.done
}

// sending reports whether closing the connection would leave something of the request behind in buffers.
func (e *exchange) sending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.answered || !e.uploaded.Load()
}

// unblockUpload ends a Read of the body that waits for the caller, because there is nowhere to send it to any more.
func (e *exchange) unblockUpload() {
	if !e.uploaded.Load() {
		e.deadline(e.control.SetReadDeadline)
	}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// deadline makes what waits for the caller's connection return, as long as it serves this request.
func (e *exchange) deadline(set func(time.Time) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over {
		_ = set(past) // not supported by all servers; then the caller decides how long it takes
	}
}

// gotConn is called by the transport before it sends anything over a connection.
func (e *exchange) gotConn(info httptrace.GotConnInfo) {
	c := connOf(info.Conn)
	e.mu.Lock()
	if e.conn != nil && e.conn.writes.Load() != e.mark {
		e.resent = true
	}
	refuse := c == nil || e.cause != nil || e.resent || e.done
	e.conn, e.mark = c, 0
	if c != nil {
		e.mark = c.take(e)
	}
	resent := e.resent
	e.mu.Unlock()
	switch {
	case c == nil:
		panic("proxy: connection that is not of this transport")
	case refuse:
		c.breakOff(e)
		if resent {
			e.cancel(errResent)
		}
	}
}

// detached is the exchange as a transport.
type detached exchange

// RoundTrip sends the request under a context of the exchange's own: a caller that goes away must not end it, because
// the storage may go on with it all the same.
func (d *detached) RoundTrip(r *http.Request) (*http.Response, error) {
	e := (*exchange)(d)
	if e.probe != nil {
		e.probe.admitted = true
		return nil, errCanary
	}
	trace := &httptrace.ClientTrace{GotConn: e.gotConn}
	if outer := httptrace.ContextClientTrace(r.Context()); outer != nil {
		trace.Got1xxResponse = outer.Got1xxResponse
	}
	resp, err := e.upstream.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(e.ctx, trace)))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		return nil, errSwitched
	}
	e.mu.Lock()
	e.answered = true
	e.mu.Unlock()
	if !e.uploaded.Load() {
		e.passing.ModifyResponse = e.modify
	}
	e.framed = r.Method == http.MethodHead || resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.unknown = true
	}
	e.download = download{ReadCloser: resp.Body, e: e}
	resp.Body = &e.download
	return resp, nil
}

// complete is called when the response was read to its end.
func (e *exchange) complete() {
	e.mu.Lock()
	resent := e.resent
	e.mu.Unlock()
	if e.framed && !e.unknown && e.uploaded.Load() && !resent {
		e.settle(fence.Finished, outcomeFinished)
		return
	}
	// The storage answered before it can have had everything, or perhaps died in the middle of the answer, or is at work behind
	// something that did not wait for it.
	e.breakOff()
}

// modify changes the header of the response.
func (e *exchange) modify(resp *http.Response) error {
	if !e.uploaded.Load() {
		resp.Header.Set("Connection", "close") // what follows on this connection is the rest of the body, not a request
	}
	return nil
}

// fail answers the caller after the transport failed.
func (e *exchange) fail(err error) {
	e.breakOff()
	e.mu.Lock()
	cause := e.cause
	c, mark := e.conn, e.mark
	sent := e.resent || c != nil && c.writes.Load() != mark
	e.mu.Unlock()
	if errors.Is(cause, errCut) || errors.Is(cause, errLinger) {
		err = cause
	}
	f := failure{err, sent, e.uploaded.Load()}
	if !f.uploaded {
		e.w.Header().Set("Connection", "close")
	}
	if sent {
		e.proxy.errorLog.Printf("proxy: route %s: write of %q broken: %v", e.match.Route.Name, e.match.Resource, err)
	}
	upstreamProblem(f).Respond(e.w)
}

// failure is what is known of a write that was not answered.
type failure struct {
	err error
	// sent: something of it may have been. uploaded: the caller's part is done.
	sent, uploaded bool
}
