package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
)

// A newer token waits: the connection is closed before the admission is told.
func TestCut(t *testing.T) {
	const length = 64 << 20
	for _, c := range []struct {
		name, request string
		say           string // what the upstream says before it hangs
		endless       bool   // it goes on saying
		reason        string // what the caller is told
	}{
		{"no answer", "Content-Length: 2\n\nhi", "", false, proxy.ReasonCut},
		{"no answer, no body", "\n", "", false, proxy.ReasonCut},
		{"the caller stalls in its body", "Content-Length: 100000\n\n" + strings.Repeat("x", 50000), "", false, proxy.ReasonCut},
		{"the caller stalls in a chunk", "Transfer-Encoding: chunked\n\nC350\n" + strings.Repeat("x", 40000), "", false, proxy.ReasonCut},
		{"the upstream stalls in the response", "Content-Length: 2\n\nhi", "HTTP/1.1 200 OK\nContent-Length: 100000\n\n" + strings.Repeat("x", 50000), false, ""},
		{"the caller does not read", "Content-Length: 2\n\nhi", fmt.Sprintf("HTTP/1.1 200 OK\nContent-Length: %d\n\n", length), true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, closed := make(chan struct{}), make(chan error, 1)
			s := scripted(t, func(s *stage) {
				s.request()
				s.say(c.say)
				for err := error(nil); c.endless && err == nil; { // until nobody takes any more
					_ = s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
					_, err = s.Write(make([]byte, 64<<10))
				}
				close(got)
				closed <- s.drained()
			})
			w := newWorld(t, s.url())
			caller := w.dial()
			caller.send("%s", put+c.request)
			a := w.begun()
			if c.say != "" {
				caller.head("PUT") // the response is on its way
			}
			<-got
			w.underWay()
			close(a.cut)
			w.settles(fence.Broken)
			if err := <-closed; err == nil {
				t.Error("the upstream's connection ended as if all were well, not by a reset")
			}
			if c.reason == "" {
				// The handler does not wait for a caller that does not read.
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := w.proxy.Close(ctx); err != nil {
					t.Error(err)
				}
				if _, err := io.Copy(io.Discard, caller.r); isTimeout(err) {
					t.Error("the caller is left waiting")
				}
				return
			}
			resp, text := caller.answer()
			if p := problem(t, text); resp.StatusCode != 502 || p.Reason != c.reason || !strings.Contains(p.Detail, "may have been carried out") {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
		})
	}
}

// The transport waits for the caller's body before it says that the upstream has gone.
func TestUpstreamLeavesWhileTheCallerStalls(t *testing.T) {
	s := scripted(t, func(s *stage) {
		s.request()
		_, _ = io.ReadFull(s.r, make([]byte, 1000))
		s.reset()
	})
	w := newWorld(t, s.url())
	caller := w.dial()
	caller.send("%s", put+"Content-Length: 100000\n\n"+strings.Repeat("x", 50000))
	w.ends(fence.Broken)
	resp, text := caller.answer()
	if p := problem(t, text); resp.StatusCode != 502 || p.Reason != proxy.ReasonBroken || !resp.Close {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	caller.closed()
}

// Bytes that the upstream has not read when a write is broken off must not follow later.
func TestBrokenOffDropsWhatIsBuffered(t *testing.T) {
	const chunk = 1 << 20
	got, read := make(chan struct{}), make(chan int64, 1)
	resume := make(chan struct{})
	s := scripted(t, func(s *stage) {
		s.request()
		close(got)
		<-resume
		n, err := io.Copy(io.Discard, s.r)
		if err == nil {
			n = -1
		}
		read <- n
	})
	w := newWorld(t, s.url())
	caller := w.dial()
	go func() {
		_, _ = caller.Write([]byte("PUT /x HTTP/1.1\r\nHost: h\r\nWrit-Token: 1.5\r\nContent-Length: 1073741824\r\n\r\n"))
		for {
			if _, err := caller.Write(bytes.Repeat([]byte("x"), chunk)); err != nil {
				return
			}
		}
	}()
	a := w.begun()
	<-got
	close(a.cut)
	w.settles(fence.Broken)
	close(resume)
	if n := <-read; n < 0 {
		t.Error("the upstream read to an orderly end")
	} else {
		t.Logf("the upstream read %d bytes that had arrived", n)
	}
	caller.Close()
}
