package demo

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// oldestPostgres is the oldest version that package pgfence is tested with.
const oldestPostgres = 15

// findPostgres answers where the programs of the newest usable PostgreSQL are: in PATH, or where Debian and the source put
// them.
func findPostgres(ctx context.Context) (bin, version string, err error) {
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
		if version, ok := postgresVersion(string(out)); ok && err == nil {
			return dir, version, nil
		}
	}
	return "", "", ErrNoDatabase
}

// postgresVersion reads what postgres --version says, such as "postgres (PostgreSQL) 15.18 (Debian …)"; ok is false if that
// is not a version to use.
func postgresVersion(text string) (version string, ok bool) {
	fields := strings.Fields(text)
	if len(fields) < 3 {
		return "", false
	}
	digits := len(fields[2]) - len(strings.TrimLeft(fields[2], "0123456789"))
	major, err := strconv.Atoi(fields[2][:digits]) // 17beta1 is one as well
	return fields[2], err == nil && major >= oldestPostgres
}

// unprivileged answers whom root runs the server as, for it refuses to run as root; nil for anybody else.
func unprivileged() (*syscall.Credential, error) {
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
