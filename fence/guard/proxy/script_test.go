package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// script is an upstream that does what a function says with each connection.
type script struct {
	t        *testing.T
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	requests []string // guarded by mu
}

// scripted calls play for each connection, in order of their number from 0.
func scripted(t *testing.T, play func(s *stage)) *script {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, listener: listener}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for n := 0; ; n++ {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(3 * patience)) // it must not be what ends a test
				play(&stage{script: s, Conn: nc, r: bufio.NewReader(nc), number: n})
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		s.wg.Wait()
	})
	return s
}

func (s *script) url() string { return "http://" + s.listener.Addr().String() }

// seen lists the requests that came, by method and path.
func (s *script) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// stage is a connection of a scripted upstream.
type stage struct {
	*script
	net.Conn
	r      *bufio.Reader
	number int
}

// request reads the header of a request; nil at the end of the connection.
func (s *stage) request() *http.Request {
	r, err := http.ReadRequest(s.r)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.RequestURI)
	return r
}

// whole reads a request with its body.
func (s *stage) whole() (*http.Request, string) {
	r := s.request()
	if r == nil {
		return nil, ""
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return r, fmt.Sprint(string(b), "!", err)
	}
	return r, string(b)
}

func (s *stage) say(text string) {
	_, _ = io.WriteString(s.Conn, strings.ReplaceAll(text, "\n", "\r\n"))
}

// reset closes so that the other side reads an error.
func (s *stage) reset() {
	_ = s.Conn.(*net.TCPConn).SetLinger(0)
	_ = s.Close()
}

// drained reads until the other side closes, and says how.
func (s *stage) drained() error {
	_, err := io.Copy(io.Discard, s.r)
	return err
}
