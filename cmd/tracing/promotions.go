package tracing

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region"
)

const (
	// maxInbox bounds the records that have been told and not looked at.
	maxInbox = 1 << 14
	// keepEnded is how long a node that does not decide remembers the spans of a promotion that has ended, in case that the
	// one which does is gone before it has told them.
	keepEnded = time.Minute
	// lookEvery is how often it is asked who decides, beside when something is told.
	lookEvery = time.Second
)

// Promotions makes spans of promotions and their states. Every node follows the records; that of the coordinator sends. A new
// coordinator sends again what it knows of promotions that have not ended: the ids and times are the same.
type Promotions struct {
	send  func(Span)
	leads func() bool
	now   func() time.Time

	wake  chan struct{}
	mu    sync.Mutex
	inbox []*writv1.Promotion // guarded by mu

	// The rest belongs to Run.
	known map[string]*course
}

// course is a promotion as it has been followed.
type course struct {
	rec   *writv1.Promotion
	spans []Span // to be sent by whoever decides
	sent  int    // of spans
	ended time.Time
}

// NewPromotions follows promotions for the node; leads says whether that is the coordinator's.
func NewPromotions(t *Tracer, leads func() bool) *Promotions {
	return &Promotions{send: t.Send, leads: leads, now: time.Now, wake: make(chan struct{}, 1), known: make(map[string]*course)}
}

// Tell takes a record in; it does not wait.
func (p *Promotions) Tell(record proto.Message) {
	rec, ok := record.(*writv1.Promotion)
	if !ok {
		return
	}
	p.mu.Lock()
	if len(p.inbox) < maxInbox {
		p.inbox = append(p.inbox, rec)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run makes spans and sends them until ctx ends, and then what there is.
func (p *Promotions) Run(ctx context.Context) {
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			p.turn()
			return
		case <-p.wake:
		case <-again.C:
		}
		p.turn()
	}
}

// turn looks at what was told, and sends what is to be sent.
func (p *Promotions) turn() {
	p.mu.Lock()
	told := p.inbox
	p.inbox = nil
	p.mu.Unlock()
	for _, rec := range told {
		p.follow(rec)
	}
	leads := p.leads()
	for id, c := range p.known {
		if leads {
			for _, s := range c.spans[c.sent:] {
				p.send(s)
			}
			c.sent = len(c.spans)
		}
		if !c.ended.IsZero() && (leads || p.now().Sub(c.ended) >= keepEnded) {
			delete(p.known, id)
		}
	}
}

// follow makes the spans of what has changed.
func (p *Promotions) follow(rec *writv1.Promotion) {
	c := p.known[rec.GetId()]
	ended := region.PromotionEnded(rec.GetState())
	switch {
	case c == nil && ended:
		return // it was told of when it ended
	case c == nil:
		p.known[rec.GetId()] = &course{rec: rec}
		return
	case rec.GetRevision() <= c.rec.GetRevision() || !c.ended.IsZero():
		return
	case rec.GetState() != c.rec.GetState():
		c.spans = append(c.spans, stay(c.rec, rec))
	}
	c.rec = rec
	if ended {
		c.spans = append(c.spans, whole(rec))
		c.ended = p.now()
	}
}

// stay is the span of the state that a promotion has left: last is the last record in it.
func stay(last, next *writv1.Promotion) Span {
	s := Span{
		Traceparent: region.WithSpan(last.GetTraceparent(), region.PromotionSpan(last.GetId())), ID: region.StateSpan(last.GetId(), last.GetState()),
		Name: "promotion " + stateText(last), Start: at(last.GetStateSince()), End: at(next.GetStateSince()),
		Attributes: about(last),
	}
	s.Attributes["writ.next"] = stateText(next)
	if last.GetStuck() {
		s.Attributes["writ.reason"] = last.GetReason()
	}
	// What was proved, and how hooks went, while it was in the state. The next record has the newest of both.
	for _, g := range next.GetProofs() {
		if within(s, g.GetAt()) {
			s.Events = append(s.Events, Event{Name: "guard proved", At: at(g.GetAt()), Attributes: map[string]string{
				"writ.guard": g.GetGuard(), "writ.region": g.GetRegion(), "writ.proof": lower(g.GetHow().String(), "GUARD_PROOF_"),
			}})
		}
	}
	for _, h := range next.GetHooks() {
		if h.GetOutcome() > writv1.HookOutcome_HOOK_OUTCOME_PENDING && within(s, h.GetAt()) {
			s.Events = append(s.Events, Event{Name: "hook " + lower(h.GetKind().String(), "HOOK_KIND_"), At: at(h.GetAt()), Attributes: map[string]string{
				"writ.region": h.GetRegion(), "writ.outcome": lower(h.GetOutcome().String(), "HOOK_OUTCOME_"),
			}})
		}
	}
	slices.SortStableFunc(s.Events, func(a, b Event) int { return a.At.Compare(b.At) })
	return s
}

func within(s Span, t *timestamppb.Timestamp) bool {
	return t != nil && at(t).After(s.Start) && !at(t).After(s.End) // what begins a state belongs to the one before
}

// whole is the span of a promotion that has ended.
func whole(rec *writv1.Promotion) Span {
	line := rec.GetTimeline()
	s := Span{
		Traceparent: rec.GetTraceparent(), ID: region.PromotionSpan(rec.GetId()), Name: "promotion of " + rec.GetGroup(),
		Start: at(cmp.Or(rec.GetPlannedAt(), line.GetDecided(), rec.GetStateSince())), End: at(rec.GetStateSince()), Attributes: about(rec),
	}
	s.Attributes["writ.end"] = stateText(rec)
	if rec.GetState() != writv1.PromotionState_PROMOTION_STATE_DONE {
		s.Failure = cmp.Or(rec.GetReason(), stateText(rec))
	}
	if line.GetTimeToHealthy() != nil {
		s.Attributes["writ.time_to_healthy"] = line.GetTimeToHealthy().AsDuration().String()
	}
	moments := map[string]*timestamppb.Timestamp{
		"detected": line.GetDetected(), "acknowledged": line.GetAcknowledged(), "decided": line.GetDecided(),
		"fenced": line.GetFenced(), "serving": line.GetServing(), "reconciled": line.GetReconciled(),
	}
	for _, name := range slices.Sorted(maps.Keys(moments)) {
		if t := moments[name]; t != nil {
			s.Events = append(s.Events, Event{Name: name, At: at(t)})
		}
	}
	slices.SortStableFunc(s.Events, func(a, b Event) int { return a.At.Compare(b.At) })
	return s
}

func about(rec *writv1.Promotion) map[string]string {
	return map[string]string{
		"writ.promotion": rec.GetId(), "writ.group": rec.GetGroup(), "writ.from": rec.GetFrom(), "writ.to": rec.GetTo(),
		"writ.mode": lower(rec.GetMode().String(), "PROMOTION_MODE_"), "writ.token": tokenText(rec.GetToken()),
	}
}

func stateText(rec *writv1.Promotion) string {
	return lower(rec.GetState().String(), "PROMOTION_STATE_")
}

func lower(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func at(t *timestamppb.Timestamp) time.Time { return t.AsTime() }
