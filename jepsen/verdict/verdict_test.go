package verdict_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/jepsen/verdict"
)

func TestNothingIsKnownOfNothing(t *testing.T) {
	if got := verdict.Fold(); got != verdict.Unknown {
		t.Errorf("no verdicts are %v", got)
	}
	if got := verdict.Of(nil); got != verdict.Unknown {
		t.Errorf("no judgements are %v", got)
	}
}

// The worst counts, in whatever order, and an unknown one never turns into a pass or a failure.
func TestFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.SampledFrom([]verdict.Verdict{verdict.Unknown, verdict.Valid, verdict.Invalid}), 1, 6).Draw(t, "verdicts")
		want := verdict.Valid
		switch {
		case slices.Contains(all, verdict.Invalid):
			want = verdict.Invalid
		case slices.Contains(all, verdict.Unknown):
			want = verdict.Unknown
		}
		var judgements []verdict.Judgement
		for _, v := range all {
			judgements = append(judgements, verdict.Judgement{Verdict: v})
		}
		if got := verdict.Fold(all...); got != want || verdict.Of(judgements) != want {
			t.Fatalf("%v are %v, want %v", all, got, want)
		}
	})
}

func TestNames(t *testing.T) {
	for v, want := range map[verdict.Verdict]string{verdict.Unknown: "unknown", verdict.Valid: "valid", verdict.Invalid: "invalid", 9: "verdict 9"} {
		if v.String() != want {
			t.Errorf("%d is %q", v, v)
		}
	}
}
