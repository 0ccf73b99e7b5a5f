package etcd

import (
	"errors"
	"os"
	"testing"
)

// A member that has lost its data must not vote again under its old id.
func TestForgetfulMemberIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	for _, member := range c.members {
		eventually(t, "all members have published themselves", func() bool {
			for _, other := range c.members {
				if got := other.server.Cluster().Member(member.server.MemberID()); got == nil || len(got.ClientURLs) == 0 {
					return false
				}
			}
			return true
		})
	}
	forgetful := c.configs[2]
	if err := c.members[2].Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(forgetful.DataDir); err != nil {
		t.Fatal(err)
	}
	for _, join := range []bool{false, true} {
		forgetful.Join = join
		m, err := Open(testContext(t), forgetful)
		if err == nil {
			t.Errorf("join %v: started", join)
			_ = m.Close()
		} else if !errors.Is(err, ErrForgotten) {
			t.Errorf("join %v: got %v, want ErrForgotten", join, err)
		}
		if err := os.RemoveAll(forgetful.DataDir); err != nil {
			t.Fatal(err)
		}
	}
}
