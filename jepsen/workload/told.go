//go:build linux

package workload

import (
	"fmt"
	"slices"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
)

// Told is what clients were told of that the quorum's audit log has to know.
type Told struct {
	// Grants are tokens under which a guard let a write through, with the resource.
	Grants map[fence.Token]string
	// Executed are operations that were executed, and promotions that are done.
	Executed map[string]bool
}

// ToldIn reads that from a record.
func ToldIn(h *record.History) (*Told, error) {
	t := &Told{Grants: make(map[fence.Token]string), Executed: make(map[string]bool)}
	for name, resource := range map[string]string{Appends: store.Resource, promotionWrites: lab.PairGroup} {
		for _, c := range h.Of(name) {
			if c.Op != opAppend || c.Outcome != record.OK {
				continue
			}
			var what attempt
			if err := record.Decode(c.Value, &what); err != nil {
				return nil, fmt.Errorf("call %d: %w", c.ID, err)
			}
			t.Grants[what.Token] = resource
		}
	}
	for _, c := range h.Of(Promotion) {
		var last promoted
		if c.Outcome != record.OK {
			continue
		}
		if err := record.Decode(c.Result, &last); err != nil {
			return nil, fmt.Errorf("the answer to call %d: %w", c.ID, err)
		}
		t.Executed[last.ID] = true
	}
	for _, c := range slices.Concat(h.Of(promotionCalls), h.Of(Approvals)) {
		var what asked
		if c.Op != opExecuteOperation || c.Outcome != record.OK {
			continue
		}
		if err := record.Decode(c.Value, &what); err != nil {
			return nil, fmt.Errorf("call %d: %w", c.ID, err)
		}
		t.Executed[what.ID] = true
	}
	return t, nil
}
