package pgfence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writ-io/writ/fence"
)

var (
	// ErrNoToken means that a transaction wrote to a protected table without having presented a token.
	ErrNoToken = errors.New("pgfence: no token presented")

	// ErrNotTrusted means that the role may not present tokens. See [Grant].
	ErrNotTrusted = errors.New("pgfence: role is not trusted to present tokens")

	// ErrNotRaised means that a token was presented to which the fence has not been raised, or while older transactions
	// still ran. Bump, and begin the transaction afterwards.
	ErrNotRaised = errors.New("pgfence: fence not raised to the token")

	// ErrBusy means that a bump gave up waiting for older transactions. The floor is raised all the same, so that no
	// new ones are admitted; bump again. See [*BusyError].
	ErrBusy = errors.New("pgfence: older transactions still run")

	// ErrInvalid means that an argument cannot be used.
	ErrInvalid = errors.New("pgfence: invalid argument")

	// ErrNotInstalled means that there is no fence in the database, or one of a newer version.
	ErrNotInstalled = errors.New("pgfence: not installed")

	// ErrConflict means that a table is protected for another resource already.
	ErrConflict = errors.New("pgfence: table is protected for another resource")

	// ErrDamaged means that the installation is not as it should be. See [Verify].
	ErrDamaged = errors.New("pgfence: installation is damaged")
)

// The SQLSTATEs of refusals, and of other conditions that matter here.
const (
	StateNoToken         = "WF001"
	StateStaleToken      = "WF002"
	StateUnknownResource = "WF003"
	StateNotRaised       = "WF004"
	StateNotTrusted      = "WF005"
	StateInvalidToken    = "WF006"
	StateDamaged         = "WF007"

	stateDenied       = "42501"
	stateNoFunction   = "42883"
	stateNoSchema     = "3F000"
	stateLockTimedOut = "55P03"
)

// detail is the DETAIL of a refusal.
type detail struct {
	Resource string `json:"resource"`
	Token    string `json:"token"`
	Floor    string `json:"floor"`
}

// FromError puts the errors of this package and of package fence around what a fence told through a driver: a refused
// write is [fence.ErrStale] and a [*fence.StaleError], [ErrNoToken], [fence.ErrUnguarded], [ErrNotRaised],
// [ErrNotTrusted] or [fence.ErrInvalidToken]. The driver's error stays within reach of errors.As. Every other error, and
// nil, is returned as it is: above all a serialization failure (SQLSTATE 40001), which is what a transaction with a
// snapshot from before a bump gets.
func FromError(err error) error {
	if err == nil {
		return nil
	}
	state, text := stateOf(err)
	if done := (*refusal)(nil); errors.As(err, &done) || !strings.HasPrefix(state, "WF") {
		return err
	}
	var d detail
	// A detail that a proxy has rewritten leaves the state to tell.
	_ = json.Unmarshal([]byte(text), &d)
	kind := kindOf(state, d)
	if kind == nil {
		return err
	}
	return &refusal{kind: kind, cause: err}
}

func kindOf(state string, d detail) error {
	switch state {
	case StateNoToken:
		return ErrNoToken
	case StateStaleToken:
		have, errHave := parseToken(d.Token)
		floor, errFloor := parseToken(d.Floor)
		if errHave != nil || errFloor != nil {
			return fence.ErrStale
		}
		return &fence.StaleError{Resource: d.Resource, Have: have, Floor: floor}
	case StateUnknownResource:
		return fence.ErrUnguarded
	case StateNotRaised:
		return ErrNotRaised
	case StateNotTrusted:
		return ErrNotTrusted
	case StateInvalidToken:
		return fence.ErrInvalidToken
	case StateDamaged:
		return ErrDamaged
	default:
		return nil
	}
}

// parseToken takes every positive number, as the table does.
func parseToken(s string) (fence.Token, error) {
	var n int64
	if err := json.Unmarshal([]byte(s), &n); err != nil || n <= 0 {
		return 0, fmt.Errorf("%w: %q", fence.ErrInvalidToken, s)
	}
	return fence.Token(n), nil
}

// refusal is a driver's error under the name that it has here.
type refusal struct{ kind, cause error }

func (r *refusal) Error() string {
	if stale := (*fence.StaleError)(nil); errors.As(r.kind, &stale) {
		return stale.Error()
	}
	return fmt.Sprintf("%v: %v", r.kind, r.cause)
}

func (r *refusal) Unwrap() []error { return []error{r.kind, r.cause} }

// stateOf returns the SQLSTATE and the detail that a driver's error carries; pgx and lib/pq are known.
func stateOf(err error) (state, text string) {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code, e.Detail
	}
	var coded interface{ SQLState() string }
	if !errors.As(err, &coded) {
		return "", ""
	}
	if fields, ok := coded.(interface{ Get(byte) string }); ok {
		return coded.SQLState(), fields.Get('D')
	}
	return coded.SQLState(), ""
}

// hasState reports whether err carries one of the SQLSTATEs.
func hasState(err error, states ...string) bool {
	have, _ := stateOf(err)
	for _, state := range states {
		if have == state {
			return true
		}
	}
	return false
}

// installed explains the error of a database without a fence.
func installed(err error, schema string) error {
	if hasState(err, stateNoFunction, stateNoSchema, "42P01") {
		return fmt.Errorf("%w in schema %q: run writ-guard sql install: %w", ErrNotInstalled, schema, err)
	}
	return FromError(err)
}

// Unreachable says whether an error passes by itself: the server cannot be reached, or is starting, stopping or overloaded.
func Unreachable(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return strings.HasPrefix(server.Code, "57P") || strings.HasPrefix(server.Code, "53")
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded)
}

// BusyError tells which transactions a bump waited for in vain. It matches [ErrBusy].
type BusyError struct {
	Resource string
	// Holders are the transactions, if they could be listed.
	Holders []Holder
	// Cause is why they could not be ended: a right that is missing, nil if time ran out.
	Cause error
}

func (e *BusyError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%v: resource %q", ErrBusy, e.Resource)
	for i, h := range e.Holders {
		if i == 3 {
			fmt.Fprintf(&s, ", and %d more", len(e.Holders)-i)
			break
		}
		fmt.Fprintf(&s, ", %s", h)
	}
	if hasState(e.Cause, stateDenied) {
		fmt.Fprintf(&s, ": this role may not terminate them (grant it cut, or end them yourself): %v", e.Cause)
	} else if e.Cause != nil {
		fmt.Fprintf(&s, ": %v", e.Cause)
	}
	return s.String()
}

// Unwrap returns [ErrBusy] and the cause.
func (e *BusyError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrBusy}
	}
	return []error{ErrBusy, e.Cause}
}

// timedOut reports whether a lock_timeout ended a wait, rather than the caller.
func timedOut(ctx context.Context, err error) bool {
	return hasState(err, stateLockTimedOut) && ctx.Err() == nil
}
