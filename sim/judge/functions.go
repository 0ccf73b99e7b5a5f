package judge

import (
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// Function is one call of a function that runs in one place, under one grant.
type Function struct {
	// Who is the process.
	Who      string
	Resource lease.Resource
	Token    fence.Token
}

// Beat is a moment in which a function works, or has not returned yet, in a process that runs.
type Beat struct {
	Function
	// Stopped says that its context has ended.
	Stopped bool
	// Late is by how much it is beyond the end of the time for which the quorum has vouched, less the lead, by the clock of its
	// process, which has run all that time; Over likewise without the lead. Not positive: it is not.
	Late, Over time.Duration
	// Strict says that the process is to be gone by then.
	Strict bool
	// Lingers is by how much it is beyond the time at which the process was to be gone at the latest.
	Lingers time.Duration
}

// Begins takes in that a function is called.
func (j *Judge) Begins(f Function) {
	for _, o := range j.functions {
		if o.Who == f.Who && o.Resource == f.Resource {
			j.violation("S7", "%s begins %s under %v before the function under %v has returned", f.Who, f.Resource, f.Token, o.Token)
		}
	}
	j.functions = append(j.functions, f)
}

// Returns takes in that a function has returned.
func (j *Judge) Returns(f Function) {
	if i := slices.Index(j.functions, f); i >= 0 {
		j.functions = slices.Delete(j.functions, i, i+1)
	}
}

// Gone takes in that a process has ended, and every function with it.
func (j *Judge) Gone(who string) {
	j.functions = slices.DeleteFunc(j.functions, func(f Function) bool { return f.Who == who })
}

// Runs tells whether a process is in a function under a grant.
func (j *Judge) Runs(f Function) bool { return slices.Contains(j.functions, f) }

// Beats takes a beat in.
func (j *Judge) Beats(b Beat) {
	switch {
	case b.Late > 0 && !b.Stopped:
		j.violation("S7", "the context of %s at %s under %v lasts, %v after it was to end", b.Resource, b.Who, b.Token, b.Late)
	case b.Over > 0 && b.Strict:
		j.violation("S7", "%s is still in %s under %v, %v after the lease has run out, and was to be gone by then", b.Who, b.Resource, b.Token, b.Over)
	case b.Lingers > 0:
		j.violation("S7", "%s is still in %s under %v, %v after it was to be gone at the latest", b.Who, b.Resource, b.Token, b.Lingers)
	}
}

// Loses takes in that a holder has lost a lease: what it releases then it does not give up of its own accord.
func (j *Judge) Loses(ref lease.Ref) { j.lost[ref] = true }

// letGo checks, when the end of a grant is committed, that nobody is in a function under it who was to be waited for.
func (j *Judge) letGo(name lease.Resource, token fence.Token, how lease.End) {
	if how != lease.EndReleased {
		return
	}
	for _, f := range j.functions {
		if f.Resource == name && f.Token == token {
			j.violation("S7", "%s under %v was released before the function of %s has returned", name, token, f.Who)
		}
	}
}
