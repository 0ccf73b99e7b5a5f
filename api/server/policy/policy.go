package policy

import (
	"slices"
	"strings"
	"sync"

	"github.com/writ-io/writ/lease"
)

// Verb is what somebody may do; sets of verbs are joined with |.
type Verb uint16

// The verbs.
const (
	// Acquire: acquire, cancel, renew, release, checkpoint, and have writs issued.
	Acquire Verb = 1 << iota
	// Read: get with its checkpoint, list and watch; of groups, what is known of them, their promotions and operations.
	Read
	// Force: take leases from others.
	Force
	// Admin: change membership, move the coordinator, take backups, remove guards, say what is guarded, ask for another set of
	// approvers, and read of groups.
	Admin
	// Guard: be a guard of resources.
	Guard
	// Promote: plan, approve, withdraw, execute, abort, resume, acknowledge, reinstate and attest, of groups. It lets somebody
	// ask; whose signatures count is the approvers' matter.
	Promote
	// Group: apply and remove groups.
	Group
	// Agent: be a region's agent of groups.
	Agent
	// Audit: read, export and prune the audit log.
	Audit
)

var verbNames = []struct {
	verb Verb
	name string
}{
	{Acquire, "acquire"}, {Read, "read"}, {Force, "force"}, {Admin, "admin"}, {Guard, "guard"}, {Promote, "promote"}, {Group, "group"},
	{Agent, "agent"}, {Audit, "audit"},
}

// allVerbs is every verb that there is.
const allVerbs = Audit<<1 - 1

func (v Verb) String() string {
	var names []string
	for _, n := range verbNames {
		if v&n.verb != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

// verbNamed answers 0 for an unknown name.
func verbNamed(name string) Verb {
	for _, n := range verbNames {
		if n.name == name {
			return n.verb
		}
	}
	return 0
}

// Grant gives principals verbs on the names under a prefix.
type Grant struct {
	// Principals are written out, or end in "*".
	Principals []string
	Prefix     string
	Verbs      Verb
}

// Policy is one state of a policy file. It must not be changed once it is in use.
type Policy struct {
	Grants    []Grant
	Resources lease.Policy

	all bool

	mu     sync.RWMutex
	rights map[lease.Principal][]right // guarded by mu; what Grants come to for one principal
}

// right is a grant as one principal has it.
type right struct {
	prefix string
	verbs  Verb
}

// maxRemembered bounds the principals whose rights are remembered.
const maxRemembered = 4096

// AllowAll answers a policy that allows everything to everybody who has an identity, for development.
func AllowAll() *Policy { return &Policy{all: true} }

// DenyAll answers a policy that allows nothing.
func DenyAll() *Policy { return &Policy{} }

// Allows reports whether principal may do verb to name: a resource, a group, or the prefix that is listed, watched or
// guarded. For Admin and Audit the name is empty.
func (p *Policy) Allows(principal lease.Principal, verb Verb, name string) bool {
	if p.all {
		return true
	}
	for _, r := range p.rightsOf(principal) {
		if r.verbs&verb != 0 && strings.HasPrefix(name, r.prefix) {
			return true
		}
	}
	return false
}

func (p *Policy) rightsOf(principal lease.Principal) []right {
	p.mu.RLock()
	rights, known := p.rights[principal]
	p.mu.RUnlock()
	if known {
		return rights
	}
	for _, g := range p.Grants {
		if slices.ContainsFunc(g.Principals, func(pattern string) bool { return matches(pattern, principal) }) {
			rights = append(rights, right{g.Prefix, g.Verbs})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rights == nil || len(p.rights) >= maxRemembered {
		p.rights = make(map[lease.Principal][]right)
	}
	p.rights[principal] = rights
	return rights
}

func matches(pattern string, principal lease.Principal) bool {
	if start, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(string(principal), start)
	}
	return pattern == string(principal)
}
