// Package policy says who may do what to which resources, and how long resources may be leased.
//
// A policy file is YAML:
//
//	grants:
//	  - principals: ["spiffe://example/app/*", "cron.example"]
//	    prefix: "billing/"
//	    verbs: [acquire, read]
//	  - principals: ["spiffe://example/sre/*"]
//	    prefix: ""
//	    verbs: [acquire, read, force, promote, group, audit, admin]
//	  - principals: ["spiffe://example/agent/eu"]
//	    prefix: "orders"
//	    verbs: [agent]
//	  - principals: ["spiffe://example/guard/billing"]
//	    prefix: "billing/"
//	    verbs: [guard]
//	resources:
//	  - prefix: "billing/"
//	    ttl_min: 1s
//	    ttl_max: 5m
//	    lock_delay: 10s
//	    max_leases: 1000
//	    regions: [eu, us]
//
// A grant gives each of its principals its verbs on every name that starts with its prefix: "billing/" is everything below
// billing, "billing" is billing-archive too, "" is everything. A principal is written out, or ends in "*" and then stands
// for every principal that starts like that. Grants add up, and what no grant allows is denied. The verb acquire covers
// everything that a holder does, read covers Get, List and Watch, and with Get the resource's checkpoint, so that nothing
// belongs in a checkpoint which readers must not see; force takes leases from others, guard is being a guard of
// resources, and admin, which needs the prefix "", is the running of the quorum itself. A guard of everything under billing/
// needs guard under a prefix of billing/, and nothing else: it is told who holds what it guards.
//
// For failover groups the name is the group's. promote is everything about promotions: to plan, approve, withdraw, execute,
// abort, resume, acknowledge, reinstate and attest. It lets somebody hand in a signature; whether it counts, and whether there
// are enough of them, is not said here but by the approvers and the group, which are state of the quorum. group is to apply
// and to remove groups, agent is being a region's agent, which the group has to name as well, and read covers what is known
// of a group, its promotions and operations. Everybody with admin may read that, too, and asks for another set of approvers.
// audit, which needs the prefix "", is for auditors: the audit log is of everything.
//
// Of the rules under resources the one with the longest matching prefix applies alone, see [lease.Policy].
//
// # What it promises
//
// [Parse] takes a file whole or not at all: a key that it does not know, a value of the wrong type or out of range is an
// INVALID error that names the place and the remedy. A [File] follows its file, and keeps the last good state when the
// file breaks. A [Policy] never changes and is safe for concurrent use.
//
// # What it does not promise
//
// Nodes read their own files. Until all have the new one, the answer depends on the node; a request that is forwarded must
// be allowed by both.
//
// # What it assumes of clocks
//
// Nothing but a ticker that paces [File.Watch].
package policy
