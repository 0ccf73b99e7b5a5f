package external

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/route"
)

// Config says how requests are judged.
type Config struct {
	// Admitter decides. Mandatory.
	Admitter fence.Admitter
	// Routes say what a request is for. Mandatory.
	Routes *route.Table
	// Listener is the name by which routes refer to this form; empty: only routes for every listener count.
	Listener string
	// Stamper knows what the guard's region is granted. Mandatory if a route is in mode stamp.
	Stamper Stamper
	// Timeout bounds how long a request waits to be admitted. Default 5 s.
	Timeout time.Duration
}

// Stamper knows the tokens of the guard's own region.
type Stamper interface {
	// Grant answers the token under which the region holds the resource; ok is false if it does not.
	Grant(resource string) (token fence.Token, ok bool)
}

// defaultTimeout is below what clients usually wait.
const defaultTimeout = 5 * time.Second

// Validate reports the first field that cannot be used and says what would do.
func (c Config) Validate() error {
	switch {
	case c.Admitter == nil:
		return errors.New("external: Admitter is missing: set the guard that decides")
	case c.Routes == nil:
		return errors.New("external: Routes is missing: set the table of routes")
	case c.Stamper == nil && len(c.Routes.Stamps()) > 0:
		return errors.New("external: Stamper is missing, and a route is in mode stamp: set what the region is granted")
	case c.Timeout < 0:
		return fmt.Errorf("external: Timeout is %v: use a positive duration, or 0 for the default", c.Timeout)
	}
	return nil
}

// Judge decides about requests that others carry out. It is safe for concurrent use.
type Judge struct{ config Config }

// NewJudge returns a judge.
func NewJudge(c Config) (*Judge, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	return &Judge{c}, nil
}

// Request is what a program in front says of a request.
type Request struct {
	// Method and Target as in the first line of the request.
	Method, Target string
	Host           string
	Header         http.Header
}

// Verdict is why a request may go on.
type Verdict struct {
	Match route.Match
	// Token that it was admitted under; zero if it needed no admission.
	Token fence.Token
}

// Decide answers why r may go on, or the refusal. From its return on the request may reach the storage, and the gate counts
// it as broken.
func (j *Judge) Decide(ctx context.Context, r Request) (Verdict, error) {
	match, err := j.match(r)
	if err != nil || !match.Checked {
		return Verdict{Match: match}, err
	}
	presented, err := j.credential(r.Header, match)
	if err != nil {
		return Verdict{Match: match}, err
	}
	// What follows is out of sight: it counts as broken from here on, and W bounds it.
	token, err := j.admit(ctx, presented.Write(match.Resource), fence.Broken)
	return Verdict{Match: match, Token: token}, err
}

func (j *Judge) admit(ctx context.Context, w fence.Write, outcome fence.Outcome) (fence.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, j.config.Timeout)
	defer cancel()
	admission, err := j.config.Admitter.Admit(ctx, w)
	if err != nil {
		return 0, err
	}
	token := admission.Token()
	admission.Done(outcome)
	return token, nil
}

// Routed reports whether a request can lead to the resource.
func (j *Judge) Routed(resource string) bool {
	_, _, ok := j.config.Routes.Sample(resource, false)
	return ok
}

// Probe sends a canary through everything that a caller's request goes through. Nobody carries it out, whatever the answer
// is. The error is what the caller would have been told; nil: it would have been let through.
func (j *Judge) Probe(ctx context.Context, w fence.Write) error {
	sample, _, ok := j.config.Routes.Sample(w.Resource, w.Writ == "")
	if !ok {
		return fmt.Errorf("%w: no route leads to resource %q", fence.ErrUnguarded, w.Resource)
	}
	header := make(http.Header)
	fence.Credential{Writ: w.Writ, Token: w.Token}.Set(header)
	match, err := j.match(Request{Method: sample.Method, Target: sample.Path, Host: sample.Host, Header: header})
	if err != nil {
		return err
	}
	presented := fence.Credential{Writ: w.Writ, Token: w.Token} // in mode stamp, as if it were the region's own
	if match.Route.Mode != route.Stamp {
		if presented, err = fence.ParseHeader(header, match.Route.Trusted); err != nil {
			return err
		}
	}
	_, err = j.admit(ctx, presented.Write(match.Resource), fence.Finished)
	return err
}

// match finds the route of r, and refuses what does not end with its response.
func (j *Judge) match(r Request) (route.Match, error) {
	path, err := pathOf(r)
	if err != nil {
		return route.Match{}, err
	}
	match, err := j.config.Routes.Match(route.Request{
		Listener: j.config.Listener, Host: r.Host, Method: r.Method, Path: path, Overridden: overridden(r.Header),
	})
	if err != nil {
		return route.Match{}, err
	}
	if upgrade := r.Header.Get("Upgrade"); match.Guarded && upgrade != "" {
		return match, unsupported("Upgrade", upgrade, "cannot be guarded: use plain requests on guarded routes")
	}
	return match, nil
}

func overridden(h http.Header) bool {
	for _, name := range route.OverrideHeaders {
		if len(h.Values(name)) > 0 {
			return true
		}
	}
	return false
}

func (j *Judge) credential(h http.Header, match route.Match) (fence.Credential, error) {
	if match.Route.Mode != route.Stamp {
		return fence.ParseHeader(h, match.Route.Trusted)
	}
	// A caller that presents something believes in more than stamp mode gives.
	if _, err := fence.ParseHeader(h, true); !errors.Is(err, fence.ErrNoCredential) {
		return fence.Credential{}, unsupported(fence.HeaderWrit, "", "must be left out: this route is stamped with the region's own grant")
	}
	token, ok := j.config.Stamper.Grant(match.Resource)
	if !ok {
		return fence.Credential{}, &fence.UnavailableError{
			Resource: match.Resource, Obstacle: fence.NoGrant, Detail: "the guard's region does not hold the resource",
		}
	}
	return fence.Credential{Token: token}, nil
}

func unsupported(field, value, fix string) error {
	const shown = 64
	if len(value) > shown {
		value = strings.ToValidUTF8(value[:shown], "") + "…"
	}
	return &fence.InvalidError{Kind: fence.ErrUnsupported, Field: field, Value: value, Fix: fix}
}

// Limits of a request's description.
const (
	maxMethodBytes = 32
	maxTargetBytes = 16 << 10
	maxHostBytes   = 512
)

// pathOf refuses every description but that of a plain path, with a query or without, and answers the path as it was sent.
func pathOf(r Request) (string, error) {
	switch {
	case r.Method == "" || len(r.Method) > maxMethodBytes || !isMethod(r.Method):
		return "", unsupported("method", r.Method, "must be a method in capital letters: have the program in front pass it on")
	case r.Method == http.MethodConnect:
		return "", unsupported("method", r.Method, "cannot be guarded: a tunnel has no end that the guard could see")
	case len(r.Target) > maxTargetBytes:
		return "", unsupported("target", "", fmt.Sprintf("must not be longer than %d bytes", maxTargetBytes))
	case !strings.HasPrefix(r.Target, "/") || strings.Contains(r.Target, "#") || !isPlain(r.Target):
		return "", unsupported("target", r.Target, "must be a path that begins with a slash: have the program in front pass the original one on")
	case len(r.Host) > maxHostBytes || !isPlain(r.Host):
		return "", unsupported("host", r.Host, "must be a host, with a port or without")
	}
	path, _, _ := strings.Cut(r.Target, "?")
	return path, nil
}

// isMethod reports whether s holds capital letters and dashes alone, as methods do. Others would have to be compared with
// and without regard to case.
func isMethod(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' && r != '_' }) < 0
}

// isPlain reports whether s is of visible ASCII.
func isPlain(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}
