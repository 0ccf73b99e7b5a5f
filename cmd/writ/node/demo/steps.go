package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writ-io/writ/lease"
)

// steps are the story.
func (t *teller) steps() []step {
	return []step{
		{"A process acquires " + resource, "a grant with a token", t.acquire},
		{"It writes under its token", "the storage takes both writes", t.write},
		{"It holds on for longer than that", "the same token, renewed", t.keep},
		{"It is paused between its check and its write", "it had checked: valid", t.pause},
		{"Its lease runs out and a rival acquires", "a higher token, after its deadline", t.takeOver},
		{"The rival writes", "the storage takes it", t.rivalWrites},
		{"The paused process wakes, its late write arrives", "refused, by its token", t.wake},
		{"It learns that its lease is lost", fmt.Sprintf("within %v of waking", noticed), t.notice},
		{"The coordinator's region is stopped", "another decides, the rival keeps its lease", t.failOver},
		{"The rival releases and acquires again", "a token that is higher still", t.again},
		{"The file is read back", "no token after a higher one", t.readBack},
	}
}

func (t *teller) acquire(ctx context.Context) (string, error) {
	s, err := t.holder.hear(ctx, saidAcquired)
	if err != nil {
		return "", err
	}
	t.first = s.Token
	return fmt.Sprintf("process %d holds token %s for %v at a time", t.holder.pid(), s.Token, ttl), nil
}

func (t *teller) write(ctx context.Context) (string, error) {
	for range 2 {
		if err := t.holder.tell(tellWrite); err != nil {
			return "", err
		}
		s, err := t.holder.hear(ctx, saidWrote)
		if err != nil {
			return "", err
		}
		if !s.Answer.Taken {
			return "", fmt.Errorf("a write under %s was refused at floor %s", s.Token, s.Answer.Floor)
		}
	}
	return fmt.Sprintf("2 writes under %s taken", t.first), nil
}

func (t *teller) keep(ctx context.Context) (string, error) {
	timer := t.clock.NewTimer(t.clock.Now().Add(ttl + time.Second))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if err := t.holder.tell(tellCheck); err != nil {
		return "", err
	}
	h, err := t.holder.hear(ctx, saidChecked)
	if err != nil {
		return "", err
	}
	if !h.Valid {
		return "", errors.New("its lease is not valid any more")
	}
	return fmt.Sprintf("%s is still held, for %v more", h.Token, round(h.Remaining)), nil
}

// pause stops the holder where it hurts most: it has looked, its lease was valid, and it is about to write.
func (t *teller) pause(ctx context.Context) (string, error) {
	asked := t.clock.Now()
	if err := t.holder.tell(tellCheck); err != nil {
		return "", err
	}
	s, err := t.holder.hear(ctx, saidChecked)
	if err != nil {
		return "", err
	}
	if !s.Valid {
		return "", errors.New("its lease was not valid")
	}
	t.believedUntil = asked.Add(s.Remaining) // it looked after it was asked
	if err := t.holder.pause(); err != nil {
		return "", err
	}
	t.pausedAt = t.clock.Now()
	if err := t.await(ctx, "the process to stand still", func() bool { return t.holder.state() == "T" }); err != nil {
		return "", err
	}
	return fmt.Sprintf("valid for %v more; SIGSTOP to process %d", round(s.Remaining), t.holder.pid()), nil
}

func (t *teller) takeOver(ctx context.Context) (string, error) {
	hold, err := t.rival.Acquire(ctx, resource, lease.AcquireOptions{TTL: ttl})
	if err != nil {
		return "", err
	}
	now := t.clock.Now()
	t.hold, t.second = hold, hold.Token()
	seen := fmt.Sprintf("token %s, %v after the pause", t.second, round(now.Sub(t.pausedAt)))
	switch {
	case t.second <= t.first:
		return seen, fmt.Errorf("it is not above %s", t.first)
	case now.Before(t.believedUntil):
		return seen, fmt.Errorf("%v before the other stopped believing", round(t.believedUntil.Sub(now)))
	}
	return seen, nil
}

func (t *teller) rivalWrites(ctx context.Context) (string, error) {
	a, err := put(ctx, t.storage.url(), t.second, "the rival's write")
	if err != nil {
		return "", err
	}
	if !a.Taken {
		return "", fmt.Errorf("refused at floor %s", a.Floor)
	}
	return fmt.Sprintf("taken; the storage has seen %s now", a.Floor), nil
}

func (t *teller) wake(ctx context.Context) (string, error) {
	// The order lies in its pipe when it wakes: it goes on with the write that it was about to make.
	if err := t.holder.tell(tellWrite); err != nil {
		return "", err
	}
	t.resumedAt = t.clock.Now()
	if err := t.holder.resume(); err != nil {
		return "", err
	}
	s, err := t.holder.hear(ctx, saidWrote)
	if err != nil {
		return "", err
	}
	if s.Answer.Taken {
		return "", fmt.Errorf("the write under %s was taken", s.Token)
	}
	return fmt.Sprintf("refused: %s is below %s", s.Token, s.Answer.Floor), nil
}

func (t *teller) notice(ctx context.Context) (string, error) {
	h, err := t.holder.hear(ctx, saidLost)
	if err != nil {
		return "", err
	}
	took := h.at.Sub(t.resumedAt)
	seen := fmt.Sprintf("after %v: %s", round(took), h.Why)
	if took > noticed {
		return seen, errors.New("it took too long")
	}
	return seen, nil
}

func (t *teller) failOver(ctx context.Context) (string, error) {
	was := t.Quorum.Coordinator()
	stopped := t.clock.Now()
	if err := t.Quorum.StopRegion(ctx, was); err != nil {
		return "", err
	}
	now := ""
	if err := t.await(ctx, "another coordinator", func() bool {
		now = t.Quorum.Coordinator()
		return now != "" && now != was
	}); err != nil {
		return "", err
	}
	took := t.clock.Now().Sub(stopped)
	seen := fmt.Sprintf("%s stopped, %s decides after %v", was, now, round(took))
	if err := t.hold.Verify(ctx); err != nil {
		return seen, err
	}
	return seen + fmt.Sprintf(", %s is held", t.hold.Token()), nil
}

func (t *teller) again(ctx context.Context) (string, error) {
	if err := t.hold.Release(ctx); err != nil {
		return "", err
	}
	released := t.clock.Now()
	hold, err := t.rival.Acquire(ctx, resource, lease.AcquireOptions{TTL: ttl})
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("token %s, %v after the release", hold.Token(), round(t.clock.Now().Sub(released)))
	if hold.Token() <= t.second {
		return seen, fmt.Errorf("it is not above %s", t.second)
	}
	if a, err := put(ctx, t.storage.url(), hold.Token(), "the rival's write, after the failover"); err != nil || !a.Taken {
		return seen, errors.Join(err, fmt.Errorf("its write was not taken (floor %s)", a.Floor))
	}
	return seen, hold.Release(ctx)
}

func (t *teller) readBack(context.Context) (string, error) {
	lines, err := t.storage.lines()
	if err != nil {
		return "", err
	}
	for i := 1; i < len(lines); i++ {
		if lines[i].Token < lines[i-1].Token {
			return "", fmt.Errorf("line %d under %s stands after %s", i+1, lines[i].Token, lines[i-1].Token)
		}
	}
	return fmt.Sprintf("%d writes in order, %d refused", len(lines), t.storage.refusals()), nil
}

// await looks until something has happened.
func (t *teller) await(ctx context.Context, what string, happened func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}
