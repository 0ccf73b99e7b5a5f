package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Canary is a hook for verify: one write through a guard with the new writ has to succeed, and one with the old writ has to be
// refused as stale. Anything else means that the promotion is not what it should be. A resource that was never granted before has
// no old token, which leaves the first half.
type Canary struct {
	// URL behind the guard, of something that may be overwritten.
	URL string
	// Method is PUT unless set.
	Method string
	Header map[string]string
	Client *http.Client
}

var _ Hook = (*Canary)(nil)

// Idempotent implements [Hook].
func (c *Canary) Idempotent() bool { return true }

// Run implements [Hook].
func (c *Canary) Run(ctx context.Context, task *writv1.Task) (Outcome, error) {
	first := task.GetOldToken() == 0 && task.GetOldWrit() == ""
	if task.GetWrit() == "" || task.GetOldWrit() == "" && !first {
		return Outcome{}, errors.New("the task carries no writ, or not the old one: the quorum has to sign both")
	}
	body, err := json.Marshal(map[string]string{"group": task.GetGroup(), "promotion": task.GetPromotion(), "token": fence.Token(task.GetToken()).Decimal()})
	if err != nil {
		return Outcome{}, err
	}
	// The new one first: a guard that has not heard of it yet learns it by that.
	status, answer, err := c.write(ctx, task, task.GetWrit(), body)
	if err != nil {
		return Outcome{Output: string(answer)}, fmt.Errorf("the canary with the new token: %w", err)
	}
	if status/100 != 2 {
		return Outcome{Output: string(answer)}, fmt.Errorf("the canary with the new token was answered %d: it has to succeed", status)
	}
	if first {
		return Outcome{Output: fmt.Sprintf("a write with token %v succeeded; there was no token before", fence.Token(task.GetToken()))}, nil
	}
	status, answer, err = c.write(ctx, task, task.GetOldWrit(), body)
	if err != nil {
		return Outcome{Output: string(answer)}, fmt.Errorf("the canary with the old token: %w", err)
	}
	if status/100 == 2 {
		return Outcome{Output: string(answer)}, fmt.Errorf("the canary with the old token was answered %d: IT WAS WRITTEN; the storage is not fenced", status)
	}
	var problem fence.Problem
	if err := json.Unmarshal(answer, &problem); err != nil || problem.Reason != fence.ReasonStaleToken {
		return Outcome{Output: string(answer)}, fmt.Errorf("the canary with the old token was answered %d, and not as %s by a guard", status, fence.ReasonStaleToken)
	}
	return Outcome{Output: fmt.Sprintf("a write with token %v succeeded, one with %v was refused", fence.Token(task.GetToken()), fence.Token(task.GetOldToken()))}, nil
}

func (c *Canary) write(ctx context.Context, task *writv1.Task, writ string, body []byte) (int, []byte, error) {
	header := maps.Clone(traced(c.Header, task))
	if header == nil {
		header = make(map[string]string)
	}
	header[fence.HeaderWrit] = writ
	method := c.Method
	if method == "" {
		method = http.MethodPut
	}
	return Send(ctx, c.Client, method, c.URL, header, body)
}
