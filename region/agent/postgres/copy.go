package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configFiles are a server's own, which the data of another one brings along.
var configFiles = []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf"}

// awayDir is below keep while the configuration in the data directory may be the other server's.
const awayDir = "config"

// rewind puts the data back by pg_rewind, which leaves a standby: nobody who starts it too early makes a primary of it.
func (r *reinstating) rewind(ctx context.Context) error {
	// Kept on disk first: a run that ends in the middle must not leave the other server's behind.
	if err := r.keepConfig(); err != nil {
		return err
	}
	out, err := r.program(ctx, "pg_rewind", "--target-pgdata="+r.cfg.DataDir, "--source-server="+r.source, "--write-recovery-conf")
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	} else {
		tell(r.say, "rewound to where the new primary left")
	}
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, r.bringConfig())
}

// keepConfig keeps the server's own configuration.
func (r *reinstating) keepConfig() error {
	to := filepath.Join(r.keep, awayDir)
	temporary := to + ".new"
	if err := errors.Join(os.RemoveAll(temporary), os.MkdirAll(temporary, 0o700)); err != nil {
		return err
	}
	if err := copyConfig(r.cfg.DataDir, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}

// bringConfig puts the server's own configuration back where this run, or one that was ended, may have replaced it.
func (r *reinstating) bringConfig() error {
	keeps, err := r.keeps()
	if err != nil {
		return err
	}
	for _, dir := range keeps {
		from := filepath.Join(dir, awayDir)
		if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := copyConfig(from, r.cfg.DataDir); err != nil {
			return err
		}
		back := from + ".back"
		if err := errors.Join(os.RemoveAll(back), os.Rename(from, back)); err != nil {
			return err
		}
	}
	return nil
}

// copyConfig copies those files of a configuration that there are.
func copyConfig(from, to string) error {
	for _, name := range configFiles {
		target := filepath.Join(to, name)
		err := copyFile(filepath.Join(from, name), target)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		if err := ownLike(target, to); err != nil {
			return err
		}
	}
	return nil
}

// reseed makes a new copy beside the data, and has it take the data's place when it is whole and a standby. So a run that ends in
// the middle leaves nothing behind that could be started: half a copy, or a whole one that takes itself for a primary.
func (r *reinstating) reseed(ctx context.Context) error {
	if outside, err := os.ReadDir(filepath.Join(r.cfg.DataDir, "pg_tblspc")); err == nil && len(outside) > 0 {
		return fmt.Errorf("there are tablespaces outside of %s: make the copy by hand, then resume", r.cfg.DataDir)
	}
	like := r.cfg.DataDir
	if r.moved() {
		like = filepath.Join(r.keep, "data")
	}
	fresh, err := r.copyAnew(ctx, like)
	if err != nil {
		return err
	}
	tell(r.say, "copied anew from the new primary")
	if err := r.putAside(); err != nil {
		return err
	}
	return os.Rename(fresh, r.cfg.DataDir)
}

// copyAnew makes a copy of the new primary with the configuration and the owner of a data directory, and answers where. Each
// run's has a name of its own: what is left of a run before may go on writing to its.
func (r *reinstating) copyAnew(ctx context.Context, like string) (dir string, err error) {
	prefix := filepath.Base(r.cfg.DataDir) + ".copy-"
	beside, err := os.ReadDir(filepath.Dir(r.cfg.DataDir))
	if err != nil {
		return "", err
	}
	for _, half := range slices.DeleteFunc(beside, func(e os.DirEntry) bool { return !strings.HasPrefix(e.Name(), prefix) }) {
		if err := os.RemoveAll(filepath.Join(filepath.Dir(r.cfg.DataDir), half.Name())); err != nil {
			tell(r.say, "what is left of a copy that was not finished stays: %v", err)
		}
	}
	if dir, err = os.MkdirTemp(filepath.Dir(r.cfg.DataDir), prefix+"*"); err != nil {
		return "", err
	}
	if err := ownLike(dir, like); err != nil {
		return "", err
	}
	if out, err := r.program(ctx, "pg_basebackup", "--pgdata="+dir, "--dbname="+r.source, "--wal-method=stream", "--checkpoint=fast"); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, errors.Join(copyConfig(like, dir), r.follow(dir))
}

// putAside moves the old data to where it is kept.
func (r *reinstating) putAside() error {
	if err := os.MkdirAll(r.keep, 0o700); err != nil {
		return fmt.Errorf("keep_dir: %w", err)
	}
	aside := filepath.Join(r.keep, "data")
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			break
		}
		aside = filepath.Join(r.keep, fmt.Sprintf("data.%d", n)) // of a run before
	}
	err := os.Rename(r.cfg.DataDir, aside)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the old data cannot be moved away: %w: keep_dir has to be on the file system of data_dir", err)
	}
	tell(r.say, "the old data is in %s", aside)
	return nil
}

// follow makes the server of a data directory a standby of the new primary at its next start.
func (r *reinstating) follow(dir string) error {
	path := filepath.Join(dir, "postgresql.auto.conf")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var text strings.Builder
	for line := range strings.Lines(string(old)) {
		name, _, _ := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); name != "primary_conninfo" && name != "primary_slot_name" && name != "recovery_target_timeline" {
			text.WriteString(line)
		}
	}
	quote := func(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }
	fmt.Fprintf(&text, "primary_conninfo = %s\nrecovery_target_timeline = 'latest'\n", quote(r.source))
	if r.cfg.Slot != "" {
		fmt.Fprintf(&text, "primary_slot_name = %s\n", quote(r.cfg.Slot))
	}
	for _, f := range []struct{ path, text string }{{path, text.String()}, {filepath.Join(dir, "standby.signal"), ""}} {
		if err := writeFile(f.path, []byte(f.text)); err != nil {
			return err
		}
		if err := ownLike(f.path, dir); err != nil {
			return err
		}
	}
	return nil
}
