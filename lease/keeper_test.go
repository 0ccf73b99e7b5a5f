package lease

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

func TestKeeperConfigValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  KeeperConfig
		want string
	}{
		{KeeperConfig{Drift: clock.DefaultDrift()}, ""},
		{KeeperConfig{RenewPermille: 500, SpreadPermille: 200}, ""},
		{KeeperConfig{Drift: clock.Drift{PPM: -1}}, "drift"},
		{KeeperConfig{RenewPermille: 99}, "renewals at 99"},
		{KeeperConfig{RenewPermille: 501}, "renewals at 501"},
		{KeeperConfig{SpreadPermille: -1}, "spread over -1"},
		{KeeperConfig{SpreadPermille: 201}, "spread over 201"},
	} {
		_, err := NewKeeper(c.cfg)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

func TestKeeperRefusesASecondGrantOfAnID(t *testing.T) {
	keeper, err := NewKeeper(KeeperConfig{})
	if err != nil {
		t.Fatal(err)
	}
	grant := KeeperGranted{ID: 1, Ref: Ref{Resource: "a", Token: 1<<48 | 1}, TTL: time.Second, SentAt: keeperOrigin}
	keeper.Step(keeperOrigin, grant)
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	keeper.Step(keeperOrigin, grant)
}

// A message of long names must fit into what a server takes.
func TestRenewalsAreBoundedInBytes(t *testing.T) {
	keeper, err := NewKeeper(KeeperConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 9_000
	for i := range n {
		keeper.Step(keeperOrigin, KeeperGranted{
			ID:  KeeperID(i + 1),
			Ref: Ref{Resource: Resource(fmt.Sprintf("%0*d", MaxResourceBytes, i)), Token: fence.Token(1<<48 | i + 1)},
			TTL: time.Minute, SentAt: keeperOrigin,
		})
	}
	effects := keeper.Step(keeperOrigin.Add(20*time.Second), KeeperTick{})
	named := 0
	for _, r := range effects.Renewals {
		named += r.Len()
		var refs []Ref
		for i := range r.Len() {
			refs = append(refs, r.Ref(i))
		}
		if size := proto.Size(&writv1.RenewRequest{Leases: RefsToProto(refs)}); size > 3<<20 {
			t.Errorf("a renewal of %d leases has %d bytes", r.Len(), size)
		}
	}
	if named != n || len(effects.Renewals) < 2 {
		t.Fatalf("%d renewals name %d leases of %d", len(effects.Renewals), named, n)
	}
}

// One period of many leases: the tick, the answers, and the wake that finds nothing to retry.
func BenchmarkKeeperPeriod(b *testing.B) {
	for _, n := range []int{1_000, 50_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			keeper, err := NewKeeper(KeeperConfig{Drift: clock.DefaultDrift()})
			if err != nil {
				b.Fatal(err)
			}
			now := keeperOrigin
			for i := range n {
				keeper.Step(now, KeeperGranted{
					ID: KeeperID(i + 1), Ref: Ref{Resource: Resource(fmt.Sprintf("bench/resource-%06d", i)), Token: fence.Token(1<<48 | i + 1)},
					TTL: 10 * time.Second, SentAt: now,
				})
				now = now.Add(time.Microsecond)
			}
			b.ReportAllocs()
			for b.Loop() {
				now = max(now, keeper.wake())
				var renewals []Renewal
				for len(renewals) == 0 {
					effects := keeper.Step(now, KeeperTick{})
					renewals = append(renewals, effects.Renewals...)
					now = max(now, effects.Wake)
				}
				for _, r := range renewals {
					keeper.Step(r.SentAt.Add(5*time.Millisecond), KeeperRenewed{Renewal: r})
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(3.33e9)*100, "%core@ttl10s")
		})
	}
}
