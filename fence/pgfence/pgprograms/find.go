package pgprograms

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// oldest is the oldest version that package pgfence is tested with.
const oldest = 15

// ErrMissing means that no PostgreSQL that can be used is installed.
var ErrMissing = errors.New("no PostgreSQL 15 or newer is installed: install Debian's package postgresql")

// Find returns the directory of the newest suitable programs, and their version, such as 15.18. Errors: [ErrMissing].
func Find(ctx context.Context) (bin, version string, err error) {
	var candidates []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Its companions stand beside the program itself.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(path))
		}
	}
	packaged, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	number := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // or else it comes last
		return n
	}
	slices.SortFunc(packaged, func(a, b string) int { return number(b) - number(a) })
	for _, dir := range append(append(candidates, packaged...), "/usr/local/pgsql/bin") {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if version, ok := usable(string(out)); ok && err == nil {
			return dir, version, nil
		}
	}
	return "", "", ErrMissing
}

// usable reads what postgres --version says, such as "postgres (PostgreSQL) 15.18 (Debian …)"; ok is false if that
// is not a version to use.
func usable(text string) (version string, ok bool) {
	fields := strings.Fields(text)
	if len(fields) < 3 {
		return "", false
	}
	digits := len(fields[2]) - len(strings.TrimLeft(fields[2], "0123456789"))
	major, err := strconv.Atoi(fields[2][:digits]) // 17beta1 is one as well
	return fields[2], err == nil && major >= oldest
}

// As is what has to stand before a program and its arguments so that it runs as a user: none for nil. It takes util-linux.
func As(who *syscall.Credential) []string {
	if who == nil {
		return nil
	}
	return []string{"setpriv", fmt.Sprintf("--reuid=%d", who.Uid), fmt.Sprintf("--regid=%d", who.Gid), "--clear-groups", "--"}
}

// User returns whom root runs the server as, and nil for anybody else.
func User() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var failed error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, failed
}
