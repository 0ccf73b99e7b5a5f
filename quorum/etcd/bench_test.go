package etcd

import (
	"fmt"
	"testing"

	"github.com/writ-io/writ/quorum"
)

// benchCluster is three members on the disk of this machine, flushing as in production.
func benchCluster(b *testing.B) (*Member, quorum.Term) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.UnsafeNoFsync = false })
	m := c.leader()
	return m, claim(b, m)
}

// BenchmarkCommit commits keys that are put one by one, and keys that are packed (see pack.go).
func BenchmarkCommit(b *testing.B) {
	for kind, prefix := range map[string]string{"plain": "test/", "packed": "lease/"} {
		for _, writes := range []int{1, 100, quorum.MaxCommitWrites} {
			b.Run(fmt.Sprint(kind, "/", writes), func(b *testing.B) {
				m, term := benchCluster(b)
				batch := make([]quorum.Write, writes)
				for i := range batch {
					batch[i] = quorum.Write{
						Key: fmt.Sprint(quorum.Prefix, prefix, i), Value: []byte("a value of some thirty characters")}
				}
				b.ReportAllocs()
				for b.Loop() {
					commit(b, m, term, batch...)
				}
			})
		}
	}
}

func BenchmarkConfirm(b *testing.B) {
	m, term := benchCluster(b)
	ctx := testContext(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Confirm(ctx, term); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	m, term := benchCluster(b)
	for page := range 5 {
		batch := make([]quorum.Write, 2000)
		for i := range batch {
			batch[i] = write(fmt.Sprint(page, "/", i), "a value of some thirty characters")
		}
		commit(b, m, term, batch...)
	}
	ctx := testContext(b)
	b.ReportAllocs()
	for b.Loop() {
		if entries, _, err := m.Load(ctx); err != nil || len(entries) < 10_000 {
			b.Fatal(len(entries), err)
		}
	}
}

// BenchmarkInspect reads the largest log that etcd keeps with DefaultSnapshotCount: some hundred megabytes.
func BenchmarkInspect(b *testing.B) {
	c := newCluster(b, 1)
	m := c.members[0]
	term := claim(b, m)
	value := make([]byte, 64<<10)
	const commits = 1600
	for range commits {
		commit(b, m, term, quorum.Write{Key: quorum.Prefix + "test/a", Value: value})
	}
	c.closeAll()
	b.SetBytes(commits * int64(len(value)))
	for b.Loop() {
		if _, err := Inspect(c.configs[0].DataDir); err != nil {
			b.Fatal(err)
		}
	}
}
