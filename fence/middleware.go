package fence

import (
	"context"
	"errors"
	"net/http"
)

// ErrCut is the cause of a context whose write has to be broken off, because a newer token has waited for it long enough.
var ErrCut = errors.New("fence: write cut off for a newer token")

// MiddlewareOptions say what [Middleware] asks of requests. The zero value is for writes with signed writs.
type MiddlewareOptions struct {
	// Trusted says of a request that its caller may present a bare token. Default: nobody may.
	Trusted func(*http.Request) bool
	// CheckReads has GET, HEAD and OPTIONS admitted as well. By default they pass.
	CheckReads bool
}

// Middleware puts a guard before a handler that writes to a storage of its own. resource says which resource a request
// writes, or false if it is none of the guard's business.
//
// A write reaches the handler only once it is admitted; others are answered as [WriteProblem] does. It counts as under way
// until the handler returns. The handler must therefore not return before the storage has answered, and must leave nothing
// behind that goes on writing: a handler that returns says that its write has finished, however it has ended. One that
// panics breaks the write.
//
// The handler's context ends with the cause [ErrCut] when a newer token wants the write out of the way; whatever it
// returns, the write is broken then. It does not end when the caller goes, because a storage that is half-way through a
// write is not stopped by that. [AdmittedFromContext] tells the token, for a storage that compares it too.
//
// The guard drains and does not know when the storage carries out what it was sent: it is safe for pauses of this process
// shorter than W.
func Middleware(admitter Admitter, resource func(*http.Request) (name string, guarded bool), o MiddlewareOptions) func(http.Handler) http.Handler {
	m := middleware{admitter: admitter, resource: resource, options: o}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(next, w, r) })
	}
}

type middleware struct {
	admitter Admitter
	resource func(*http.Request) (string, bool)
	options  MiddlewareOptions
}

func (m *middleware) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	name, guarded := m.resource(r)
	if !guarded {
		next.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodConnect || len(r.Header["Upgrade"]) > 0 {
		WriteProblem(w, invalid(ErrUnsupported, "Upgrade", r.Header.Get("Upgrade"), "cannot be guarded: use plain requests"))
		return
	}
	if isRead(r) && !m.options.CheckReads {
		next.ServeHTTP(w, r)
		return
	}
	presented, err := ParseHeader(r.Header, m.options.Trusted != nil && m.options.Trusted(r))
	if err != nil {
		WriteProblem(w, err)
		return
	}
	write := presented.Write(name)
	admitted := false
	err = Run(NewContext(r.Context(), write), m.admitter, write, func(ctx context.Context) error {
		admitted = true
		next.ServeHTTP(w, r.WithContext(ctx))
		return nil
	})
	if !admitted { // else the handler has answered
		WriteProblem(w, err)
	}
}

// isRead reports whether a request reads, by its method, and asks for no other method.
func isRead(r *http.Request) bool {
	for _, name := range [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
}

// Run has a write admitted and calls do, during which it counts as under way. do must not return before the storage has
// answered. Its context outlives that of the caller, so that a write is not left half-way, and ends with the cause [ErrCut]
// when a newer token wants the write out of the way; [AdmittedFromContext] tells its token.
//
// The error is that of the admitter, in which case do was not called; [ErrCut] if the write was cut, joined with what do has
// returned; or what do has returned. A write whose do fails has finished all the same: the storage has answered. One that
// panics, or was cut, is broken.
func Run(ctx context.Context, admitter Admitter, w Write, do func(context.Context) error) error {
	admission, err := admitter.Admit(ctx, w)
	if err != nil {
		return err
	}
	outcome := Broken
	defer func() { admission.Done(outcome) }() // also when do panics
	token := admission.Token()
	ctx = NewAdmittedContext(context.WithoutCancel(ctx), Admitted{Resource: w.Resource, Token: token})
	ctx, cancel := context.WithCancelCause(ctx)
	watching, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-admission.Cut():
			cancel(ErrCut)
		case <-stop:
		}
	}()
	defer func() {
		close(stop)
		<-watching
		cancel(nil)
	}()
	err = do(ctx)
	select {
	case <-admission.Cut():
		return errors.Join(ErrCut, err)
	default:
	}
	outcome = Finished
	return err
}
