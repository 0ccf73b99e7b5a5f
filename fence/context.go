package fence

import "context"

type (
	writeKey    struct{}
	admittedKey struct{}
)

// NewContext returns a context under which requests present what w holds: [Transport] and the interceptors of package
// fencegrpc put it on them. w.Resource says what it is for, and is not sent.
func NewContext(ctx context.Context, w Write) context.Context {
	return context.WithValue(ctx, writeKey{}, w)
}

// FromContext returns what requests made under ctx present, and false if there is nothing. In a handler behind [Middleware]
// it is what the caller has presented.
func FromContext(ctx context.Context) (Write, bool) {
	w, ok := ctx.Value(writeKey{}).(Write)
	return w, ok
}

// Admitted is a write that a guard has let through.
type Admitted struct {
	Resource string
	// Token that it was admitted under. Storage that compares tokens itself is given this one.
	Token Token
}

// NewAdmittedContext returns a context that says what was admitted. It is for those who stand before a handler, as
// [Middleware] does.
func NewAdmittedContext(ctx context.Context, a Admitted) context.Context {
	return context.WithValue(ctx, admittedKey{}, a)
}

// AdmittedFromContext returns the write that ctx is for, and false if it was not admitted by a guard: it reads, or nothing
// stands before the handler.
func AdmittedFromContext(ctx context.Context) (Admitted, bool) {
	a, ok := ctx.Value(admittedKey{}).(Admitted)
	return a, ok
}
