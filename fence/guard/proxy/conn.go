package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection to an upstream that can say whether anything was sent over it, and belongs to one write at a time.
//
// Invariant: from the moment in which a write has got the connection until it has settled or the connection is closed,
// owner is that write. So a write that is broken off late cannot close the connection under the next one.
type conn struct {
	net.Conn
	// writes counts attempts to send, before they are made.
	writes atomic.Int64

	mu      sync.Mutex
	owner   *exchange // guarded by mu
	closing bool      // guarded by mu
}

func (c *conn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// ReadFrom spares the transport's writer from copying large bodies through its own small buffer.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	buffer := buffers.Get()
	defer buffers.Put(buffer)
	return io.CopyBuffer(writerOnly{c}, r, buffer)
}

// writerOnly hides ReadFrom.
type writerOnly struct{ c *conn }

func (w writerOnly) Write(p []byte) (int, error) { return w.c.Write(p) }

// take makes e the owner and returns how much was written before.
func (c *conn) take(e *exchange) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owner = e
	return c.writes.Load()
}

// give ends the ownership of e, if it still has it.
func (c *conn) give(e *exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner == e {
		c.owner = nil
	}
}

// breakOff closes the connection if it is e's. Nothing of e is sent any more when it has returned, and what was in the
// buffers of this machine is dropped: closing alone would go on delivering it for as long as the upstream takes.
func (c *conn) breakOff(e *exchange) {
	c.mu.Lock()
	mine := c.owner == e || c.closing // closing may not have got to the socket yet
	c.mu.Unlock()
	if mine {
		c.reset()
	}
}

// reset closes the connection, which drops what was not sent: see unlinger.
func (c *conn) reset() { _ = c.Conn.Close() }

// unlinger has the kernel drop what it still holds of a connection whenever that is closed, and reset it. A process that is
// killed closes its connections too, and by default the kernel would go on delivering the rest for minutes, if the upstream
// cannot be reached meanwhile: a write that arrives long after the guard has lapsed.
func unlinger(nc net.Conn) error {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	return tcp.SetLinger(0)
}

// Close is the transport's. In the middle of a write it breaks off.
func (c *conn) Close() error {
	c.mu.Lock()
	owner := c.owner
	c.owner, c.closing = nil, true
	c.mu.Unlock()
	if owner == nil {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(-1) // nothing is on its way: an upstream need not see a reset
		}
		return c.Conn.Close()
	}
	if owner.sending() {
		c.reset()
	}
	err := c.Conn.Close()
	owner.unblockUpload()
	return err
}

// connOf finds what the transport dialled below TLS.
func connOf(nc net.Conn) *conn {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	c, _ := nc.(*conn)
	return c
}

// newTransport makes the transport of an upstream. It speaks only HTTP/1.1, where one connection carries one request at a
// time, and uses no proxy of the environment's.
func newTransport(u Upstream) *http.Transport {
	dialer := &net.Dialer{Timeout: u.DialTimeout, KeepAlive: 15 * time.Second}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			if err := unlinger(nc); err != nil {
				return nil, errors.Join(err, nc.Close())
			}
			return &conn{Conn: nc}, nil
		},
		Protocols:             &protocols,
		TLSClientConfig:       u.TLS,
		TLSHandshakeTimeout:   u.DialTimeout,
		DisableCompression:    true, // bodies pass as they are
		MaxIdleConns:          u.MaxIdle,
		MaxIdleConnsPerHost:   u.MaxIdle,
		IdleConnTimeout:       u.IdleTimeout,
		ResponseHeaderTimeout: u.ResponseTimeout,
		ExpectContinueTimeout: time.Second,
	}
}

// bufferSize of bodies on their way, in bytes.
const bufferSize = 32 << 10

// bufferPool lends buffers for bodies.
type bufferPool struct{ pool sync.Pool }

var buffers = &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}

// Get implements httputil.BufferPool.
func (p *bufferPool) Get() []byte { return p.pool.Get().(*[bufferSize]byte)[:] }

// Put implements httputil.BufferPool.
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }
