package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/sim"
)

// table prints a table in Markdown.
func table(title string, head []string, rows [][]string) {
	fmt.Printf("%s\n\n| %s |\n|%s\n", title, strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
	fmt.Println()
}

// latencyTables show what each region sees.
func latencyTables(row []*sim.FleetResult) {
	f := row[0].Fleet
	clients := number(float64(f.Processes + f.Contended*len(sim.FleetRegions())))
	for _, what := range []struct {
		name string
		of   func(*sim.FleetResult) []sim.Latency
	}{
		{"Acquire, nobody contends", func(r *sim.FleetResult) []sim.Latency { return r.Acquire }},
		{"Hand-off", func(r *sim.FleetResult) []sim.Latency { return r.HandOff }},
		{"Renewal", func(r *sim.FleetResult) []sim.Latency { return r.Renew }},
	} {
		var rows [][]string
		for i, at := range sim.FleetRegions() {
			cells := []string{at}
			for _, l := range what.of(row[i]) {
				cells = append(cells, latency(l))
			}
			rows = append(rows, cells)
		}
		head := append([]string{"coordinator in"}, sim.FleetRegions()...)
		table(fmt.Sprintf("%s; %s clients; p50 / p99 in ms, by region of the client:", what.name, clients), append(head, "all"), rows)
	}
}

// sizeTables show what many clients change.
func sizeTables(steady [][]*sim.FleetResult) {
	var sums, traffic [][]string
	var last []*sim.FleetResult
	for _, row := range steady {
		last = row
		for i, at := range sim.FleetRegions() {
			r := row[i]
			all := len(r.Acquire) - 1
			clients := number(float64(r.Fleet.Processes + r.Fleet.Contended*len(sim.FleetRegions())))
			sums = append(sums, []string{
				clients, at, latency(r.Acquire[all]), latency(r.HandOff[all]), latency(r.Renew[all]),
				r.Successor, seconds(r.TakenOver), seconds(r.Granted), seconds(r.Intact), fmt.Sprint(r.Lost),
			})
			// By far the most goes over the coordinator's node.
			own := r.PerNode[i]
			traffic = append(traffic, []string{
				clients, at, number(float64(r.Acquire[all].Count+r.HandOff[all].Count) / r.Fleet.Measure.Seconds()),
				number(float64(r.Renew[all].Count) / r.Fleet.Measure.Seconds()), fmt.Sprintf("%.1f", r.Commits+r.Confirms),
				number(r.Traffic.Client), number(r.Traffic.Forward), number(r.Traffic.Raft), number(own.Client + own.Forward + own.Raft),
			})
		}
	}
	table("Over all regions, p50 / p99 in ms; then the coordinator's region goes silent:", []string{
		"clients", "coordinator in", "acquire", "hand-off", "renewal", "next in", "it decides after", "first grant after", "all renewed after", "lost",
	}, sums)
	table("Rates a second, and messages a second (a message and its answer count as two):", []string{
		"clients", "coordinator in", "grants", "renewals", "rounds", "client–node", "forwarded", "raft", "at the coordinator's node",
	}, traffic)
	var nodes [][]string
	for i, at := range sim.FleetRegions() {
		cells := []string{at}
		for _, n := range last[i].PerNode {
			cells = append(cells, number(n.Client)+" + "+number(n.Forward)+" + "+number(n.Raft))
		}
		nodes = append(nodes, cells)
	}
	table("Messages a second that each node sends or receives with the most clients, client–node + forwarded + raft:",
		append([]string{"coordinator in"}, sim.FleetRegions()...), nodes)
}

// failoverTable shows how the loss of the coordinator goes, many times.
func failoverTable(losses [][2][]*sim.FleetResult) {
	var rows [][]string
	for i, at := range sim.FleetRegions() {
		for how, name := range []string{"region goes silent", "process dies"} {
			results := losses[i][how]
			of := func(get func(*sim.FleetResult) time.Duration) string {
				var all []time.Duration
				for _, r := range results {
					all = append(all, get(r))
				}
				slices.Sort(all)
				return fmt.Sprintf("%s (%s–%s)", seconds(all[len(all)/2]), seconds(all[0]), seconds(all[len(all)-1]))
			}
			lost, held := 0, 0
			for _, r := range results {
				lost += r.Lost
				held += r.Held
			}
			rows = append(rows, []string{
				at, name, of(func(r *sim.FleetResult) time.Duration { return r.TakenOver }),
				of(func(r *sim.FleetResult) time.Duration { return r.Granted }),
				of(func(r *sim.FleetResult) time.Duration { return r.Intact }), fmt.Sprintf("%d of %s", lost, number(float64(held))),
			})
		}
	}
	table(fmt.Sprintf("Loss of the coordinator, 1,000 clients, median (range) of %d seeds:", len(losses[0][0])), []string{
		"coordinator in", "how", "another decides after", "first grant after", "all renewed after", "lost",
	}, rows)
}

// sharings are the ways to send the same renewals.
var sharings = []struct {
	what   string
	leases int
	alone  bool
}{
	{"1 lease a process, nothing shared", 1, true},
	{"1 lease a process, nodes gather what they forward", 1, false},
	{"10 leases a process, nodes gather", 10, false},
	{"100 leases a process, nodes gather", 100, false},
	{"1,000 leases a process, nodes gather", 1000, false},
}

func sharingTable(shared []*sim.FleetResult) {
	var rows [][]string
	for i, r := range shared {
		all := len(r.Renew) - 1
		rows = append(rows, []string{
			sharings[i].what, number(r.Traffic.Client), number(r.Traffic.Forward), number(r.PerNode[0].Client + r.PerNode[0].Forward), latency(r.Renew[all]),
		})
	}
	table(fmt.Sprintf("%s leases that are only renewed, coordinator in %s; messages a second:", number(float64(shared[0].Held)), shared[0].Fleet.Coordinator), []string{
		"", "client–node", "forwarded", "of both at the coordinator's node", "renewal p50 / p99, ms",
	}, rows)
}

func latency(l sim.Latency) string {
	if l.Count == 0 {
		return "—"
	}
	return fmt.Sprintf("%d / %d", l.P50.Round(time.Millisecond).Milliseconds(), l.P99.Round(time.Millisecond).Milliseconds())
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// number is a rate with its thousands apart, to three digits below ten.
func number(x float64) string {
	if x < 10 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0")
	}
	s := fmt.Sprintf("%.0f", x)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}
