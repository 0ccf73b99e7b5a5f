package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

const (
	// maxGuardAsks bounds what one guard may have asked without having been answered. Nothing more is read meanwhile: a
	// guard that has much to acknowledge is to be slowed down, and not sent away.
	maxGuardAsks = 64
	// maxGuardNews bounds the resources that a guard has not been told the news of.
	maxGuardNews = 1 << 16
)

type guardStream = grpc.BidiStreamingServer[writv1.GuardRequest, writv1.GuardResponse]

// guardSession is one stream of FenceService.Guard. What the guard asks is carried to the coordinator, each by a goroutine of
// its own; what it is told is collected in news. One goroutine, that of the handler, sends.
type guardSession struct {
	guards *guards
	from   *caller
	ctx    context.Context // ends with the stream
	wake   chan struct{}   // capacity 1: there is something to send, or to end
	work   sync.WaitGroup
	slots  chan struct{} // holds one for each open ask

	// Said by the first ask that was let in. They do not change once the session is open, which comes before everything
	// that reads them but the receiver.
	name, process  string
	covers, stamps []string
	tellsFloors    bool
	serial         uint64 // of those that are open at this node; 0: not open

	mu        sync.Mutex
	open      map[uint64]bool                      // guarded by mu; by the guard's id, until the answer is being sent
	answered  []uint64                             // guarded by mu; of open
	answers   []*writv1.GuardResponse              // guarded by mu; answers and probes, not sent yet
	news      news                                 // guarded by mu, but for limit
	room      chan struct{}                        // guarded by mu; closed and replaced when news were taken
	asked     map[uint64]chan *writv1.GuardRequest // guarded by mu; what the guard was told to answer, by the node's id
	alarms    []*writv1.GuardAlarm                 // guarded by mu; what the guard has reported last
	following bool                                 // guarded by mu
	ending    bool                                 // guarded by mu; nothing more is asked
	gone      bool                                 // guarded by mu; nobody reads any more
	last      error                                // guarded by mu; how the stream ends when it ends in order
	broken    error                                // guarded by mu; why the stream must end at once
}

// guardAsk is something that a guard has asked.
type guardAsk struct {
	id    uint64
	kind  string
	began clock.Instant
	leave func() // ends what the limits count
}

func (g *guards) serve(stream guardStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	s := &guardSession{
		guards: g, from: callerOf(ctx), ctx: ctx, wake: make(chan struct{}, 1), open: make(map[uint64]bool), slots: make(chan struct{}, maxGuardAsks),
		news: newNews(g.maxNews), room: make(chan struct{}), asked: make(map[uint64]chan *writv1.GuardRequest),
	}
	leave, err := g.chain.limiter.enter(s.from)
	if err != nil {
		cancel()
		return err
	}
	defer leave()
	defer s.work.Wait()
	defer s.leave()
	defer cancel()
	defer context.AfterFunc(g.draining, s.drain)()
	// It ends when this function has returned, which ends the stream, at the latest.
	go s.receive(stream)
	return s.send(stream)
}

// leave lets go of what the session has at this node.
func (s *guardSession) leave() {
	s.mu.Lock()
	s.gone = true
	s.guards.metrics.guardAlarms.Sub(float64(len(s.alarms)))
	s.mu.Unlock()
	s.guards.remove(s)
}

// send sends until the stream is over.
func (s *guardSession) send(stream guardStream) error {
	for {
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		for more := true; more; {
			messages, over, err := s.take()
			for _, m := range messages {
				if err := stream.Send(m); err != nil {
					return err
				}
			}
			if over {
				return err
			}
			more = len(messages) > 0
		}
	}
}

// take answers what is to be sent next, and whether nothing comes after it.
func (s *guardSession) take() (messages []*writv1.GuardResponse, over bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.answered {
		delete(s.open, id)
		<-s.slots
	}
	messages = s.answers
	s.answers, s.answered = nil, nil
	if s.broken != nil {
		return messages, true, s.broken
	}
	if s.ending && len(s.open) == 0 {
		return messages, true, s.last
	}
	news := s.news.take()
	if len(news) > 0 {
		close(s.room)
		s.room = make(chan struct{})
	}
	s.guards.metrics.guardTold(news)
	return append(news, messages...), false, nil // keys before what they may be needed for
}

func (s *guardSession) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end breaks the stream off, behind what has been answered.
func (s *guardSession) end(err error) {
	s.mu.Lock()
	if s.broken == nil {
		s.broken = err
	}
	s.ending = true
	s.mu.Unlock()
	s.nudge()
}

// drain takes no further asks, and sends the guard to another node when the open ones are answered.
func (s *guardSession) drain() {
	e := lease.Errorf(lease.ReasonNoQuorum, "%v", errDraining)
	e.Fix = "go on at another node"
	s.mu.Lock()
	s.ending, s.last = true, e
	s.mu.Unlock()
	s.nudge()
}

// receive takes asks in until no more come.
func (s *guardSession) receive(stream guardStream) {
	err := s.takeIn(stream)
	if !errors.Is(err, io.EOF) {
		s.end(err)
		return
	}
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.nudge()
}

func (s *guardSession) takeIn(stream guardStream) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.guards.chain.recovered(s.ctx, r)
		}
	}()
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := s.begin(req); err != nil {
			return err
		}
	}
}

// begin takes one message in. An error of its own means that the stream makes no sense, or must not go on.
func (s *guardSession) begin(req *writv1.GuardRequest) error {
	if req.GetProbed() != nil || req.GetFloors() != nil {
		s.answeredBy(req)
		return nil
	}
	x := &guardAsk{id: req.GetId(), kind: askKind(req), began: callClock.Now()}
	if err := s.makesSense(x, req); err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	var refused error
	x.leave, refused = s.guards.chain.limiter.enter(s.from)
	if err := s.register(x); err != nil {
		x.leave()
		return err
	}
	if refused == nil {
		refused = s.letIn(req)
	}
	if refused != nil {
		s.finish(x, nil, refused)
		s.work.Done()
		if errors.Is(refused, lease.ErrDenied) {
			return refused // told nothing more either
		}
		return nil
	}
	go func() {
		defer s.work.Done()
		defer func() {
			if r := recover(); r != nil {
				s.finish(x, nil, s.guards.chain.recovered(s.ctx, r))
			}
		}()
		resp, err := s.guards.carry(s.ctx, req)
		s.finish(x, resp, err)
		if err == nil && (req.GetEnrol() != nil || req.GetContact() != nil) {
			s.follow()
		}
	}()
	return nil
}

// askKind names what is asked; empty: nothing that this version knows.
func askKind(req *writv1.GuardRequest) string {
	switch req.GetAsk().(type) {
	case *writv1.GuardRequest_Enrol:
		return "enrol"
	case *writv1.GuardRequest_Contact:
		return "contact"
	case *writv1.GuardRequest_Acks:
		return "acks"
	case *writv1.GuardRequest_Leave:
		return "leave"
	}
	return ""
}

// makesSense looks at the order of the stream.
func (s *guardSession) makesSense(x *guardAsk, req *writv1.GuardRequest) error {
	switch {
	case x.id == 0:
		return lease.Invalid("id", "is 0", "number what is asked from 1 on")
	case x.kind == "":
		return lease.Invalid("ask", "is missing", "set enrol, contact, acks, leave, probed or floors")
	case s.serial == 0 && req.GetEnrol() == nil && req.GetContact() == nil:
		return lease.Invalid("ask", "is "+x.kind+" before the stream was begun", "begin a stream with enrol or contact")
	case s.serial != 0 && req.GetGuard() != s.name:
		return lease.Invalid("guard", fmt.Sprintf("is %q on a stream of %q", req.GetGuard(), s.name), "use a stream for each guard")
	}
	return nil
}

// register opens an ask. From then on it counts as work.
func (s *guardSession) register(x *guardAsk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return context.Canceled
	case s.open[x.id]:
		return lease.Invalid("id", "is that of an ask which is open", "give each an id of its own")
	}
	s.open[x.id] = true
	s.work.Add(1)
	return nil
}

// letIn validates and authorises an ask. The first one opens the session.
func (s *guardSession) letIn(req *writv1.GuardRequest) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.guards.chain.recovered(s.ctx, r)
		}
	}()
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	if ending {
		return lease.Errorf(lease.ReasonNotCoordinator, "%v", errDraining)
	}
	chain := s.guards.chain
	if err := chain.check(s.from, req); err != nil {
		return err
	}
	if s.serial == 0 {
		return s.begun(req)
	}
	covers, stamps := patternsOf(req)
	switch {
	case covers != nil && !slices.Equal(covers, s.covers):
		return lease.Invalid(askKind(req)+".covers", "are others than before", "begin another stream")
	case covers != nil && !slices.Equal(stamps, s.stamps):
		return lease.Invalid(askKind(req)+".stamps", "are others than before", "begin another stream")
	}
	if contact := req.GetContact(); contact != nil {
		s.noteAlarms(contact.GetAlarms())
	}
	// Once more, because the policy may have changed.
	return chain.needGuard(s.from, s.covers, s.stamps)
}

// patternsOf answers what an ask says that its guard covers.
func patternsOf(req *writv1.GuardRequest) (covers, stamps []string) {
	if e := req.GetEnrol(); e != nil {
		return e.GetCovers(), e.GetStamps()
	}
	return req.GetContact().GetCovers(), req.GetContact().GetStamps()
}

// begun opens the session.
func (s *guardSession) begun(req *writv1.GuardRequest) error {
	covers, stamps := patternsOf(req)
	if len(covers) == 0 {
		return lease.Invalid("contact.covers", "are missing in what begins a stream", "say what the guard covers, as in its enrolment")
	}
	s.name, s.process, s.covers, s.stamps = req.GetGuard(), req.GetSession(), covers, stamps
	s.tellsFloors = req.GetEnrol().GetTellsFloors() || req.GetContact().GetTellsFloors()
	if err := s.guards.add(s); err != nil {
		return err
	}
	s.noteAlarms(req.GetContact().GetAlarms())
	return nil
}

// noteAlarms tells of alarms that the guard did not have in its last contact.
func (s *guardSession) noteAlarms(alarms []*writv1.GuardAlarm) {
	s.mu.Lock()
	before := s.alarms
	if s.gone {
		s.mu.Unlock()
		return
	}
	s.alarms = alarms
	s.guards.metrics.guardAlarms.Add(float64(len(alarms) - len(before)))
	s.mu.Unlock()
	for _, a := range alarms {
		known := slices.ContainsFunc(before, func(b *writv1.GuardAlarm) bool {
			return a.GetResource() == b.GetResource() && a.GetToken() == b.GetToken() && a.GetFloor() == b.GetFloor()
		})
		if !known {
			s.guards.logger.Warn("a guard was told a token below its floor", "guard", s.name, "resource", a.GetResource(),
				"token", tokenText(a.GetToken()), "floor", tokenText(a.GetFloor()))
		}
	}
}

// finish answers an ask.
func (s *guardSession) finish(x *guardAsk, resp *writv1.GuardResponse, err error) {
	messages := s.guards.answerParts(x.id, resp)
	if err != nil {
		refusal := status.Convert(s.guards.chain.wireError(writv1.FenceService_Guard_FullMethodName, err)).Proto()
		messages = []*writv1.GuardResponse{{Id: x.id, Say: &writv1.GuardResponse_Error{Error: refusal}}}
	}
	code := codes.Code(messages[len(messages)-1].GetError().GetCode())
	x.leave()
	s.mu.Lock()
	s.answered = append(s.answered, x.id)
	s.answers = append(s.answers, messages...)
	s.mu.Unlock()
	s.nudge()
	took := callClock.Now().Sub(x.began)
	s.guards.metrics.guardAsked(x.kind, code)
	if logged(s.guards.logger, err) {
		s.guards.logger.Log(hclogLevel(levelOf(code)), "finished ask of a guard", "guard", s.name, "ask", x.kind, "grpc.code", code.String(),
			"reason", string(lease.ReasonOf(err)), "took", took, "peer", string(s.from.principal))
	}
}
