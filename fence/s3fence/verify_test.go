package s3fence_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/writ-io/writ/fence/s3fence"
)

func TestVerifyFindsNothingWrong(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		report, err := s3fence.Verify(t.Context(), s3fence.VerifyConfig{Prefix: "app/", Rounds: 16}, store)
		if err != nil || report.Err() != nil {
			t.Fatal(err, report.Err())
		}
		if len(report.Findings) != 9 || report.Races < 48 {
			t.Fatalf("looked too little: %+v", report)
		}
		if left := keysOf(t, store, ""); len(left) != 0 {
			t.Fatalf("left %q", left)
		}
	})
}

func TestVerifyFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		store *memory
		want  []s3fence.Check
	}{
		"writes over what exists":  {&memory{ignoreAbsent: true}, []s3fence.Check{s3fence.CheckCreate, s3fence.CheckCreateRace}},
		"writes over what changed": {&memory{ignoreMatch: true}, []s3fence.Check{s3fence.CheckMatch, s3fence.CheckMatchRace}},
		"creates on an ETag":       {&memory{createOnMatch: true}, []s3fence.Check{s3fence.CheckMatchMissing}},
		"one ETag for all":         {&memory{constantETag: true}, []s3fence.Check{s3fence.CheckETag}},
		"forgets metadata":         {&memory{noMetadata: true}, []s3fence.Check{s3fence.CheckMetadata}},
		"checks, then acts":        {&memory{checkThenAct: true}, []s3fence.Check{s3fence.CheckCreateRace, s3fence.CheckMatchRace}},
		"old bodies, new ETags":    {&memory{torn: true}, []s3fence.Check{s3fence.CheckReadRace}},
		"does not list":            {&memory{lateList: true}, []s3fence.Check{s3fence.CheckReadAfterWrite}},
	} {
		c.store.objects = newMemory().objects
		report, err := s3fence.Verify(t.Context(), s3fence.VerifyConfig{}, c.store)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var broken []s3fence.Check
		for _, f := range report.Findings {
			if f.Broken != "" {
				broken = append(broken, f.Check)
			}
		}
		for _, check := range c.want {
			if !slices.Contains(broken, check) {
				t.Errorf("%s: found %v, want %v", name, broken, c.want)
			}
		}
		if !errors.Is(report.Err(), s3fence.ErrUnsafe) {
			t.Errorf("%s: %v", name, report.Err())
		}
	}
}

// Two storages are not two entry points of one.
func TestVerifyTwoBuckets(t *testing.T) {
	report, err := s3fence.Verify(t.Context(), s3fence.VerifyConfig{}, newMemory(), newMemory())
	if err != nil || !errors.Is(report.Err(), s3fence.ErrUnsafe) {
		t.Fatal(err, report.Err())
	}
}

func TestVerifyRefusesBadConfig(t *testing.T) {
	for _, cfg := range []s3fence.VerifyConfig{{Prefix: "no slash"}, {Rounds: -1}, {Rivals: 1}, {Rivals: -2}} {
		if _, err := s3fence.Verify(t.Context(), cfg, newMemory()); !errors.Is(err, s3fence.ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := s3fence.Verify(t.Context(), s3fence.VerifyConfig{}); !errors.Is(err, s3fence.ErrInvalid) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s3fence.Verify(ctx, s3fence.VerifyConfig{}, newMemory()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// twoGateways starts two processes over one directory.
func twoGateways(t *testing.T, flags ...string) (stores []s3fence.Store) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts two S3 servers; left out with -short")
	}
	dir, err := os.MkdirTemp(workplace, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	bucket := ""
	for range 2 {
		g, err := launch(dir, flags...)
		if err != nil {
			unavailable(t, err)
		}
		t.Cleanup(g.stop)
		if bucket == "" {
			bucket = g.bucket(t)
		}
		stores = append(stores, storeOf(t, g.client, bucket))
	}
	return stores
}

// As it comes, versitygw locks between processes, too.
func TestTwoGatewaysOverOneDirectory(t *testing.T) {
	report, err := s3fence.Verify(t.Context(), s3fence.VerifyConfig{Rounds: 100}, twoGateways(t)...)
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
}
