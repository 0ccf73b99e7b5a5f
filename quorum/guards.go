package quorum

import (
	"context"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// The deciding calls of guards and of those who look after them.

// GuardCall carries what a guard says, and answers it.
func (s *Service) GuardCall(ctx context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
	return answered[*writv1.GuardResponse](s.do(ctx, cmd))
}

// ListGuards answers the guards, by name.
func (s *Service) ListGuards(ctx context.Context, cmd lease.ListGuards) (*writv1.ListGuardsResponse, error) {
	return answered[*writv1.ListGuardsResponse](s.do(ctx, cmd))
}

// RemoveGuard takes a guard off the list.
func (s *Service) RemoveGuard(ctx context.Context, cmd lease.RemoveGuard) error {
	_, err := s.do(ctx, cmd)
	return err
}

// SetGuarding changes the rule of one prefix, and answers the rules.
func (s *Service) SetGuarding(ctx context.Context, cmd lease.SetGuarding) (*writv1.GuardingRecord, error) {
	return answered[*writv1.GuardingRecord](s.do(ctx, cmd))
}

// GetGuarding answers the rules.
func (s *Service) GetGuarding(ctx context.Context, cmd lease.GetGuarding) (*writv1.GuardingRecord, error) {
	return answered[*writv1.GuardingRecord](s.do(ctx, cmd))
}

func answered[T any](v any, err error) (T, error) {
	answer, _ := v.(T)
	return answer, err
}
