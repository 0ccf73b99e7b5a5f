package etcd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/writ-io/writ/quorum"
)

func TestEntryKeepsDeletesApart(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("k"), ModRevision: 7}
	if e := entry(&mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}); e.Value != nil || e.Key != "k" || e.Revision != 7 {
		t.Errorf("a delete is %+v", e)
	}
	if e := entry(&mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}); e.Value == nil {
		t.Errorf("a put of nothing is %+v", e)
	}
}

// A follower that was away longer than the leader keeps its log gets the leader's snapshot. Its watch sees no gap.
func TestWatchAcrossASnapshotOfTheLeader(t *testing.T) {
	const commits = 400
	log := &recorder{}
	c := newCluster(t, 3, func(cfg *Config) { cfg.SnapshotCount, cfg.Logger = 20, log.logger(hclog.Debug) })
	leader := c.leader()
	term := claim(t, leader)
	cut := slices.IndexFunc(c.members, func(m *Member) bool { return m != leader })
	follower := c.members[cut]
	if err := follower.Confirm(testContext(t), term); err != nil {
		t.Fatal(err)
	}
	var got []int64
	ended := make(chan error, 1)
	go func() {
		ended <- follower.Watch(testContext(t), int64(term), func(change quorum.Change) bool {
			got = append(got, change.Revision)
			return len(got) < commits+1
		})
	}()
	heal := c.isolate(cut)
	for n := range commits {
		commit(t, leader, term, write("a", fmt.Sprint(n)))
	}
	heal()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for i, revision := range got {
		if revision != int64(term)+int64(i) {
			t.Fatalf("change %d is revision %d, want %d", i, revision, int64(term)+int64(i))
		}
	}
	// Without this the test shows nothing.
	eventually(t, "the follower says that it applied a snapshot", func() bool {
		return strings.Contains(log.String(), "applied snapshot")
	})
}
