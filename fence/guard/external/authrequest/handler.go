package authrequest

import (
	"net/http"
	"strconv"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external"
)

// Headers that describe the original request.
const (
	HeaderMethod = "X-Original-Method"
	HeaderURI    = "X-Original-Uri"
	HeaderHost   = "X-Original-Host"
	// HeaderUpgrade is the request's Upgrade header; it may be missing, since nginx itself upgrades nothing.
	HeaderUpgrade = "X-Original-Upgrade"
)

// Headers of the answer.
const (
	HeaderStatus   = "Writ-Status"
	HeaderProblem  = "Writ-Problem"
	HeaderAdmitted = "Writ-Admitted"
)

// Handler returns the handler that nginx asks, at any path.
func Handler(judge *external.Judge) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store") // an answer counts for one request
		verdict, err := decide(judge, r)
		if err != nil {
			refuse(w, err)
			return
		}
		if !verdict.Token.IsZero() {
			h.Set(HeaderAdmitted, verdict.Token.Decimal())
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func decide(judge *external.Judge, r *http.Request) (external.Verdict, error) {
	original, err := originalOf(r)
	if err != nil {
		return external.Verdict{}, err
	}
	return judge.Decide(r.Context(), original)
}

// originalOf reads the original request from the headers of the subrequest.
func originalOf(r *http.Request) (external.Request, error) {
	var parts [3]string
	for i, name := range [...]string{HeaderMethod, HeaderURI, HeaderHost} {
		values := r.Header[name]
		if len(values) != 1 {
			return external.Request{}, &fence.InvalidError{
				Kind: fence.ErrUnsupported, Field: name, Fix: "must be given once: have nginx set it with proxy_set_header",
			}
		}
		parts[i] = values[0]
	}
	header := r.Header.Clone()
	// These are of the subrequest itself.
	header.Del("Upgrade")
	header.Del("Connection")
	if upgrade := r.Header.Values(HeaderUpgrade); len(upgrade) > 0 && upgrade[0] != "" {
		header.Set("Upgrade", upgrade[0])
	}
	return external.Request{Method: parts[0], Target: parts[1], Host: parts[2], Header: header}, nil
}

func refuse(w http.ResponseWriter, err error) {
	p := fence.ProblemFor(err)
	h := w.Header()
	h.Set(HeaderStatus, strconv.Itoa(p.Status))
	h.Set(HeaderProblem, string(p.JSON()))
	if retry := p.RetryAfterSeconds(); retry > 0 {
		h.Set("Retry-After", strconv.Itoa(retry))
	}
	w.WriteHeader(http.StatusForbidden)
}
