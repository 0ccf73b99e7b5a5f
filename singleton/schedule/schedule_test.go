package schedule

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones are the same wherever the tests run
)

func mustParse(t testing.TB, spec string) *Schedule {
	t.Helper()
	s, err := Parse(spec, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestNext(t *testing.T) {
	for _, test := range []struct {
		spec, after string
		want        string // slots, separated by blanks
	}{
		{"30 2 * * *", "2026-11-22T02:29:59Z", "2026-11-22T02:30:00Z 2026-11-23T02:30:00Z"},
		{"30 2 * * *", "2026-11-22T02:30:00Z", "2026-11-23T02:30:00Z"},
		{"*/20 5 * * * *", "2026-11-22T02:04:00Z", "2026-11-22T02:05:00Z 2026-11-22T02:05:20Z 2026-11-22T02:05:40Z 2026-11-22T03:05:00Z"},
		{"0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"}, // 2100 has none
		{"0 12 L * ?", "2027-01-31T12:00:00Z", "2027-02-28T12:00:00Z 2027-03-31T12:00:00Z"},
		{"0 12 1,L * ?", "2027-01-31T12:00:00Z", "2027-02-01T12:00:00Z 2027-02-28T12:00:00Z"},
		{"0 0 13 * FRI", "2026-11-12T00:00:00Z", "2026-11-13T00:00:00Z 2026-11-20T00:00:00Z 2026-11-27T00:00:00Z 2026-12-04T00:00:00Z 2026-12-11T00:00:00Z 2026-12-13T00:00:00Z"},
		{"0 0 * * 7", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"0 0 * * 5-7", "2026-11-22T00:00:00Z", "2026-11-27T00:00:00Z 2026-11-28T00:00:00Z 2026-11-29T00:00:00Z"},
		{"0 0 * * */2", "2026-11-22T00:00:00Z", "2026-11-24T00:00:00Z 2026-11-26T00:00:00Z 2026-11-28T00:00:00Z 2026-11-29T00:00:00Z"},
		{"20/20 4 1 jan,Dec *", "2026-11-22T00:00:00Z", "2026-12-01T04:20:00Z 2026-12-01T04:40:00Z 2027-01-01T04:20:00Z"},
		{"@hourly", "2026-11-22T00:00:00Z", "2026-11-22T01:00:00Z"},
		{"@weekly", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"@annually", "2026-11-22T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"@every 90s", "1970-01-01T00:00:00Z", "1970-01-01T00:01:30Z 1970-01-01T00:03:00Z"},
		{"@every 90s", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"},
		{"@every 7h", "2026-11-22T00:00:00Z", "2026-11-22T05:00:00Z 2026-11-22T12:00:00Z"},
		{"CRON_TZ=Asia/Kathmandu 0 0 * * *", "2026-11-22T00:00:00Z", "2026-11-22T18:15:00Z"},
		{"TZ=Asia/Kathmandu\t0 0 * * *", "2026-11-22T00:00:00Z", "2026-11-22T18:15:00Z"},
		// New York skips 02:00 to 03:00 on 8 March 2026 at 07:00Z, and shows 01:00 to 02:00 twice on 1 November, from 05:00Z.
		{"TZ=America/New_York 30 2 * * *", "2026-03-08T00:00:00-05:00", "2026-03-08T07:00:00Z 2026-03-09T06:30:00Z"},
		{"TZ=America/New_York 0,30 2,3 * * *", "2026-03-08T00:00:00-05:00", "2026-03-08T07:00:00Z 2026-03-08T07:30:00Z 2026-03-09T06:00:00Z"},
		{"TZ=America/New_York 30 1 * * *", "2026-11-01T00:00:00-04:00", "2026-11-01T05:30:00Z 2026-11-02T06:30:00Z"},
		{"TZ=America/New_York 30 1 * * *", "2026-11-01T06:00:00Z", "2026-11-02T06:30:00Z"},
		{"TZ=America/New_York 30 * * * *", "2026-11-01T05:00:00Z", "2026-11-01T05:30:00Z 2026-11-01T06:30:00Z 2026-11-01T07:30:00Z"},
		{"TZ=America/New_York 30 * * * *", "2026-03-08T06:00:00Z", "2026-03-08T06:30:00Z 2026-03-08T07:30:00Z"},
		// Lord Howe's clock moves by half an hour: it skips 02:00 to 02:30 on 4 October 2026 at 15:30Z.
		{"TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		// Samoa had no 30 December 2011.
		{"TZ=Pacific/Apia 0 12 30 12 *", "2011-01-01T00:00:00Z", "2011-12-30T10:00:00Z 2012-12-29T22:00:00Z"},
		// Juneau's clock was set back by a day on 19 October 1867, at 00:31Z: its second noon of the 19th does not count.
		{"TZ=America/Juneau 0 12 * * *", "1867-10-17T00:00:00Z", "1867-10-17T20:57:41Z 1867-10-18T20:57:41Z 1867-10-20T20:57:41Z"},
	} {
		s := mustParse(t, test.spec)
		at := instant(t, test.after)
		for want := range strings.SplitSeq(test.want, " ") {
			next, ok := s.Next(at)
			if !ok || !next.Equal(instant(t, want)) {
				t.Errorf("%s: Next(%s) = %s, %v, want %s", test.spec, at.Format(time.RFC3339), next.UTC().Format(time.RFC3339), ok, want)
			}
			at = next
		}
	}
}

func TestNextEndsWithTheYear9999(t *testing.T) {
	for _, spec := range []string{"* * * * * *", "0 0 1 1 *", "0 0 29 2 *", "@every 1s", "TZ=Pacific/Kiritimati 0 * * * *", "TZ=Etc/GMT+12 0 5 * * *"} {
		s := mustParse(t, spec)
		for _, after := range []time.Time{
			time.Date(9999, 12, 31, 23, 59, 59, 0, s.Zone()), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).Add(24 * time.Hour),
			time.Date(200000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<60, 0),
		} {
			if next, ok := s.Next(after); ok {
				t.Errorf("%s: Next(%s) = %s", spec, after, next)
			}
		}
		for _, after := range []time.Time{{}, time.Unix(-1<<60, 0), time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)} {
			next, ok := s.Next(after)
			if !ok || next.Year() > 8 {
				t.Errorf("%s: Next(%s) = %s, %v", spec, after, next, ok)
			}
		}
	}
}

func TestLatest(t *testing.T) {
	s := mustParse(t, "*/7 2 * * *")
	day := instant(t, "2026-11-22T00:00:00Z")
	for _, test := range []struct {
		after, until time.Duration
		want         time.Duration // 0: none
	}{
		{0, time.Hour, 0},
		{0, 2 * time.Hour, 2 * time.Hour},
		{2 * time.Hour, 2*time.Hour + 6*time.Minute, 0},
		{0, 2*time.Hour + 6*time.Minute, 2 * time.Hour},
		{0, 12 * time.Hour, 2*time.Hour + 56*time.Minute},
		{0, 240*time.Hour + 2*time.Hour + 7*time.Minute, 242*time.Hour + 7*time.Minute},
		{5 * time.Hour, time.Hour, 0},
	} {
		got, ok := s.Latest(day.Add(test.after), day.Add(test.until))
		if ok != (test.want != 0) || ok && !got.Equal(day.Add(test.want)) {
			t.Errorf("Latest(%s, %s) = %s, %v, want %s", test.after, test.until, got, ok, test.want)
		}
	}
	if got, ok := s.Latest(time.Unix(-1<<60, 0), time.Unix(1<<60, 0)); !ok || got.Year() != 9999 {
		t.Errorf("Latest of everything = %s, %v", got, ok)
	}
}

func TestString(t *testing.T) {
	for spec, want := range map[string]string{
		" CRON_TZ=Europe/Berlin  5  4 * * * ": "CRON_TZ=Europe/Berlin 5 4 * * *",
		"@daily":                              "CRON_TZ=UTC @daily",
	} {
		s := mustParse(t, spec)
		if s.String() != want {
			t.Errorf("%q reads as %q, want %q", spec, s, want)
		}
		if again := mustParse(t, s.String()); again.String() != want || again.fields != s.fields || again.elapsing != s.elapsing {
			t.Errorf("%q reads as %+v and again as %+v", spec, s, again)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, spec := range []string{"* * * * *", "TZ=Europe/Berlin */5 * * * *", "TZ=America/New_York 30 2 * * *", "TZ=Europe/Berlin 0 0 29 2 *"} {
		b.Run(strings.ReplaceAll(spec, " ", "_"), func(b *testing.B) {
			s := mustParse(b, spec)
			at := instant(b, "2026-11-22T00:00:00Z")
			for b.Loop() {
				if next, ok := s.Next(at); ok {
					at = next
				}
				if at.Year() > 2200 {
					at = instant(b, "2026-11-22T00:00:00Z")
				}
			}
		})
	}
}
