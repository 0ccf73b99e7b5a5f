package etcd

import (
	"testing"

	"github.com/writ-io/writ/quorum/storetest"
)

func suite(members int) func(t *testing.T) storetest.Harness {
	return func(t *testing.T) storetest.Harness {
		t.Parallel() // most of a test's time is elections
		c := newCluster(t, members)
		h := storetest.Harness{Stores: c.stores(), Patience: patience, Isolate: c.isolate}
		h.Stop = func(i int) { c.members[i].server.HardStop() }
		h.Compact = c.members[0].Compact // goes through raft
		return h
	}
}

func TestStoreOfOneMember(t *testing.T)    { storetest.Run(t, suite(1)) }
func TestStoreOfThreeMembers(t *testing.T) { storetest.Run(t, suite(3)) }
