package pgfence_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

// pqError has the methods by which errors of lib/pq tell what they are.
type pqError struct{ state, detail string }

func (e *pqError) Error() string    { return "pq: " + e.state }
func (e *pqError) SQLState() string { return e.state }
func (e *pqError) Get(field byte) string {
	if field == 'D' {
		return e.detail
	}
	return ""
}

func TestFromErrorOfDrivers(t *testing.T) {
	detail := fmt.Sprintf(`{"reason": "STALE_TOKEN", "resource": "orders-db", "token": "%d", "floor": "%d"}`, old, present)
	for _, err := range []error{
		&pgconn.PgError{Code: "WF002", Detail: detail},
		fmt.Errorf("wrapped: %w", &pqError{"WF002", detail}),
	} {
		wantStale(t, pgfence.FromError(err), old, present)
	}
	// What has lost its detail on the way is still a refusal.
	for _, detail := range []string{"", "{", "null", `{"token": "x", "floor": "-1"}`, `{"token": 5}`, `{"token": "9223372036854775808", "floor": "1"}`} {
		err := pgfence.FromError(&pqError{"WF002", detail})
		if stale := (*fence.StaleError)(nil); !errors.Is(err, fence.ErrStale) || errors.As(err, &stale) {
			t.Errorf("%q: %v", detail, err)
		}
	}
	for state, want := range map[string]error{
		"WF001": pgfence.ErrNoToken, "WF003": fence.ErrUnguarded, "WF004": pgfence.ErrNotRaised, "WF005": pgfence.ErrNotTrusted,
		"WF006": fence.ErrInvalidToken, "WF007": pgfence.ErrDamaged,
	} {
		err := pgfence.FromError(&pqError{state, ""})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), state) {
			t.Errorf("%s: %v", state, err)
		}
	}
	for _, state := range []string{"WF999", "40001", "", "00000"} {
		err := error(&pqError{state, detail})
		if got := pgfence.FromError(err); !same(got, err) {
			t.Errorf("%s became %v", state, got)
		}
	}
}

// same reports whether it is the very same error, not one that wraps it.
func same(a, b any) bool { return a == b }

func FuzzFromError(f *testing.F) {
	f.Add("WF002", `{"resource": "r", "token": "5", "floor": "9"}`)
	f.Add("WF002", `{"token": 5}`)
	f.Add("WF001", "")
	f.Add("40001", "{")
	f.Fuzz(func(t *testing.T, state, detail string) {
		err := pgfence.FromError(&pgconn.PgError{Code: state, Detail: detail})
		if err == nil {
			t.Fatal("an error became none")
		}
		var stale *fence.StaleError
		if errors.As(err, &stale) && (stale.Have <= 0 || stale.Floor <= 0) {
			t.Fatalf("%+v", stale)
		}
		if errors.Is(err, fence.ErrStale) != (state == "WF002") {
			t.Fatalf("state %q became %v", state, err)
		}
		_ = err.Error()
	})
}
