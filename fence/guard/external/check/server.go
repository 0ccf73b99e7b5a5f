package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/fence"
)

const (
	// spareConnections are those of a user beyond its tickets, to end them with.
	spareConnections = 64
	// strangerConnections are those of a user that is told that it is not allowed.
	strangerConnections = 4
	// ioTimeout bounds how long a peer takes to send a request or to receive an answer.
	ioTimeout = 5 * time.Second
	// idleTimeout bounds how long a connection is kept for the next request.
	idleTimeout = 2 * time.Minute
)

// Server answers the check API. It is safe for concurrent use.
type Server struct {
	config  Config
	tickets *tickets
	http    *http.Server

	mu          sync.Mutex
	connections map[uint32]int // guarded by mu; open ones of each user
}

// New returns a server; Serve starts it.
func New(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	s := &Server{
		config: c, tickets: newTickets(c.MaxOpenPerUID), connections: map[uint32]int{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathAdmit, s.serveAdmit)
	mux.HandleFunc("POST "+pathDone+"{ticket}", s.serveDone)
	s.http = &http.Server{
		Handler: s.onlyAllowed(mux), ReadHeaderTimeout: ioTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*peerConn).peer)
		},
	}
	return s, nil
}

// Serve answers on a listener of unix sockets until Close; then it returns nil. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(peerListener{Listener: l, server: s}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

// Close breaks every ticket that is open, which ends the connections of those who hold one, and waits until ctx ends for
// requests under way.
func (s *Server) Close(ctx context.Context) error {
	s.tickets.close()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

type peerKey struct{}

// peerConn is a connection of which it is known who is at the other end.
type peerConn struct {
	net.Conn
	peer  peer
	leave func()
}

func (c *peerConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

type peerListener struct {
	net.Listener
	server *Server
}

// Accept answers the next connection of somebody who has not too many.
func (l peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(conn)
		if err == nil && l.server.enter(p) {
			return &peerConn{Conn: conn, peer: p, leave: sync.OnceFunc(func() { l.server.leave(p) })}, nil
		}
		l.server.config.Logger.Warn("a connection was turned away", "uid", p.uid, "error", err)
		conn.Close()
	}
}

// enter counts a connection, unless there are too many.
func (s *Server) enter(p peer) bool {
	limit := strangerConnections
	if s.config.allows(p) {
		limit = s.config.MaxOpenPerUID + spareConnections
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connections[p.uid] >= limit {
		return false
	}
	s.connections[p.uid]++
	return true
}

func (s *Server) leave(p peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connections[p.uid]--; s.connections[p.uid] == 0 {
		delete(s.connections, p.uid)
	}
}

func (s *Server) onlyAllowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.Context().Value(peerKey{}).(peer)
		if !s.config.allows(p) {
			s.config.Logger.Warn("a user is not allowed", "uid", p.uid, "gid", p.gid)
			problem("DENIED", http.StatusForbidden, "The user is not allowed to ask",
				fmt.Sprintf("uid %d, gid %d: add one of them to the guard's configuration", p.uid, p.gid)).Respond(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) serveAdmit(w http.ResponseWriter, r *http.Request) {
	p := r.Context().Value(peerKey{}).(peer)
	data, err := readBody(w, r)
	var asked ask
	if err == nil {
		asked, err = parseAsk(data)
	}
	if err == nil && !asked.write.Token.IsZero() && !s.config.TrustTokens {
		err = &fence.InvalidError{Kind: fence.ErrInvalidToken, Field: "token", Fix: "is not trusted here: present a signed writ"}
	}
	if err == nil {
		err = s.tickets.reserve(p.uid)
	}
	if err != nil {
		s.refuse(w, asked.write.Resource, err)
		return
	}
	t, err := s.admit(r.Context(), p, asked)
	switch {
	case err != nil:
		s.refuse(w, asked.write.Resource, err)
	case asked.hold:
		s.hold(w, r, t)
	default:
		body := answer{Ticket: t.id, Token: t.admission.Token(), ValidMS: s.config.TicketTTL.Milliseconds()}
		_ = send(w, "application/json", body) // without an answer the ticket runs out
	}
}

// admit opens a ticket in the place that is reserved, or gives the place back.
func (s *Server) admit(ctx context.Context, p peer, asked ask) (*ticket, error) {
	ctx, cancel := context.WithTimeout(ctx, asked.wait)
	defer cancel()
	admission, err := s.config.Admitter.Admit(ctx, asked.write)
	if err != nil {
		s.tickets.unreserve(p.uid)
		return nil, err
	}
	ttl := s.config.TicketTTL
	if asked.hold {
		ttl = 0
	}
	return s.tickets.put(p.uid, admission, ttl)
}

// hold keeps the answer open for as long as the ticket is. A ticket that is not ended by the peer is broken.
func (s *Server) hold(w http.ResponseWriter, r *http.Request, t *ticket) {
	defer s.tickets.end(t.id, t.uid, fence.Broken)
	const ndjson = "application/x-ndjson"
	if send(w, ndjson, answer{Event: eventAdmitted, Ticket: t.id, Token: t.admission.Token()}) != nil {
		return
	}
	select {
	case <-r.Context().Done():
		return
	case <-t.ended:
		return
	case <-t.admission.Cut():
	}
	if send(w, ndjson, answer{Event: eventCut}) != nil {
		return
	}
	grace := time.NewTimer(s.config.CutGrace)
	defer grace.Stop()
	select {
	case <-r.Context().Done():
	case <-t.ended:
	case <-grace.C:
	}
}

func (s *Server) serveDone(w http.ResponseWriter, r *http.Request) {
	p := r.Context().Value(peerKey{}).(peer)
	data, err := readBody(w, r)
	var outcome fence.Outcome
	if err == nil {
		outcome, err = parseOutcome(data)
	}
	switch {
	case err != nil:
		s.refuse(w, "", err)
	case !s.tickets.end(r.PathValue("ticket"), p.uid, outcome):
		problem("NO_TICKET", http.StatusNotFound, "The ticket is not open",
			"it has run out, was cut or has been ended: if it was not ended, its write counts as broken").Respond(w)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// refuse answers err as a problem.
func (s *Server) refuse(w http.ResponseWriter, resource string, err error) {
	switch {
	case errors.Is(err, errRequest):
		problem("INVALID", http.StatusBadRequest, "The request is invalid", err.Error()).Respond(w)
	case errors.Is(err, errTooMany):
		fence.WriteProblem(w, &fence.UnavailableError{
			Resource: resource, Obstacle: fence.Overloaded, Detail: fmt.Sprintf("the user has %d open already", s.config.MaxOpenPerUID),
		})
	case errors.Is(err, errClosed):
		fence.WriteProblem(w, &fence.UnavailableError{Resource: resource, Obstacle: fence.Stopping})
	default:
		fence.WriteProblem(w, err)
	}
}

func problem(reason string, status int, title, detail string) fence.Problem {
	return fence.Problem{Type: fence.ProblemType(reason), Title: title, Status: status, Detail: detail, Reason: reason}
}

// readBody reads a body of bounded length in bounded time.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(ioTimeout)) // the connection has them
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	_ = control.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		return nil, badRequest("body", "cannot be read")
	case len(data) > maxBodyBytes:
		return nil, badRequest("body", fmt.Sprintf("must not be longer than %d bytes", maxBodyBytes))
	}
	return data, nil
}

// send writes a line at once.
func send(w http.ResponseWriter, contentType string, body answer) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(ioTimeout)) // the connection has them
	if _, err := w.Write(append(text, '\n')); err != nil {
		return err
	}
	err = control.Flush()
	_ = control.SetWriteDeadline(time.Time{})
	return err
}
