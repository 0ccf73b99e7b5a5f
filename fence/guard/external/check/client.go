package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
)

// Unreachable is the obstacle of a write that the client could not ask about.
const Unreachable fence.Obstacle = "UNREACHABLE"

const (
	dialTimeout = 2 * time.Second
	// doneTimeout bounds the call that ends a ticket. When it fails, the end of the connection breaks the write.
	doneTimeout = 5 * time.Second
	// maxLineBytes bounds one line of an answer.
	maxLineBytes = 4 << 10
)

// Client asks a guard over its socket. It is safe for concurrent use, and each admission takes a connection.
type Client struct {
	path string
	http *http.Client
}

var _ fence.Admitter = (*Client)(nil)

// NewClient returns a client of the guard whose socket is at path. It connects when it is needed.
func NewClient(path string) *Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &Client{path: path, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) },
			// Ends of admissions share a few; admissions do not wait for one.
			MaxIdleConnsPerHost: 16, IdleConnTimeout: idleTimeout / 2, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes connections that are idle. Admissions go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Admit implements [fence.Admitter]. A guard that cannot be reached is [fence.ErrUnavailable].
func (c *Client) Admit(ctx context.Context, w fence.Write) (fence.Admission, error) {
	// The connection outlives ctx once the write is admitted.
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	detach := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	a, err := c.admit(lasting, w)
	if !detach() && err == nil {
		a.Done(fence.Finished) // it was never sent
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel(err)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	a.cancel = cancel
	return a, nil
}

func (c *Client) admit(ctx context.Context, w fence.Write) (*admission, error) {
	asked := struct {
		Resource string      `json:"resource"`
		Writ     string      `json:"writ,omitempty"`
		Token    fence.Token `json:"token,omitzero"`
		Hold     bool        `json:"hold"`
		WaitMS   int64       `json:"wait_ms"`
	}{w.Resource, w.Writ, w.Token, true, maxWait.Milliseconds()}
	resp, err := c.post(ctx, pathAdmit, asked)
	if err != nil {
		return nil, c.unreachable(w.Resource, err)
	}
	lines := bufio.NewReaderSize(resp.Body, maxLineBytes)
	first, err := readLine(lines)
	if err == nil && (first.Event != eventAdmitted || first.Ticket == "" || !first.Token.Valid()) {
		err = errors.New("its answer is not one of a guard")
	}
	if err != nil {
		resp.Body.Close()
		return nil, c.unreachable(w.Resource, err)
	}
	a := &admission{client: c, ticket: first.Ticket, token: first.Token, body: resp.Body, cut: make(chan struct{})}
	a.reading.Go(func() { a.follow(lines) })
	return a, nil
}

// post sends a request. An answer that is not a success is an error.
func (c *Client) post(ctx context.Context, path string, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://guard"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if err := fence.ErrorFromResponse(resp); err != nil {
		return nil, err
	}
	text, err = io.ReadAll(io.LimitReader(resp.Body, maxLineBytes))
	return nil, errors.Join(fmt.Errorf("it answered %s: %q", resp.Status, text), err)
}

// unreachable makes a failure of the call one of the guard's. Refusals stay what they are.
func (c *Client) unreachable(resource string, err error) error {
	for _, refusal := range []error{
		fence.ErrStale, fence.ErrNoCredential, fence.ErrUnknownKey, fence.ErrInvalidWrit, fence.ErrInvalidToken,
		fence.ErrUnguarded, fence.ErrUnavailable,
	} {
		if errors.Is(err, refusal) {
			return err
		}
	}
	return &fence.UnavailableError{Resource: resource, Obstacle: Unreachable, Detail: fmt.Sprintf("guard at %s: %v", c.path, err)}
}

func readLine(r *bufio.Reader) (answer, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return answer{}, err
	}
	var a answer
	return a, json.Unmarshal(line, &a)
}

// admission is a held ticket.
type admission struct {
	client  *Client
	ticket  string
	token   fence.Token
	body    io.Closer
	cancel  context.CancelCauseFunc // set before anybody else has it
	reading sync.WaitGroup
	cut     chan struct{} // closed by follow
}

// follow waits for the cut. A connection that ends is one: the guard counts the write as broken.
func (a *admission) follow(lines *bufio.Reader) {
	defer close(a.cut)
	for {
		if event, err := readLine(lines); err != nil || event.Event == eventCut {
			return
		}
	}
}

// Token implements [fence.Admission].
func (a *admission) Token() fence.Token { return a.token }

// Cut implements [fence.Admission]. It is also closed when the guard has gone, and after Done.
func (a *admission) Cut() <-chan struct{} { return a.cut }

// Done implements [fence.Admission]. It returns when the guard has been told, or could not be told, which breaks the write.
func (a *admission) Done(outcome fence.Outcome) {
	said := struct {
		Outcome string `json:"outcome"`
	}{outcomeBroken}
	if outcome == fence.Finished {
		said.Outcome = outcomeFinished
	}
	ctx, stop := context.WithTimeout(context.Background(), doneTimeout)
	defer stop()
	if resp, err := a.client.post(ctx, pathDone+a.ticket, said); err == nil {
		resp.Body.Close()
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
	a.body.Close()
	a.reading.Wait()
}
