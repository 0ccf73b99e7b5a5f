package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// ErrUndecided says that the judgement took longer than it may.
var ErrUndecided = errors.New("history: not decided in time")

// Violation is a history that no lease table can have answered.
type Violation struct {
	Resource string
	// Explained is the end of the longest part that has an order; State is how it leaves the resource.
	Explained []Op
	State     string
	// Next are the calls of which none can come next.
	Next []Op
}

func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is not linearizable; the longest part that is ends with\n", v.Resource)
	for _, op := range v.Explained {
		fmt.Fprintf(&b, "  %v\n", op)
	}
	fmt.Fprintf(&b, "which leaves it %s, and then none of these can come next:\n", v.State)
	for _, op := range v.Next {
		fmt.Fprintf(&b, "  %v\n", op)
	}
	return b.String()
}

// Check judges a history, each resource by itself. It returns nil if every one is linearizable, a *[Violation] if one is
// not, and otherwise [ErrUndecided] if one took longer than limit.
func Check(ops []Op, limit time.Duration) error {
	resources := make(map[string][]Op)
	for _, op := range ops {
		if op.Outcome == Absurd {
			return fmt.Errorf("history: an answer that no server may give: %v", op)
		}
		resources[op.Resource] = append(resources[op.Resource], op)
	}
	return each(slices.Sorted(maps.Keys(resources)), func(name string) error {
		return checkResource(name, narrow(resources[name]), limit)
	})
}

// each judges some by their names. One that is not decided hides nothing of those that are.
func each(names []string, judge func(name string) error) error {
	var undecided error
	for _, name := range names {
		err := judge(name)
		if errors.Is(err, ErrUndecided) {
			undecided = cmp.Or(undecided, err)
		} else if err != nil {
			return err
		}
	}
	return undecided
}

func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		DescribeOperation: func(input, _ any) string {
			op := input.(Op)
			return strings.TrimSpace(fmt.Sprintf("%v %s → %v", op.Kind, op.Instance, op.Outcome))
		},
		DescribeState: func(s any) string { return s.(state).String() },
		Init:          func() []any { return []any{state{}} },
		Step: func(s, input, _ any) []any {
			var next []any
			for _, n := range s.(state).step(input.(Op)) {
				next = append(next, n)
			}
			return next
		},
	}
	return m.ToModel()
}

func operations(ops []Op) []porcupine.Operation {
	all := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		all[i] = porcupine.Operation{
			ClientId: op.Client, Input: op, Call: int64(op.Call), Output: op.Outcome, Return: int64(op.Return),
		}
	}
	return all
}

func checkResource(name string, ops []Op, limit time.Duration) error {
	result, info := porcupine.CheckOperationsVerbose(model(), operations(ops), limit)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("%w: %s, %d calls, more than %v", ErrUndecided, name, len(ops), limit)
	case porcupine.Illegal:
	}
	return explain(name, ops, info)
}

// explained is how much of the explained part is shown.
const explained = 12

// explain finds the longest part that can be put in order, and what fails after it.
func explain(name string, ops []Op, info porcupine.LinearizationInfo) error {
	var longest []int
	for _, partition := range info.PartialLinearizations() {
		for _, part := range partition {
			if len(part) > len(longest) {
				longest = part
			}
		}
	}
	v := &Violation{Resource: name}
	states := []state{{}}
	placed := make([]bool, len(ops))
	for n, i := range longest {
		placed[i] = true
		var next []state
		for _, s := range states {
			next = append(next, s.step(ops[i])...)
		}
		states = next
		if n >= len(longest)-explained {
			v.Explained = append(v.Explained, ops[i])
		}
	}
	var texts []string
	for _, s := range states {
		texts = append(texts, s.String())
	}
	v.State = strings.Join(texts, ", or ")
	v.Next = candidates(ops, placed)
	return v
}

// candidates are the calls that may come next in time: those made before any other that is left has returned.
func candidates(ops []Op, placed []bool) []Op {
	first := open
	for i, op := range ops {
		if !placed[i] {
			first = min(first, op.Return)
		}
	}
	var next []Op
	for i, op := range ops {
		if !placed[i] && op.Call <= first {
			next = append(next, op)
		}
	}
	return next
}
