package quorumtest_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/quorumtest"
)

func TestThreeNodesGrant(t *testing.T) {
	c := quorumtest.Start(t, 3)
	for i := range 3 {
		err := c.Do(func(s *quorum.Service) error {
			start := time.Now()
			out, err := s.Acquire(t.Context(), lease.Acquire{
				Caller: lease.Caller{Principal: "p", Instance: "i"}, Resource: "a", RequestID: string(rune('a' + i)), TTL: time.Second,
			})
			if err != nil {
				return err
			}
			t.Log(out.Grant.Token, time.Since(start))
			return s.Release(t.Context(), lease.Release{Caller: lease.Caller{Principal: "p", Instance: "i"}, Ref: lease.Ref{Resource: "a", Token: out.Grant.Token}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
