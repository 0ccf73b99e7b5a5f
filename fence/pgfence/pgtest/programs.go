//go:build unix

package pgtest

import (
	"errors"
	"os"
	"testing"

	"github.com/writ-io/writ/fence/pgfence/pgprograms"
)

// Programs returns the directory of PostgreSQL's programs, and what has to stand before each so that it does not run as root,
// for tests that start servers of their own. It makes dir the property of whom they run as.
func Programs(t testing.TB, dir string) (bin string, as []string) {
	t.Helper()
	bin, _, err := pgprograms.Find(t.Context())
	if errors.Is(err, pgprograms.ErrMissing) && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	who, err := pgprograms.User()
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	if who == nil {
		return bin, nil
	}
	if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
		t.Fatal("pgtest: ", err)
	}
	return bin, pgprograms.As(who)
}
