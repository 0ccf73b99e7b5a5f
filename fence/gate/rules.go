//writ:core

package gate

import (
	"math"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/sim/mutant"
)

const maxDrain = 24 * time.Hour

// Covers tells whether the gate guards a resource.
func (g *Gate) Covers(resource string) bool {
	for _, pattern := range g.cfg.Enrol.GetCovers() {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(resource, prefix) || pattern == resource {
			return true
		}
	}
	return false
}

// ruleFor tells whether a resource is refused without contact, and how long older writes may take: by the rule with the
// longest prefix of its name, if none is for it alone. Where none says so it is open, and an isolation that this version does
// not know closes.
func (g *Gate) ruleFor(resource string) (closes bool, drain time.Duration) {
	drain = defaultDrain
	longest := -1
	for _, rule := range g.rules.GetRules() {
		prefix := rule.GetPrefix()
		length, holds := len(prefix), strings.HasPrefix(resource, prefix)
		if rule.GetExact() {
			length, holds = math.MaxInt, resource == prefix
		}
		if holds && length > longest {
			longest = length
			closes = rule.GetIsolation() != writv1.Isolation_ISOLATION_OPEN
			drain = defaultDrain
			if ms := rule.GetDrainMs(); ms > 0 {
				drain = time.Duration(min(ms, maxDrain.Milliseconds())) * time.Millisecond
			}
		}
	}
	return closes || g.cfg.AlwaysClose && !mutant.On(mutant.OwnCloseIgnored), drain
}

func (g *Gate) applyRule(r *resource) { r.closes, r.drain = g.ruleFor(r.name) }

// adopt goes by other rules from now on.
func (g *Gate) adopt(rules *writv1.GuardingRecord) {
	g.rules = rules
	for _, r := range g.sorted() {
		g.applyRule(r)
		g.settle(r)
	}
	if g.severAt == 0 && g.closed(true, g.now) {
		g.sever() // of what the new rules close
	}
}

// Closes tells whether a resource is refused without contact, by the rules that the gate has heard of and its configuration.
func (g *Gate) Closes(resource string) bool {
	closes, _ := g.ruleFor(resource)
	return closes
}
