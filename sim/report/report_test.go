package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/sim/trace"
)

const ms = time.Millisecond

// lanes of the stories.
const (
	operator = iota
	n1
	n2
	n3
	c1
	c2
	c3
	storage
)

// story is a run with leases that are passed on between three clients.
type story struct {
	trace.Trace
	sequence uint64
}

func newStory(title string, length time.Duration) *story {
	return &story{Trace: trace.Trace{
		Title: title, Seed: 18446744073709551615, Hash: "9f2c1b7730aa41de", Simulated: length,
		Command: "writ sim replay " + title + ".txt",
		Lanes: []trace.Lane{
			{Name: "operator", Kind: trace.LaneOperator},
			{Name: "n1", Region: "eu", Kind: trace.LaneNode}, {Name: "n2", Region: "us-east", Kind: trace.LaneNode}, {Name: "n3", Region: "ap", Kind: trace.LaneNode},
			{Name: "c1", Region: "eu", Kind: trace.LaneClient}, {Name: "c2", Region: "us-east", Kind: trace.LaneClient}, {Name: "c3", Region: "ap", Kind: trace.LaneClient},
			{Name: "storage", Kind: trace.LaneStorage},
		},
	}}
}

func (s *story) event(at time.Duration, lane int, kind trace.EventKind, format string, args ...any) {
	s.Events = append(s.Events, trace.Event{At: at, Lane: lane, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (s *story) band(lane int, kind trace.BandKind, from, to time.Duration, text string) {
	s.Bands = append(s.Bands, trace.Band{Lane: lane, Kind: kind, From: from, To: to, Text: text})
}

// hold lets a client hold a resource for a while, and write every 400 ms.
func (s *story) hold(lane int, resource string, from, to time.Duration) uint64 {
	s.sequence++
	token, err := fence.NewToken(1, s.sequence)
	if err != nil {
		panic(err)
	}
	name := s.Lanes[lane].Name
	s.event(from-90*ms, lane, trace.EventRequest, "acquire %s, request q%d, ttl 10s", resource, s.sequence)
	s.event(from-40*ms, n1, trace.EventCommit, "grant %s to %s under %s", resource, name, token)
	s.event(from, lane, trace.EventAnswer, "%s granted under %s", resource, token)
	s.event(from, lane, trace.EventLease, "believes in %s until %v", resource, to)
	s.Beliefs = append(s.Beliefs, trace.Belief{Lane: lane, Resource: resource, Token: uint64(token), From: from, To: to})
	for at := from + 50*ms; at < to; at += 400 * ms {
		s.write(lane, resource, uint64(token), at, true)
	}
	s.event(to, lane, trace.EventLease, "believes in %s no more", resource)
	return uint64(token)
}

func (s *story) write(lane int, resource string, token uint64, at time.Duration, accepted bool) {
	s.Writes = append(s.Writes, trace.Write{Lane: lane, Resource: resource, Token: token, At: at, Accepted: accepted, Floor: token})
}

// stories are what a reader may be shown.
func stories() map[string]*trace.Trace {
	const second = time.Second
	clean := newStory("seed 7", 60*second)
	clean.band(n1, trace.BandLeader, 1200*ms, 60*second, "")
	clean.band(n1, trace.BandCoordinator, 1300*ms, 60*second, "term 3")
	clean.event(1300*ms, n1, trace.EventRole, "coordinator of term 3")
	for i := range 13 {
		at := time.Duration(i)*4*second + 2*second
		clean.hold(c1+i%3, "billing/nightly", at, at+3500*ms)
		clean.hold(c1+(i+1)%3, "r2", at+500*ms, at+2000*ms)
	}

	partition := newStory("partition-takeover", 60*second)
	partition.band(n1, trace.BandLeader, 1200*ms, 21*second, "")
	partition.band(n1, trace.BandCoordinator, 1300*ms, 22*second, "term 3")
	partition.band(n2, trace.BandLeader, 22*second, 60*second, "")
	partition.band(n2, trace.BandCoordinator, 22500*ms, 60*second, "term 9")
	partition.band(n1, trace.BandCut, 20*second, 35*second, "cut from n2 and n3")
	partition.band(n3, trace.BandDown, 40*second, 44*second, "crashed")
	partition.band(n3, trace.BandDisk, 44*second, 52*second, "flushes take 200ms longer")
	partition.band(n2, trace.BandClock, 48*second, 48*second, "wall clock jumped by -1h")
	partition.band(c1, trace.BandPaused, 24*second, 30*second, "paused")
	partition.event(20*second, n1, trace.EventFault, "cut n1 | n2 n3 for 15s")
	partition.event(22*second, n1, trace.EventRole, "gave up: no majority")
	partition.event(22500*ms, n2, trace.EventRole, "coordinator of term 9")
	partition.event(24*second, c1, trace.EventFault, "paused for 6s")
	partition.event(40*second, n3, trace.EventFault, "crashed for 4s")
	partition.event(50*second, operator, trace.EventOperator, "backup taken at revision 1200")
	old := partition.hold(c1, "r1", 18*second, 27*second)
	partition.hold(c2, "r1", 28500*ms, 36*second)
	partition.write(c1, "r1", old, 30100*ms, false)
	partition.write(c1, "r1", old, 30500*ms, false)
	partition.hold(c3, "r1", 37*second, 55*second)

	split := newStory("split-brain", 60*second)
	split.Bands = slices.Clone(partition.Bands)
	split.event(20*second, n1, trace.EventFault, "cut n1 | n2 n3 for 15s")
	first := split.hold(c1, "r1", 18*second, 31*second)
	split.hold(c2, "r1", 28500*ms, 36*second)
	split.write(c1, "r1", first, 33*second, false)
	split.hold(c3, "r2", 10*second, 40*second)
	split.Violations = []trace.Violation{
		{At: 28500 * ms, Invariant: "S4", Text: "c1 believes in r1 under 1.1 until 31s, and c2 under 1.2 since 28.5s"},
		{At: 28550 * ms, Invariant: "S1", Text: "the storage accepted 1.1 after 1.2"},
	}

	large := newStory("seed 99, large", 600*second)
	for i := range 6000 {
		at := time.Duration(i)*100*ms + 200*ms
		large.hold(c1+i%3, fmt.Sprint("r", i%4), at, at+300*ms)
	}
	for i := range 40 {
		at := time.Duration(i) * 15 * second
		large.band(n1+i%3, trace.BandCoordinator, at, at+15*second, fmt.Sprint("term ", i))
		large.band(n1+i%3, []trace.BandKind{trace.BandDown, trace.BandPaused, trace.BandCut, trace.BandDisk}[i%4], at+12*second, at+20*second, "")
	}
	return map[string]*trace.Trace{"clean": &clean.Trace, "partition": &partition.Trace, "split": &split.Trace, "large": &large.Trace}
}

func render(t *testing.T, story *trace.Trace) string {
	t.Helper()
	var page bytes.Buffer
	if err := HTML(&page, story); err != nil {
		t.Fatal(err)
	}
	return page.String()
}

var dataElement = regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>`)

// embedded is the data of a page as a browser reads it.
func embedded(t *testing.T, page string) view {
	t.Helper()
	found := dataElement.FindStringSubmatch(page)
	if found == nil {
		t.Fatal("the page has no data")
	}
	var v view
	if err := json.Unmarshal([]byte(found[1]), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// A page needs nothing but itself.
func TestPagesAreSelfContained(t *testing.T) {
	for name, story := range stories() {
		page := render(t, story)
		for _, foreign := range []string{"http://", "https://", "src=", "@import", "url(", "{{", "}}\n<"} {
			if strings.Contains(page, foreign) {
				t.Errorf("%s holds %q", name, foreign)
			}
		}
		for _, element := range []string{"<!doctype html>", `id="violations"`, `id="chart"`, `id="list"`, `id="legend"`, `role="listbox"`, "prefers-color-scheme: dark"} {
			if strings.Count(page, element) != 1 && element != "prefers-color-scheme: dark" {
				t.Errorf("%s holds %q %d times", name, element, strings.Count(page, element))
			}
		}
		if strings.Count(page, "<script") != 2 || strings.Count(page, "</script>") != 2 {
			t.Errorf("%s has other scripts than the data and its reader", name)
		}
	}
}

func TestView(t *testing.T) {
	v := embedded(t, render(t, stories()["split"]))
	if v.Seed != "18446744073709551615" || v.Simulated != int64(time.Minute) || !slices.Equal(v.Broken, []string{"S4", "S1"}) {
		t.Errorf("seed %s, simulated %d, broken %v", v.Seed, v.Simulated, v.Broken)
	}
	if len(v.Resources) != 2 || v.Resources[0].Name != "r1" || !slices.Equal(v.Resources[0].Tokens, []string{"1.1", "1.2"}) {
		t.Fatalf("resources %+v", v.Resources)
	}
	if want := [4]int64{c1, 0, int64(18 * time.Second), int64(31 * time.Second)}; v.Resources[0].Beliefs[0] != want {
		t.Errorf("belief %v", v.Resources[0].Beliefs[0])
	}
	if len(v.Events) != len(stories()["split"].Events) || !slices.IsSortedFunc(v.Events, func(a, b [4]any) int { return int(a[0].(float64) - b[0].(float64)) }) {
		t.Error("events are missing, or not in order")
	}
}

// Names and texts come from plans, which anybody may have written.
func TestHostileText(t *testing.T) {
	const hostile = "</script><script>alert(1)</script><!--<img onerror=alert(2)>&quot;'\u2028{{script}}"
	story := newStory(hostile, time.Minute)
	story.Hash, story.Command = hostile, hostile
	story.Lanes[1].Name, story.Lanes[1].Region = hostile, hostile
	story.band(n1, trace.BandDown, 0, time.Second, hostile)
	story.hold(c1, hostile, time.Second, 2*time.Second)
	story.event(time.Second, n1, trace.EventKind(hostile), "%s", hostile)
	story.Violations = []trace.Violation{{Invariant: hostile, Text: hostile}}
	page := render(t, &story.Trace)
	if strings.Count(page, "</script>") != 2 || strings.Contains(page, "<img") || strings.Contains(page, "<!--") {
		t.Error("text became markup")
	}
	if !strings.Contains(page, html.EscapeString(hostile)) {
		t.Error("the title is not there")
	}
	if v := embedded(t, page); v.Lanes[1].Name != hostile || v.Events[len(v.Events)-1][3] == "" || v.Resources[0].Name != hostile {
		t.Errorf("text was changed: %+v", v.Lanes)
	}
}

func TestAnEmptyTrace(t *testing.T) {
	v := embedded(t, render(t, &trace.Trace{}))
	if v.Simulated != int64(time.Second) || v.Lanes == nil || v.Resources == nil || v.Events == nil || v.Violations == nil {
		t.Errorf("a reader would stumble over %+v", v)
	}
}

// probe does in a browser what a reader may do, and leaves what came of it in the title.
const probe = `
const log = [];
const press = key => chart.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
press('+'); log.push(exact(seen.from) + '-' + exact(seen.to));
press('ArrowRight'); log.push(exact(seen.from));
press('v'); log.push(exact((seen.from + seen.to) / 2));
press('0'); log.push(exact(seen.to - seen.from));
press('n'); log.push(chosenOf.event);
show(0, 60e9); draw();
const paused = hits.find(h => h.text.startsWith('c1 paused')), at = chart.getBoundingClientRect();
chart.dispatchEvent(new PointerEvent('pointermove', { clientX: at.left + paused.x + 5, clientY: at.top + paused.y + 5, bubbles: true }));
log.push(el('tip').textContent.replace('\n', ', '));
el('text').value = 'r2'; filter(); log.push(el('count').textContent);
choose(9, true); log.push(el('count').textContent);
log.push(location.hash);
document.title = log.join('|');
`

func TestBrowserInteraction(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium")
	}
	page := render(t, stories()["split"])
	end := strings.LastIndex(page, "</script>")
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, []byte(page[:end]+probe+page[end:]), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=3000", "--window-size=1280,800", "--dump-dom", "file://"+file).Output()
	if err != nil {
		t.Skip("chromium does not run here: ", err)
	}
	_, title, _ := strings.Cut(string(out), "<title>")
	title, _, _ = strings.Cut(title, "</title>")
	const want = "15.000s-45.000s|18.000s|28.500s|1m00.000s|12|c1 paused, 24.000s – 30.000s (6 s)|5 of 16 events|16 of 16 events|#e9"
	if title != want {
		t.Errorf("the reader got\n%s\nwant\n%s", title, want)
	}
}

// keepVariable names a directory for the pages, for somebody to look at.
const keepVariable = "WRIT_TEST_PAGES"

// A browser opens every page without an error.
func TestBrowser(t *testing.T) {
	dir := os.Getenv(keepVariable)
	if dir == "" {
		dir = t.TempDir()
	}
	browser, err := exec.LookPath("chromium")
	for name, story := range stories() {
		page := strings.Replace(render(t, story), "<script>\n", "<script>\nonerror = m => { document.title = 'FAILED ' + m; };\n", 1)
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
				"--virtual-time-budget=3000", "--window-size=1280,800", "--dump-dom", "file://"+file+"#e3")
			out, err := cmd.Output()
			if err != nil {
				t.Skip("chromium does not run here: ", err)
			}
			dom := string(out)
			if strings.Contains(dom, "<title>FAILED") || !strings.Contains(dom, `id="row3"`) || !strings.Contains(dom, `aria-selected="true"`) {
				t.Errorf("the page did not open: %.400s", dom)
			}
			if broken := len(story.Violations) > 0; strings.Contains(dom, `<header class="bad">`) != broken {
				t.Error("the verdict is wrong")
			}
		})
	}
	if err != nil {
		t.Skip("no chromium")
	}
}
