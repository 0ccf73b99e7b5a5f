package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
)

const put = "PUT /x HTTP/1.1\nHost: h\nWrit-Token: 1.5\n"

// What an upstream does, what its caller reads, and how the write counts.
func TestOutcomes(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\n"
	for _, c := range []struct {
		name    string
		request string // after the common header
		play    func(*stage)
		status  int
		body    string // that the caller reads; of a refusal its reason
		outcome fence.Outcome
	}{
		{"complete", "Content-Length: 2\n\nhi", func(s *stage) {
			_, body := s.whole()
			s.say(ok + "Content-Length: 2\n\n" + body)
		}, 200, "hi", fence.Finished},
		{"no body", "\n", func(s *stage) { s.whole(); s.say("HTTP/1.1 204 No Content\n\n") }, 204, "", fence.Finished},
		{"refused by the storage", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 409 Conflict\nContent-Length: 4\n\nbusy")
		}, 409, "busy", fence.Finished},
		{"chunked", "Transfer-Encoding: chunked\n\n2\nhi\n0\n\n", func(s *stage) {
			_, body := s.whole()
			s.say(ok + "Transfer-Encoding: chunked\n\n2\n" + body + "\n0\n\n")
		}, 200, "hi", fence.Finished},
		{"closes politely", "Content-Length: 2\n\nhi", func(s *stage) {
			_, body := s.whole()
			s.say(ok + "Connection: close\nContent-Length: 2\n\n" + body)
		}, 200, "hi", fence.Finished},
		{"informs first", "Content-Length: 2\n\nhi", func(s *stage) {
			_, body := s.whole()
			s.say("HTTP/1.1 102 Processing\n\nHTTP/1.1 102 Processing\n\n" + ok + "Content-Length: 2\n\n" + body)
		}, 200, "hi", fence.Finished},

		// What stands before the storage may have given up on it, while it goes on.
		{"bad gateway", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 502 Bad Gateway\nContent-Length: 4\n\ngone")
		}, 502, "gone", fence.Broken},
		{"service unavailable", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 503 Service Unavailable\nContent-Length: 4\n\nbusy")
		}, 503, "busy", fence.Broken},
		{"gateway timeout", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 504 Gateway Timeout\nContent-Length: 4\n\nlate")
		}, 504, "late", fence.Broken},
		{"failed in the storage", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 500 Internal Server Error\nContent-Length: 4\n\noops")
		}, 500, "oops", fence.Finished},

		{"closes without an answer", "Content-Length: 2\n\nhi", func(s *stage) { s.whole() }, 502, proxy.ReasonBroken, fence.Broken},
		{"closes without an answer, no body", "\n", func(s *stage) { s.whole() }, 502, proxy.ReasonBroken, fence.Broken},
		{"closes in the middle of the body", "Content-Length: 100\n\nhi", func(s *stage) {
			s.request()
			_, _ = io.ReadFull(s.r, make([]byte, 2))
		}, 502, proxy.ReasonBroken, fence.Broken},
		{"resets without an answer", "Content-Length: 2\n\nhi", func(s *stage) { s.whole(); s.reset() }, 502, proxy.ReasonBroken, fence.Broken},
		{"answers nonsense", "Content-Length: 2\n\nhi", func(s *stage) { s.whole(); s.say("HTTP/9 yes\n\n") }, 502, proxy.ReasonBroken, fence.Broken},
		{"informs and closes", "Content-Length: 2\n\nhi", func(s *stage) { s.whole(); s.say("HTTP/1.1 102 Processing\n\n") }, 502, proxy.ReasonBroken, fence.Broken},
		{"resets in the header", "Content-Length: 2\n\nhi", func(s *stage) { s.whole(); s.say(ok + "Content-"); s.reset() }, 502, proxy.ReasonBroken, fence.Broken},
		{"switches protocols", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 101 Switching Protocols\n\n")
			_ = s.drained()
		}, 502, proxy.ReasonBroken, fence.Broken},
		{"switches protocols by name", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n")
			_ = s.drained()
		}, 502, proxy.ReasonBroken, fence.Broken},

		{"closes in the response", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say(ok + "Content-Length: 100000\n\n" + strings.Repeat("x", 50000))
		}, 200, strings.Repeat("x", 50000) + "!unexpected EOF", fence.Broken},
		{"closes in a chunk", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say(ok + "Transfer-Encoding: chunked\n\n5\nhello\n")
		}, 200, "hello!unexpected EOF", fence.Broken},
		{"closes before the trailer ends", "Content-Length: 2\n\nhi", func(s *stage) {
			s.whole()
			s.say(ok + "Trailer: Sum\nTransfer-Encoding: chunked\n\n5\nhello\n0\nSum:")
		}, 200, "hello!unexpected EOF", fence.Broken},
		// A storage that dies closes its connections too.
		{"ends by closing", "Content-Length: 2\n\nhi", func(s *stage) { s.whole(); s.say("HTTP/1.0 200 OK\n\nhello") }, 200, "hello", fence.Broken},
		{"answers early", "Content-Length: 100\n\nhi", func(s *stage) {
			s.request()
			s.say("HTTP/1.1 413 Content Too Large\nContent-Length: 4\n\nmuch")
			_ = s.drained()
		}, 413, "much", fence.Broken},
		{"answers early and well", "Transfer-Encoding: chunked\n\n2\nhi\n", func(s *stage) {
			s.request()
			s.say(ok + "Content-Length: 4\n\nfine")
			_ = s.drained()
		}, 200, "fine", fence.Broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, scripted(t, c.play).url())
			caller := w.dial()
			caller.send("%s", put+c.request)
			resp, body := caller.answer()
			for resp.StatusCode == http.StatusProcessing {
				resp, body = caller.answer()
			}
			if resp.StatusCode != c.status {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			if resp.Header.Get("Content-Type") == fence.ProblemContentType {
				body = problem(t, body).Reason
			}
			if body != c.body {
				t.Errorf("body %q, want %q", body, c.body)
			}
			// What follows on a connection whose body was not read to the end is not a request.
			if strings.HasPrefix(c.name, "answers early") && !resp.Close {
				t.Error("the connection goes on")
			}
			w.ends(c.outcome)
		})
	}
}

// An upstream that begins to answer while it reads gets the whole body all the same.
func TestAnswersWhileItReads(t *testing.T) {
	for name, framing := range map[string]string{"length": "Content-Length: 7\n\nfirst", "chunked": "Transfer-Encoding: chunked\n\n5\nfirst\n"} {
		t.Run(name, func(t *testing.T) {
			s := scripted(t, func(s *stage) {
				r := s.request()
				first := make([]byte, 5)
				_, _ = io.ReadFull(r.Body, first)
				s.say("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\n" + string(first) + "\n")
				rest, err := io.ReadAll(r.Body)
				s.say(fmt.Sprintf("%x\n%s\n0\n\n", len(fmt.Sprint(string(rest), err)), fmt.Sprint(string(rest), err)))
			})
			w := newWorld(t, s.url())
			caller := w.dial()
			caller.send("%s%s", put, framing)
			if name == "length" {
				// Of a length that is known the transport keeps the beginning in its buffer; there is more to come.
				caller.send("hi")
			}
			resp := caller.head("PUT")
			if name == "chunked" {
				caller.send("2\nhi\n0\n\n")
			}
			body, err := io.ReadAll(resp.Body)
			if string(body) != "firsthi<nil>" || err != nil {
				t.Errorf("%q %v", body, err)
			}
			w.ends(fence.Finished)
		})
	}
}

func TestUnreachableWasNotSent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // nobody listens there now
	w := newWorld(t, "http://"+listener.Addr().String())
	for _, body := range []string{"\n", "Content-Length: 2\n\nhi"} {
		caller := w.dial()
		caller.send("%s", put+body)
		resp, text := caller.answer()
		if p := problem(t, text); resp.StatusCode != 502 || p.Reason != proxy.ReasonUnreachable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
		w.ends(fence.Finished)
	}
}

func TestSlowUpstream(t *testing.T) {
	s := scripted(t, func(s *stage) { s.whole(); _ = s.drained() })
	w := newWorld(t, s.url(), func(c *proxy.Config) { c.Upstreams[0].ResponseTimeout = 20 * time.Millisecond })
	caller := w.dial()
	caller.send(put + "Content-Length: 2\n\nhi")
	resp, text := caller.answer()
	if p := problem(t, text); resp.StatusCode != 504 || p.Reason != proxy.ReasonBroken || !strings.Contains(p.Detail, "may have been carried out") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	w.ends(fence.Broken)
}

func TestTLSUpstream(t *testing.T) {
	hang := make(chan struct{})
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/close":
			panic(http.ErrAbortHandler)
		case "/hang":
			close(hang)
			<-r.Context().Done() // the connection is closed
		}
		fmt.Fprintf(w, "%s %s", r.Proto, body)
	}))
	up.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer up.Close()
	roots := x509.NewCertPool()
	roots.AddCert(up.Certificate())
	w := newWorld(t, up.URL, func(c *proxy.Config) {
		c.Upstreams[0].TLS = &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12}
	})
	for range 2 {
		for path, want := range map[string]struct {
			status  int
			outcome fence.Outcome
		}{"/x": {200, fence.Finished}, "/close": {502, fence.Broken}} {
			caller := w.dial()
			caller.send("PUT %s HTTP/1.1\nHost: h\nWrit-Token: 1.5\nContent-Length: 2\n\nhi", path)
			if resp, text := caller.answer(); resp.StatusCode != want.status || want.status == 200 && text != "HTTP/1.1 hi" {
				t.Errorf("%s: %d %q", path, resp.StatusCode, text)
			}
			w.ends(want.outcome)
		}
	}
	caller := w.dial()
	caller.send("PUT /hang HTTP/1.1\nHost: h\nWrit-Token: 1.5\nContent-Length: 2\n\nhi")
	a := w.begun()
	<-hang
	close(a.cut)
	w.settles(fence.Broken)
	// One that does not trust the upstream sends nothing.
	w = newWorld(t, up.URL)
	caller = w.dial()
	caller.send("%s\n", put)
	if resp, text := caller.answer(); problem(t, text).Reason != proxy.ReasonUnreachable {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	w.ends(fence.Finished)
}

// A caller that goes away after its body was sent does not end the write.
func TestCallerLeavesAfterTheBody(t *testing.T) {
	for name, request := range map[string]string{"body": "Content-Length: 2\n\nhi", "no body": "\n", "chunked": "Transfer-Encoding: chunked\n\n2\nhi\n0\n\n"} {
		t.Run(name, func(t *testing.T) {
			got, answer, closed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			s := scripted(t, func(s *stage) {
				s.whole()
				close(got)
				<-answer
				s.say("HTTP/1.1 200 OK\nContent-Length: 100000\n\n" + strings.Repeat("x", 100000))
				closed <- s.drained()
			})
			gone := make(chan struct{})
			w := newWorld(t, s.url())
			inner := w.server.Config.Handler
			w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					select {
					case <-r.Context().Done():
						close(gone)
					case <-stop:
					}
				}()
				inner.ServeHTTP(rw, r)
			})
			caller := w.dial()
			caller.send("%s", put+request)
			w.begun()
			<-got
			caller.Close()
			<-gone // the server has noticed
			w.underWay()
			close(answer)
			w.settles(fence.Finished)
			w.server.Close()
			if err := w.proxy.Close(t.Context()); err != nil { // closes idle connections
				t.Error(err)
			}
			if err := <-closed; err != nil {
				t.Errorf("the upstream's connection was not left alone: %v", err)
			}
		})
	}
}

// In the middle of the response the rest is read, because only its end says that the storage is done.
func TestCallerLeavesInTheResponse(t *testing.T) {
	const length = 64 << 20 // more than fits into the buffers on the way
	s := scripted(t, func(s *stage) {
		s.whole()
		s.say(fmt.Sprintf("HTTP/1.1 200 OK\nContent-Length: %d\n\n", length))
		_, _ = s.Write(make([]byte, length))
		_ = s.drained()
	})
	w := newWorld(t, s.url())
	caller := w.dial()
	caller.send(put + "\n")
	w.begun()
	if resp := caller.head("PUT"); resp.StatusCode != 200 {
		t.Error(resp.StatusCode)
	}
	w.underWay()
	caller.Close()
	w.settles(fence.Finished)
}

func TestCallerLeavesAndTheUpstreamHangs(t *testing.T) {
	closed := make(chan error, 1)
	for name, say := range map[string]string{"before the response": "", "in the response": "HTTP/1.1 200 OK\nContent-Length: 10\n\nx"} {
		t.Run(name, func(t *testing.T) {
			got := make(chan struct{})
			s := scripted(t, func(s *stage) { s.whole(); s.say(say); close(got); closed <- s.drained() })
			w := newWorld(t, s.url(), func(c *proxy.Config) { c.Limits.Linger = 50 * time.Millisecond })
			caller := w.dial()
			caller.send(put + "Content-Length: 2\n\nhi")
			w.begun()
			<-got
			caller.Close()
			w.settles(fence.Broken)
			if err := <-closed; err == nil {
				t.Error("the upstream's connection ended as if all were well")
			}
		})
	}
}

func TestCallerLeavesInTheBody(t *testing.T) {
	for name, request := range map[string]string{
		"length": "Content-Length: 100\n\nhi", "chunked": "Transfer-Encoding: chunked\n\n2\nhi\n",
		"in a chunk": "Transfer-Encoding: chunked\n\n9\nhi", "before the last chunk": "Transfer-Encoding: chunked\n\n2\nhi\n0\n",
	} {
		t.Run(name, func(t *testing.T) {
			body := make(chan error, 1)
			s := scripted(t, func(s *stage) {
				_, err := io.ReadAll(s.request().Body)
				body <- err
			})
			w := newWorld(t, s.url())
			caller := w.dial()
			caller.send("%s%s", put, request)
			caller.Close()
			w.ends(fence.Broken)
			if err := <-body; err == nil {
				t.Error("the upstream took it for a whole body")
			}
		})
	}
}
