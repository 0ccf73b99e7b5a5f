//writ:core

package lease

import (
	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// What guards and their operators may ask of the table. They speak in the messages of the API: nobody but the table and the
// guards themselves acts on what these say.

// GuardCall is what a guard says. The answer is a *writv1.GuardResponse under the same id.
type GuardCall struct {
	Caller
	Request *writv1.GuardRequest
}

// ListGuards asks for the guards that cover a resource; empty: for all. The answer is a *writv1.ListGuardsResponse.
type ListGuards struct{ Resource Resource }

// RemoveGuard takes a guard off the list. The answer is nil.
type RemoveGuard struct {
	Caller
	Name   string
	Attest bool
	Reason string
}

// SetGuarding changes the rule of one prefix. The answer is the *writv1.GuardingRecord that results.
type SetGuarding struct {
	Caller
	Rule    *writv1.GuardingRule
	Remove  bool
	Version uint64
	Reason  string
}

// GetGuarding asks for the rules. The answer is a *writv1.GuardingRecord.
type GetGuarding struct{}

func (GuardCall) command()   {}
func (ListGuards) command()  {}
func (RemoveGuard) command() {}
func (SetGuarding) command() {}
func (GetGuarding) command() {}
