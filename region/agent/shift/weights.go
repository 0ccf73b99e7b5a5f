package shift

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/agent"
)

// Weights is a hook for shift: it tells a load balancer how much each backend gets, as
//
//	{"group": "orders", "promotion": "orders-1.4", "token": "281474976710662", "weights": {"pool-eu": 75, "pool-us": 25}}
//
// The token is there for the receiver to refuse what comes late; the header Writ proves it. Where there is no region to take
// traffic from, as in a recovery, the region gets 100 and each other backend 0.
type Weights struct {
	URL string
	// Method is POST unless set.
	Method string
	Header map[string]string
	// Backends are the load balancer's names, by region.
	Backends map[string]string
	Client   *http.Client
}

var _ agent.Hook = (*Weights)(nil)

// Validate answers the first field that cannot be used as an INVALID [*lease.Error].
func (w *Weights) Validate() error {
	switch {
	case w.URL == "":
		return lease.Invalid("url", "is missing", "name where weights are set")
	case len(w.Backends) < 2:
		return lease.Invalid("backends", "are fewer than two", "name the load balancer's backend of each region")
	}
	return nil
}

// Idempotent implements [agent.Hook].
func (w *Weights) Idempotent() bool { return true }

// Run implements [agent.Hook].
func (w *Weights) Run(ctx context.Context, task *writv1.Task) (agent.Outcome, error) {
	weights, err := w.weights(task)
	if err != nil {
		return agent.Outcome{}, err
	}
	body, err := json.Marshal(map[string]any{
		"group": task.GetGroup(), "promotion": task.GetPromotion(), "token": fence.Token(task.GetToken()).Decimal(),
		"weights": weights,
	})
	if err != nil {
		return agent.Outcome{}, err
	}
	header := map[string]string{}
	if task.GetWrit() != "" {
		header[fence.HeaderWrit] = task.GetWrit()
	}
	for name, value := range w.Header {
		header[name] = value
	}
	method := w.Method
	if method == "" {
		method = http.MethodPost
	}
	status, answer, err := agent.Send(ctx, w.Client, method, w.URL, header, body)
	out := agent.Outcome{Output: string(answer)}
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s answered %d", w.URL, status)
	}
	return out, err
}

// weights are what each backend gets. A recovery comes from no region, or from the very one that stays primary: nobody knows then
// which others had traffic, and none of them may have any.
func (w *Weights) weights(task *writv1.Task) (map[string]uint32, error) {
	to, from := w.Backends[task.GetTo()], w.Backends[task.GetFrom()]
	if to == "" || from == "" && task.GetFrom() != "" {
		return nil, fmt.Errorf("backends names none for %s or %s", task.GetFrom(), task.GetTo())
	}
	if from != "" && from != to {
		percent := min(task.GetPercent(), 100)
		return map[string]uint32{to: percent, from: 100 - percent}, nil
	}
	all := make(map[string]uint32)
	for _, backend := range w.Backends {
		all[backend] = 0
	}
	all[to] = 100
	return all, nil
}
