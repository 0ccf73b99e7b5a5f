package region

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// A refusal of what is not there is one sentence, and not one behind the name of a field.
func TestWhatIsNotThereIsToldInASentence(t *testing.T) {
	w := newWorld(t)
	for _, ask := range []proto.Message{
		&writv1.PlanRequest{Group: "nothing", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, Reason: "a test"},
		&writv1.GetPromotionRequest{Id: "nothing-1.1"},
		&writv1.ResumeRequest{Id: "nothing-1.1"},
		&writv1.AbortRequest{Id: "nothing-1.1"},
		&writv1.ApproveRequest{Id: "nothing-1.1", Signature: "x"},
		&writv1.RemoveGroupRequest{Name: "nothing"},
	} {
		_, err := w.ask("ops", ask)
		if err == nil || err.Reason != lease.ReasonNotFound || !strings.HasPrefix(err.Error(), "NOT_FOUND: there is no ") || err.Fix == "" {
			t.Errorf("%T: %v", ask, err)
		}
	}
}
