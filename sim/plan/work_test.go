package plan

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const serviced = `writ-sim 1
node n1 region eu
client c1 region eu resources r1
work leader takes 30s stop 1s fails 10 stuck 20 preferred eu,us
work nightly every 10s catch-up all overlap buffer_one window 1m jitter 2s max 5 attempts 3 takes 2s
work queue partitions 8 homes eu,us takes 500ms
service s1 region eu works leader,nightly,queue
service s2 region us ppm -5 works queue ttl 8s grace 1s strict
at 1s for 1s deploy s1 s2
at 2s suspend nightly
at 3s resume nightly
at 4s trigger nightly
at 5s for 1s crash s1
`

func TestParseServices(t *testing.T) {
	p, err := Parse("serviced", []byte(serviced))
	if err != nil {
		t.Fatal(err)
	}
	works := []Work{
		{Name: "leader", Takes: 30 * time.Second, Stop: time.Second, Fails: 10, Stuck: 20, Preferred: []string{"eu", "us"}},
		{Name: "nightly", Every: 10 * time.Second, CatchUp: "all", Overlap: "buffer_one", Window: time.Minute, Jitter: 2 * time.Second, Max: 5, Attempts: 3, Takes: 2 * time.Second},
		{Name: "queue", Partitions: 8, Homes: []string{"eu", "us"}, Takes: 500 * time.Millisecond},
	}
	services := []Service{
		{Name: "s1", Region: "eu", Works: []string{"leader", "nightly", "queue"}, TTL: 5 * time.Second, Grace: 3 * time.Second},
		{Name: "s2", Region: "us", PPM: -5, Works: []string{"queue"}, TTL: 8 * time.Second, Grace: time.Second, Strict: true},
	}
	if !reflect.DeepEqual(p.Works, works) || !reflect.DeepEqual(p.Services, services) {
		t.Errorf("parsed\n%s", p)
	}
	if w := p.Work("queue"); w.HomeOf(2) != "eu" || w.HomeOf(3) != "us" || p.Work("leader").HomeOf(0) != "" || p.Work("x") != nil {
		t.Error("homes are not in turns, or works are not found")
	}
	roundTrip(t, p)
}

func TestMistakesAboutServices(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"work leader", "work Leader", "4:6: work Leader has no such name as a work has; use a word of lower case"},
		{"work leader", "work r1", "4:6: work r1 has the name of a resource that others take; let clients and groups take other resources"},
		{"work queue", "work leader", "6:6: work leader is there twice; give each a name of its own"},
		{"client c1", "rule lead\nclient c1", "5:6: work leader is guarded, and its storage compares tokens; let rules guard other resources"},
		{"resources r1", "resources queue/p/00001", "6:6: work queue has the name of a resource that others take; let clients and groups take other resources"},
		{"every 10s", "every 1500ms", "5:20: every of work nightly is 1.5s; use whole seconds, such as 10s"},
		{"every 10s ", "", "5:1: work nightly has a policy, and no slots; add every and a duration, such as every 10s"},
		{"every 10s", "every 10s partitions 2", "5:35: partitions of work nightly are set, and it is a cron job; leave it out, or every"},
		{"overlap buffer_one", "overlap all", `5:1: work nightly has a policy that cannot be: INVALID: overlap is "all"; use skip, buffer_one or cancel_other; change that`},
		{"partitions 8", "partitions 65", "6:23: partitions of work queue is 65; use 0 to 64"},
		{"partitions 8 ", "", "6:18: homes of work queue are named, and there are no partitions; leave them out"},
		{"homes eu,us", "homes eu,us preferred eu", "6:47: preferred of work queue are named, and consumers have none; leave them out, or name homes"},
		{"homes eu,us", "homes eu,,us", `6:31: homes of work queue hold ""; name up to 16 regions`},
		{"stuck 20", "stuck 1001", "4:46: stuck of work leader is 1001; use 0 to 1000"},
		{"service s1", "service x1", "7:9: service x1 has no such name as a service has; use a word that starts with s, such as s1"},
		{"service s2", "service storage", "8:9: service storage has the name of an actor that there is anyway; give it another name, such as s1"},
		{"works leader,", "works chief,", `7:28: works of service s1 hold "chief"; name works that there are, each once`},
		{"ttl 8s", "ttl 2m", "8:45: ttl of service s2 is 2m; use 1s to 1m, which is max-ttl"},
		{"grace 1s", "grace 1ms", "8:54: grace of service s2 is 1ms; use 10ms to 1h"},
		{"deploy s1 s2", "deploy n1", `9:21: deploy at 1s names "n1", which is no service; name a service`},
		{"suspend nightly", "suspend queue", `10:15: suspend at 2s names the job "queue", which there is not; name a cron job`},
	} {
		text := strings.Replace(serviced, c.from, c.to, 1)
		if _, err := Parse("f", []byte(text)); err == nil || err.Error() != "f:"+c.want {
			t.Errorf("%q instead of %q:\ngot  %v\nwant f:%s", c.to, c.from, err, c.want)
		}
	}
}

func TestDrawnServicesAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := DrawOptions{Duration: time.Duration(rapid.IntRange(1, 3600).Draw(t, "duration")) * time.Second, Singletons: true}
		p := Draw(rapid.Uint64().Draw(t, "seed"), checked{t}, o)
		if err := p.Validate(); err != nil {
			t.Fatalf("%v in\n%s", err, p)
		}
		roundTrip(t, p)
	})
}

// A plan shrinks to the service and the work that matter.
func TestShrinkServices(t *testing.T) {
	p, err := Parse("serviced", []byte(serviced))
	if err != nil {
		t.Fatal(err)
	}
	small := Shrink(p, func(p Plan) bool {
		w := p.Work("nightly")
		return w != nil && w.Attempts == 3
	}, 500)
	if len(small.Works) != 1 || len(small.Services) != 1 || len(small.Faults) != 0 || small.Works[0].Jitter != 0 {
		t.Errorf("left is\n%s", small)
	}
	roundTrip(t, small)
}
