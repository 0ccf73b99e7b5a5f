package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
)

// Reasons of refusals that only a proxy has; see fence.Problem.
const (
	// ReasonUnreachable: nothing of the request was sent.
	ReasonUnreachable = "UPSTREAM_UNREACHABLE"
	// ReasonBroken: the request was sent, or may have been, and was not answered completely.
	ReasonBroken = "UPSTREAM_BROKEN"
	// ReasonCut: the same, because a newer token waited.
	ReasonCut = "CUT"
	// ReasonTooLarge: the body is longer than the limit.
	ReasonTooLarge = "TOO_LARGE"
	// ReasonVersion: a version of HTTP whose requests cannot be guarded.
	ReasonVersion = "HTTP_VERSION"
	// ReasonAmbiguous: the address could mean two things.
	ReasonAmbiguous = "AMBIGUOUS_ADDRESS"
	// reasonCanary: a probe was admitted.
	reasonCanary = "CANARY_ADMITTED"
)

// problem makes a refusal that only a proxy has.
func problem(reason string, status int, title, detail string) fence.Problem {
	return fence.Problem{
		Type:   fence.ProblemBase + strings.ReplaceAll(strings.ToLower(reason), "_", "-"),
		Title:  title,
		Status: status,
		Detail: detail,
		Reason: reason,
	}
}

// routingProblem describes why a request has no route.
func routingProblem(err error) fence.Problem {
	p := fence.ProblemFor(err)
	if p.Reason == fence.ReasonUnsupported && (p.Field == "path" || p.Field == "host") {
		p.Type, p.Reason = fence.ProblemBase+"ambiguous-address", ReasonAmbiguous
		p.Status, p.Title = http.StatusBadRequest, "The address is ambiguous"
	}
	return p
}

// upstreamProblem describes why a request was not answered.
func upstreamProblem(f failure) fence.Problem {
	var timeout net.Error
	const title = "The upstream did not answer"
	switch {
	case errors.Is(f.err, errCanary):
		return problem(reasonCanary, http.StatusOK, "The probe was admitted", "a write with this token would have been forwarded")
	case errors.Is(f.err, errTooLarge):
		return problem(ReasonTooLarge, http.StatusRequestEntityTooLarge, "The body is too large", "the body was broken off at the limit of the guard")
	case errors.Is(f.err, errCut):
		return problem(ReasonCut, http.StatusBadGateway, "The write was broken off",
			"a newer token waited for this write long enough: "+fate(f.sent)+"; acquire again before writing")
	case !f.sent:
		p := problem(ReasonUnreachable, http.StatusBadGateway, "The upstream cannot be reached", "nothing was sent: trying again is safe")
		p.RetryAfter = time.Second
		return p
	case f.uploaded && errors.As(f.err, &timeout) && timeout.Timeout():
		return problem(ReasonBroken, http.StatusGatewayTimeout, title, "no answer in time: "+fate(f.sent))
	}
	return problem(ReasonBroken, http.StatusBadGateway, title, "the connection broke: "+fate(f.sent))
}

func fate(sent bool) string {
	if sent {
		return "it may have been carried out, or may still be"
	}
	return "it was not sent"
}

// hangUpTime is how long the rest of a body that nobody wants is read, so that the caller finds time to read why.
const hangUpTime = time.Second

func hangUpDeadline() time.Time { return time.Now().Add(hangUpTime) }

// refuse answers a request that goes nowhere.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, route string, problem fence.Problem) {
	p.metrics.refused(route, strings.ToLower(problem.Reason))
	if r.ContentLength != 0 {
		// The rest of the connection is a body that nobody reads, so it cannot carry another request.
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(hangUpDeadline()) // not supported by all servers
	}
	problem.Respond(w)
}

// unguardable says why the kind of a request cannot be guarded.
func unguardable(r *http.Request) error {
	unsupported := func(field, value, fix string) error {
		return &fence.InvalidError{Kind: fence.ErrUnsupported, Field: field, Value: value, Fix: fix}
	}
	if upgrade := r.Header["Upgrade"]; len(upgrade) > 0 {
		return unsupported("Upgrade", upgrade[0], "the end of what follows cannot be seen: use plain HTTP/1.1 requests")
	}
	for _, list := range r.Header["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, "upgrade") || strings.EqualFold(name, "http2-settings"):
				return unsupported("Connection", name, "the end of what follows cannot be seen: use plain HTTP/1.1 requests")
			case isCredential(name):
				return fmt.Errorf("%w: the header Connection names %s, which is not of one hop",
					fence.ErrInvalidWrit, name)
			}
		}
	}
	for name := range r.Trailer {
		if isCredential(name) {
			return fmt.Errorf("%w: %s is announced as a trailer, and comes too late: present it in the header", fence.ErrInvalidWrit, name)
		}
	}
	return nil
}

// isCredential reports whether a program that folds case, and passes over or exchanges everything but letters and digits,
// would take name for a header that carries a writ or a token.
func isCredential(name string) bool {
	const full, short = "writtoken", len("writ")
	n := 0
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			continue
		}
		if n == len(full) || full[n] != c {
			return false
		}
		n++
	}
	return n == short || n == len(full)
}
