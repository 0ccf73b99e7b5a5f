//go:build unix

package postgres

import (
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

// ErrMissing means that there is no PostgreSQL here.
var ErrMissing = errors.New("no PostgreSQL 15 or newer: install Debian's package postgresql")

// As is what has to stand before a program and its arguments so that it runs as a user: none for nil.
func As(who *syscall.Credential) []string {
	if who == nil {
		return nil
	}
	return []string{"setpriv", fmt.Sprintf("--reuid=%d", who.Uid), fmt.Sprintf("--regid=%d", who.Gid), "--clear-groups", "--"}
}

// Find returns the directory of the newest suitable programs. Errors: [ErrMissing].
func Find() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Its companions stand beside the program itself.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", err
		}
		candidates = append(candidates, filepath.Dir(path))
	}
	packaged, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	slices.SortFunc(packaged, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(append(candidates, packaged...), "/usr/local/pgsql/bin") {
		out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		fields := strings.Fields(string(out)) // postgres (PostgreSQL) 15.18 (Debian …)
		major, _, _ := strings.Cut(fields[min(2, len(fields)-1)], ".")
		if n, err := strconv.Atoi(major); err == nil && n >= 15 {
			return dir, nil
		}
	}
	return "", ErrMissing
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
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}, nil
	}
	return nil, failed
}
