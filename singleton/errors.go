package singleton

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/writ-io/writ/lease"
)

// Sentinels, to be matched with errors.Is.
var (
	// ErrLost is the cause of the end of a function's context when the lease was lost, or could not be renewed in time: the
	// cause is the *lease.LostError that tells which. It is lease.ErrLost.
	ErrLost = lease.ErrLost
	// ErrHandedOver is the cause when a process in a region that is preferred waits for the resource.
	ErrHandedOver = errors.New("singleton: handed over to a request of higher priority")
	// ErrStuck is what Run returns, if [Config.OnStuck] returns, when a function did not return in time after its context
	// had ended. Its lease was not released.
	ErrStuck = errors.New("singleton: the function did not return after its context had ended")
	// ErrGoexit is what Run returns when the function ended its goroutine with runtime.Goexit, as t.FailNow does. The lease
	// has been released.
	ErrGoexit = errors.New("singleton: the function called runtime.Goexit")
	// ErrIneligible is what Try returns in a region that is not eligible.
	ErrIneligible = errors.New("singleton: this region is not eligible")
	// ErrNoTerm is what helpers return that need the context of a running function, for any other context.
	ErrNoTerm = errors.New("singleton: the context is not that of a function under a lease")
)

// PanicError is what Run panics with when the function has panicked. The lease has been released.
type PanicError struct {
	// Value is what the function panicked with.
	Value any
	// Stack is where, as debug.Stack formats it.
	Stack []byte
}

// newPanicError is called while a panic is recovered from. A panic that is passed on keeps its stack.
func newPanicError(value any) *PanicError {
	if passed, ok := value.(*PanicError); ok {
		return passed
	}
	return &PanicError{Value: value, Stack: debug.Stack()}
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("singleton: the function panicked: %v\n\n%s", e.Value, e.Stack)
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
