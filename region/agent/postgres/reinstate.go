package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// reinstating is one run of the hook.
type reinstating struct {
	*Server
	task   *writv1.Task
	say    *strings.Builder
	source string // DSN of the new primary
	ahead  state  // its state
	keep   string // where this task's remains go

	entries []string
}

// reinstate makes this server follow the new primary, and answers what only it had. A task that names this region as the
// primary is the end of a rollback: the server takes writes again.
func (s *Server) reinstate(ctx context.Context, task *writv1.Task, say *strings.Builder) (*writv1.Position, []string, error) {
	if s.cfg.Region != "" && task.GetTo() == s.cfg.Region {
		return s.undrain(ctx, task, say)
	}
	if err := s.reinstatable(task.GetTo()); err != nil {
		return nil, nil, err
	}
	r := &reinstating{
		Server: s, task: task, say: say, source: s.cfg.Sources[task.GetTo()],
		keep: keepOf(s.cfg.KeepDir, task.GetPromotion(), task.GetStep()),
	}
	position, err := r.run(ctx)
	return position, r.entries, err
}

func (r *reinstating) run(ctx context.Context) (*writv1.Position, error) {
	if err := r.lookAhead(ctx); err != nil {
		return nil, err
	}
	if err := r.recall(); err != nil {
		return nil, err
	}
	if at, err := r.follows(ctx); err == nil {
		tell(r.say, "it follows the new primary already")
		return at, nil
	}
	if r.moved() {
		// A run before has moved the data away and was ended.
		if err := r.reseed(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.stop(ctx, r.say); err != nil {
		return nil, err
	}
	if err := r.bringConfig(); err != nil {
		return nil, err
	}
	own, err := r.control(ctx)
	if err != nil {
		return nil, err
	}
	if own.system != r.ahead.system {
		return nil, fmt.Errorf("this server is of system %s, the new primary of %s: they are not of one cluster; look before you copy over it", own.system, r.ahead.system)
	}
	if own.timeline != r.ahead.timeline {
		if err := r.keepTail(ctx, own); err != nil {
			return nil, err
		}
		if err := r.goBack(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.follow(r.cfg.DataDir); err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	var at *writv1.Position
	err = until(ctx, "waiting for it to follow the new primary", func() (bool, error) {
		at, err = r.follows(ctx)
		return err == nil, err
	})
	if err == nil {
		tell(r.say, "it follows the new primary, and is at %s", at.GetText())
	}
	return at, err
}

// entriesFile keeps what was lost for a run after one that was ended.
const entriesFile = "lost.txt"

// recall reads what the last run before has found, in this step or an older one of the promotion.
func (r *reinstating) recall() error {
	keeps, err := r.keeps()
	if err != nil {
		return err
	}
	for _, dir := range keeps {
		data, err := os.ReadFile(filepath.Join(dir, entriesFile))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		r.entries = strings.FieldsFunc(string(data), func(c rune) bool { return c == '\n' })
		return err
	}
	return nil
}

// keeps lists where the runs of this promotion up to this step have kept what they found, the newest first.
func (r *reinstating) keeps() (dirs []string, err error) {
	all, err := os.ReadDir(r.cfg.KeepDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("keep_dir: %w", err)
	}
	var steps []uint64
	for _, e := range all {
		if number, ok := strings.CutPrefix(e.Name(), r.task.GetPromotion()+"-"); ok {
			if step, err := strconv.ParseUint(number, 10, 64); err == nil && step <= r.task.GetStep() {
				steps = append(steps, step)
			}
		}
	}
	slices.Sort(steps)
	for _, step := range slices.Backward(steps) {
		dirs = append(dirs, keepOf(r.cfg.KeepDir, r.task.GetPromotion(), step))
	}
	return dirs, nil
}

// keepOf is where a step keeps what it finds.
func keepOf(top, promotion string, step uint64) string {
	return filepath.Join(top, fmt.Sprintf("%s-%d", promotion, step))
}

// remember keeps what was found on disk, before the data is changed.
func (r *reinstating) remember() error {
	return writeFile(filepath.Join(r.keep, entriesFile), []byte(strings.Join(r.entries, "\n")+"\n"))
}

// moved reports whether the old data has been moved away and the copy has not taken its place.
func (r *reinstating) moved() bool {
	_, kept := os.Stat(filepath.Join(r.keep, "data"))
	_, here := os.Stat(filepath.Join(r.cfg.DataDir, "global", "pg_control"))
	return kept == nil && here != nil
}

// lookAhead asks the new primary where it is. Its control file has to tell the timeline to pg_rewind, which a checkpoint does.
func (r *reinstating) lookAhead(ctx context.Context) error {
	return with(ctx, r.source, false, func(conn *pgx.Conn) (err error) {
		if r.ahead, err = where(ctx, conn); err != nil {
			return fmt.Errorf("the new primary: %w", err)
		}
		if r.ahead.recovering {
			return errors.New("the server of the new primary's region is a standby: has it been promoted?")
		}
		_, err = conn.Exec(ctx, "checkpoint")
		return err
	})
}

// follows answers where this server is if it streams from the new primary's timeline.
func (r *reinstating) follows(ctx context.Context) (at *writv1.Position, err error) {
	err = with(ctx, r.cfg.DSN, false, func(conn *pgx.Conn) error {
		st, err := where(ctx, conn)
		if err != nil {
			return err
		}
		var streaming bool
		if err := conn.QueryRow(ctx, "select exists (select from pg_stat_wal_receiver where status = 'streaming')").Scan(&streaming); err != nil {
			return err
		}
		if !st.recovering || !streaming || st.timeline != r.ahead.timeline || st.system != r.ahead.system {
			return fmt.Errorf("recovering: %v, streaming: %v, timeline %d of %s", st.recovering, streaming, st.timeline, st.system)
		}
		at = st.proto()
		return nil
	})
	return at, err
}

// goBack puts the data back to what the new primary has, by pg_rewind or by a new copy.
func (r *reinstating) goBack(ctx context.Context) error {
	if r.cfg.Method != Reseed {
		err := r.rewind(ctx)
		if err == nil || r.cfg.Method == Rewind || ctx.Err() != nil {
			return err
		}
		tell(r.say, "pg_rewind does not work, so a new copy is made: %v", err)
	}
	return r.reseed(ctx)
}

// seconds is how long a program may take, for its own option.
func seconds(ctx context.Context) string {
	left := 60
	if deadline, ok := ctx.Deadline(); ok {
		left = max(1, int(time.Until(deadline).Seconds()))
	}
	return fmt.Sprint(left)
}
