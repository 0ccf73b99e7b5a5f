package server

import (
	"fmt"
	"slices"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// maxNews is how many floors or grants go into one message.
const maxNews = 1000

// maxTold bounds how many floors are remembered so that they are not told again. Telling one again is only a waste.
const maxTold = 1 << 18

// news is what a guard is to be told and has not been. What is newer takes the place of what is older, so that a guard that
// does not read costs one entry for each resource, and at most limit of them.
type news struct {
	limit  int
	floors latest[floorNews]
	grants latest[grantNews]
	told   map[string]uint64 // floors that have been told
	keys   string            // the newest key set
	fresh  bool              // keys have not been told
	hurry  bool
}

type floorNews struct {
	token       uint64
	traceparent string
}

type grantNews struct {
	token  uint64
	region string
}

func newNews(limit int) news { return news{limit: limit, told: make(map[string]uint64)} }

// raise notes the floor of a resource. It answers false if there is no room for one more.
func (n *news) raise(resource string, floor floorNews) bool {
	waiting, waits := n.floors.values[resource]
	if floor.token == 0 || n.told[resource] >= floor.token || (waits && waiting.token >= floor.token) {
		return true
	}
	return n.floors.put(resource, floor, n.limit)
}

// grant notes who holds a resource.
func (n *news) grant(resource string, g grantNews) bool { return n.grants.put(resource, g, n.limit) }

// forget is for a resource that is no more.
func (n *news) forget(resource string) { delete(n.told, resource) }

func (n *news) setKeys(jwks string) bool {
	if jwks == "" || jwks == n.keys {
		return false
	}
	n.keys, n.fresh = jwks, true
	return true
}

// take answers the next messages, at most one of each kind; none if there is no news.
func (n *news) take() (messages []*writv1.GuardResponse) {
	if n.hurry {
		n.hurry = false
		messages = append(messages, &writv1.GuardResponse{Say: &writv1.GuardResponse_Hurry{Hurry: &writv1.GuardNoted{}}})
	}
	if n.fresh {
		n.fresh = false
		messages = append(messages, &writv1.GuardResponse{Say: &writv1.GuardResponse_Jwks{Jwks: n.keys}})
	}
	if names, floors := n.floors.take(maxNews); len(names) > 0 {
		raises := make([]*writv1.GuardFloor, len(names))
		for i, name := range names {
			if len(n.told) >= maxTold {
				clear(n.told)
			}
			n.told[name] = floors[i].token
			raises[i] = &writv1.GuardFloor{Resource: name, Token: floors[i].token, Traceparent: floors[i].traceparent}
		}
		messages = append(messages, raisesMessage(raises))
	}
	if names, values := n.grants.take(maxNews); len(names) > 0 {
		grants := make([]*writv1.GuardGrant, len(names))
		for i, name := range names {
			grants[i] = &writv1.GuardGrant{Resource: name, Token: values[i].token, Region: values[i].region}
		}
		messages = append(messages, &writv1.GuardResponse{Say: &writv1.GuardResponse_Grants{Grants: &writv1.GuardGrants{Grants: grants}}})
	}
	return messages
}

func raisesMessage(raises []*writv1.GuardFloor) *writv1.GuardResponse {
	return &writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{Raises: raises}}}
}

// latest keeps the newest value of each name, in the order in which the names came.
type latest[V any] struct {
	values map[string]V
	order  []string // of values
}

// put answers false if the name is a new one and there are limit already.
func (l *latest[V]) put(name string, v V, limit int) bool {
	if _, known := l.values[name]; !known {
		if len(l.order) >= limit {
			return false
		}
		if l.values == nil {
			l.values = make(map[string]V)
		}
		l.order = append(l.order, name)
	}
	l.values[name] = v
	return true
}

func (l *latest[V]) take(most int) (names []string, values []V) {
	names = l.order[:min(most, len(l.order))]
	for _, name := range names {
		values = append(values, l.values[name])
		delete(l.values, name)
	}
	if l.order = l.order[len(names):]; len(l.order) == 0 {
		l.order, l.values = nil, nil // and the memory of what was much
	}
	return names, values
}

// Patterns are names, or prefixes that end in an asterisk; see [lease.Covers].

// checkPatterns refuses patterns that cannot be meant.
func checkPatterns(field string, patterns []string) error {
	const fix = "use names of resources, or prefixes that end in an asterisk, such as billing/*"
	for _, p := range patterns {
		prefix, wild := strings.CutSuffix(p, "*")
		if !wild {
			if _, err := lease.ParseResource(p); err != nil {
				return lease.Invalid(field, fmt.Sprintf("holds %q, which is no name", p), fix)
			}
			continue
		}
		if err := checkText(field, prefix, lease.MaxResourceBytes); err != nil {
			return err
		}
	}
	return nil
}

// patternName is what the policy is asked about: the name, or the prefix.
func patternName(pattern string) string { return strings.TrimSuffix(pattern, "*") }

// outermost leaves out what lies within another pattern.
func outermost(patterns []string) []string {
	all := slices.Compact(slices.Sorted(slices.Values(patterns)))
	return slices.DeleteFunc(slices.Clone(all), func(p string) bool {
		return slices.ContainsFunc(all, func(other string) bool {
			return other != p && strings.HasSuffix(other, "*") && strings.HasPrefix(patternName(p), patternName(other))
		})
	})
}

func coveredBy(patterns []string, resource lease.Resource) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return lease.Covers(p, resource) })
}
