package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// steps are the story.
func (t *teller) steps() []step {
	all := []step{
		{"A process acquires " + resource, "a grant with a token, proved by the guard", t.acquire},
		{"It writes under its token", "both lines are taken", t.write},
		{"It holds on for longer than that", "the same token, renewed", t.keep},
		{"It is paused between its check and its write", "it had checked: valid", t.pause},
		{"Its lease runs out and a rival acquires", "a higher token, after its deadline, proved", t.takeOver},
		{"The rival writes", "its line is taken", t.rivalWrites},
		{"The paused process wakes, its late write arrives", "refused by the guard, for its token", t.wake},
	}
	if t.hasRows() {
		all = append(all, step{"So does its late INSERT, begun before the pause", "refused by the table, for its token", t.lateInsert})
	}
	all = append(all, []step{
		{"It learns that its lease is lost", fmt.Sprintf("within %v of waking", noticed), t.notice},
		{"The coordinator's region is stopped", "another decides, the guard goes on admitting", t.failOver},
		{"The rival releases and acquires again", "a token that is higher still, proved", t.again},
		{"The file is read back", "what was taken, and no more", t.readFile},
	}...)
	if t.hasRows() {
		all = append(all, step{"The table is read back", "the same", t.readTable})
	}
	return all
}

func (t *teller) acquire(ctx context.Context) (string, error) {
	s, err := t.holder.hear(ctx, saidAcquired)
	if err != nil {
		return "", err
	}
	t.first = s.Token
	seen := fmt.Sprintf("process %d holds token %s for %v at a time", t.holder.pid(), s.Token, ttl)
	return t.withProof(ctx, seen, s.Token)
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
		if err := t.took(s.Outcome); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("2 lines under %s taken", t.first), nil
}

func (t *teller) keep(ctx context.Context) (string, error) {
	if err := t.pass(ctx, t.clock.Now().Add(ttl+time.Second)); err != nil {
		return "", err
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

// pause stops the holder where it hurts most: it has begun its transaction, it has looked, its lease was valid, and it is
// about to write.
func (t *teller) pause(ctx context.Context) (string, error) {
	asked := t.clock.Now()
	if err := t.holder.tell(tellBegin); err != nil {
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
	return t.withProof(ctx, seen, t.second)
}

func (t *teller) rivalWrites(ctx context.Context) (string, error) {
	return fmt.Sprintf("1 line under %s taken", t.second), t.writeAsRival(ctx)
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
	t.late = s.Outcome
	return t.refused(t.late.File)
}

func (t *teller) lateInsert(context.Context) (string, error) {
	if t.late.Row == nil {
		return "", errors.New("it was not tried")
	}
	return t.refused(*t.late.Row)
}

// refused checks that a write of the first holder was refused for its token.
func (t *teller) refused(a answer) (string, error) {
	if !a.stale() || a.Have != t.first || a.Floor != t.second {
		return a.String(), fmt.Errorf("it was not refused for %s being below %s", t.first, t.second)
	}
	return a.String(), nil
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
	if err := t.writeAsRival(ctx); err != nil { // whoever decides, or nobody
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
	seen := fmt.Sprintf("%s stopped, %s decides after %v, %s is held", was, now, round(took), t.hold.Token())
	if err := t.hold.Verify(ctx); err != nil {
		return seen, err
	}
	at := ""
	if err := t.await(ctx, "the guard to speak with another node", func() bool {
		at = t.region(t.front.node())
		return at != "" && at != was
	}); err != nil {
		return seen, err
	}
	return seen + fmt.Sprintf("; 2 lines taken by the guard, now at %s", at), t.writeAsRival(ctx)
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
	t.hold = hold
	seen := fmt.Sprintf("token %s, %v after the release", hold.Token(), round(t.clock.Now().Sub(released)))
	if hold.Token() <= t.second {
		return seen, fmt.Errorf("it is not above %s", t.second)
	}
	if seen, err = t.withProof(ctx, seen, hold.Token()); err != nil {
		return seen, err
	}
	if err := t.writeAsRival(ctx); err != nil {
		return seen, err
	}
	return seen, hold.Release(ctx)
}

func (t *teller) readFile(ctx context.Context) (string, error) {
	lines, err := readLines(ctx, t.front.url())
	if err != nil {
		return "", err
	}
	return t.compare("line", lines)
}

func (t *teller) readTable(ctx context.Context) (string, error) {
	rows, err := t.Database.readRows(ctx)
	if err != nil {
		return "", err
	}
	return t.compare("row", rows)
}

// compare shows what a storage holds, and checks that it is what it took: above all, nothing that it refused.
func (t *teller) compare(what string, lines []string) (string, error) {
	for _, line := range lines {
		t.say("   | %s", line)
	}
	seen := fmt.Sprintf("%d %ss in order, none refused is among them", len(lines), what)
	switch {
	case slices.Contains(lines, t.late.Line):
		return fmt.Sprintf("%d %ss", len(lines), what), fmt.Errorf("%q is among them, which was refused", t.late.Line)
	case !slices.Equal(lines, t.taken):
		return fmt.Sprintf("%d %ss", len(lines), what), fmt.Errorf("taken were %d: %q", len(t.taken), t.taken)
	}
	return seen, nil
}

// writeAsRival writes a line as whoever holds the lease now.
func (t *teller) writeAsRival(ctx context.Context) error {
	o, err := t.writer.write(ctx, t.hold)
	if err != nil {
		return err
	}
	return t.took(o)
}

// took notes a line that every storage should have taken.
func (t *teller) took(o outcome) error {
	switch {
	case !o.File.Taken:
		return fmt.Errorf("%q was refused by the guard: %v", o.Line, o.File)
	case t.hasRows() && o.Row == nil:
		return fmt.Errorf("%q was not inserted", o.Line)
	case t.hasRows() && !o.Row.Taken:
		return fmt.Errorf("%q was refused by the table: %v", o.Line, *o.Row)
	}
	t.taken = append(t.taken, o.Line)
	return nil
}

// withProof adds by which proofs a grant was made. Without that of the guard it was made too early.
func (t *teller) withProof(ctx context.Context, seen string, token fence.Token) (string, error) {
	info, err := t.rival.Get(ctx, resource, lease.GetOptions{})
	switch {
	case err != nil:
		return seen, err
	case info.Token != token:
		return seen, fmt.Errorf("the quorum says that %s is granted", info.Token)
	case len(info.Proofs) != 1 || info.Proofs[0] != (lease.Proof{Guard: guardName, How: lease.ProofAcked}):
		return seen, fmt.Errorf("the proofs of the grant are %v, and not that %s acknowledged it", info.Proofs, guardName)
	}
	return fmt.Sprintf("%s; proof: %s %v", seen, info.Proofs[0].Guard, info.Proofs[0].How), nil
}

// pass lets time pass.
func (t *teller) pass(ctx context.Context, until clock.Instant) error {
	timer := t.clock.NewTimer(until)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
