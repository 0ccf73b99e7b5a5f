package history

import (
	"fmt"
	"io"
	"time"

	"github.com/anishathalye/porcupine"
)

// Visualize writes a page that shows the calls on one resource and how far they can be put in order, to look at in a browser.
// The judgement takes at most limit.
func Visualize(w io.Writer, ops []Op, resource string, limit time.Duration) error {
	var own []Op
	for _, op := range ops {
		if op.Resource == resource {
			own = append(own, op)
		}
	}
	_, info := porcupine.CheckOperationsVerbose(model(), operations(narrow(own)), limit)
	if err := porcupine.Visualize(model(), info, w); err != nil {
		return fmt.Errorf("history: show %s: %w", resource, err)
	}
	return nil
}
