package fence

import "net/http"

// Transport returns a round tripper that presents, with each request, the writ or the token of the request's context: see
// [NewContext]. A request whose context has none, or that has a credential in its header, is sent as it is. next carries
// requests out; nil stands for [http.DefaultTransport].
//
// A refusal by a guard is a response, as every answer is; [ErrorFromResponse] reads it:
//
//	resp, err := client.Do(request)
//	if err == nil {
//		err = fence.ErrorFromResponse(resp)
//	}
//	if errors.Is(err, fence.ErrStale) { … stop writing … }
//
// The writ goes to every host that the client talks to, redirects included, so give the client to nothing but storage.
func Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return transport{next}
}

type transport struct{ next http.RoundTripper }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	w, ok := FromContext(r.Context())
	c := Credential{Writ: w.Writ, Token: w.Token}
	if !ok || c.IsZero() || len(r.Header[HeaderWrit])+len(r.Header[HeaderToken]) > 0 {
		return t.next.RoundTrip(r)
	}
	presented := r.WithContext(r.Context()) // a round tripper must not change what it is given
	presented.Header = r.Header.Clone()
	if presented.Header == nil {
		presented.Header = make(http.Header)
	}
	c.Set(presented.Header)
	return t.next.RoundTrip(presented)
}
