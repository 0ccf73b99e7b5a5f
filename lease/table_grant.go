//writ:core

package lease

import (
	"cmp"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

func (t *Table) acquire(m Moment, r Request, c Acquire) {
	c.TTL = c.TTL.Truncate(time.Millisecond)
	rule := t.config.Policy.ruleFor(c.Resource)
	if err := t.checkAcquire(rule, c); err != nil {
		t.refuse(r.ID, err)
		return
	}
	e := t.entries[c.Resource]
	if t.refused(r.ID, e) {
		return
	}
	if e != nil {
		t.settle(m, e, r.Intake)
		t.promote(m, e) // who waited out the lock delay comes first, though no tick has come yet
		if t.known(m, e, r, c) {
			return
		}
	}
	free := e == nil || (!e.held && e.due <= m.Now)
	switch {
	case free && t.full(rule):
		t.refuse(r.ID, Errorf(ReasonLimit, "the policy allows %d leases under %q and all are held",
			t.config.Policy.Rules[rule].MaxLeases, t.config.Policy.Rules[rule].Prefix))
	case free:
		if e == nil {
			e = t.newEntry(m, c.Resource, rule)
		}
		if t.fenced(m, e) {
			t.grant(m, e, waiter{acquire: c, call: r.ID, intake: r.Intake})
			return
		}
		t.awaitGuards(m, e, r, c)
	case c.Wait <= 0:
		t.refuse(r.ID, t.heldError(e))
	case len(e.queue()) >= t.config.MaxWaiters:
		t.refuse(r.ID, Errorf(ReasonLimit, "%d requests wait for %q already", len(e.queue()), c.Resource))
	default:
		t.enqueue(m, e, r, c, false)
	}
}

// awaitGuards lets a request wait that nothing but guards stands in the way of: for a while even if it would not wait for
// another holder.
func (t *Table) awaitGuards(m Moment, e *entry, r Request, c Acquire) {
	once := c.Wait <= 0
	switch {
	case once && len(e.queue()) > 0:
		t.refuse(r.ID, t.fencingError(e))
		return
	case len(e.queue()) >= t.config.MaxWaiters:
		t.refuse(r.ID, Errorf(ReasonLimit, "%d requests wait for %q already", len(e.queue()), c.Resource))
		return
	case once:
		c.Wait = patience
	}
	t.enqueue(m, e, r, c, once)
}

// known answers a request that the entry has seen before: it is granted, it has ended, or it waits.
func (t *Table) known(m Moment, e *entry, r Request, c Acquire) bool {
	if e.held && e.requestID == c.RequestID && e.holder.Principal == c.Principal {
		switch {
		case e.holder.Instance != c.Instance:
			t.refuse(r.ID, t.heldError(e))
		case e.ending:
			t.refuse(r.ID, expiredError(e, "was taken away by a forced release"))
		default:
			// A replay is a renewal: it confers validity, so it must extend the deadline.
			if !mutant.On(mutant.ReplayWithoutExtending) {
				t.extend(e, r.Intake)
			}
			t.reply(r.ID, t.grantReply(e, true))
		}
		return true
	}
	if o := e.outcome(c.Principal, c.RequestID); o != nil && !mutant.On(mutant.OutcomesForgotten) {
		t.refuse(r.ID, o.err(c.Resource, fmt.Sprintf("request %q for %q", c.RequestID, c.Resource)))
		return true
	}
	w := t.byRequest[waitKey{c.Resource, c.Principal, c.RequestID}]
	if w == nil {
		return false
	}
	if w.once && w.acquire.Instance == c.Instance {
		t.answerWaiting(m, w) // that call has another to speak for it
		return false
	}
	t.poll(m, w, r, c)
	return true
}

func (t *Table) checkAcquire(rule int, c Acquire) *Error {
	if p := resourceProblem(string(c.Resource)); p != "" {
		return Invalid("resource", p, "use 1 to 512 bytes of printable UTF-8 in non-empty segments")
	}
	var pr PolicyRule
	if rule >= 0 {
		pr = t.config.Policy.Rules[rule]
	}
	minTTL, maxTTL := pr.bounds()
	switch {
	case c.TTL < minTTL || c.TTL > maxTTL:
		return Invalid("ttl", fmt.Sprintf("is %v", c.TTL), fmt.Sprintf("use %v to %v for %q", minTTL, maxTTL, c.Resource))
	case c.RequestID == "":
		return Invalid("request_id", "is empty", fmt.Sprintf("use 1 to %d bytes", MaxRequestIDBytes))
	case len(c.Metadata) > MaxMetadataBytes:
		return Invalid("metadata", fmt.Sprintf("is %d bytes long", len(c.Metadata)), fmt.Sprintf("use at most %d", MaxMetadataBytes))
	case c.Priority < -MaxPriority || c.Priority > MaxPriority:
		return Invalid("priority", fmt.Sprintf("is %d", c.Priority), fmt.Sprintf("use -%d to %d", MaxPriority, MaxPriority))
	case len(pr.Regions) > 0 && !slices.Contains(pr.Regions, c.Region):
		return Invalid("region", fmt.Sprintf("%q may not hold %q", c.Region, c.Resource), fmt.Sprintf("the policy allows %q", pr.Regions))
	}
	return cmp.Or(
		checkText("request_id", c.RequestID, MaxRequestIDBytes), checkText("instance", c.Instance, MaxInstanceBytes),
		checkText("region", c.Region, MaxRegionBytes), checkText("principal", string(c.Principal), maxPrincipalBytes),
	)
}

// maxPrincipalBytes is the longest SPIFFE ID.
const maxPrincipalBytes = 2048

// checkText refuses what could not be stored, or not with every other record of a round.
func checkText(field, text string, most int) *Error {
	switch {
	case len(text) > most:
		return Invalid(field, fmt.Sprintf("is %d bytes long", len(text)), fmt.Sprintf("use at most %d", most))
	case !utf8.ValidString(text):
		return Invalid(field, "is not valid UTF-8", "use UTF-8")
	}
	return nil
}

func (t *Table) newEntry(m Moment, name Resource, rule int) *entry {
	e := &entry{name: name, rule: int32(rule), freedAt: m.Now}
	t.entries[name] = e
	return e
}

// grant gives a free resource to w under a new token. The deadline counts from the intake of w's request.
func (t *Table) grant(m Moment, e *entry, w waiter) {
	if e.held {
		panic(fmt.Sprintf("lease: grant of %q, which is held under %v", e.name, e.token))
	}
	token := t.nextToken(e)
	if mutant.On(mutant.TokenResetAfterDelete) && e.token == 0 {
		token = fence.Token(t.epoch)<<48 | 1
	}
	if token <= e.token {
		panic(fmt.Sprintf("lease: token %v of %q does not exceed its last one %v", token, e.name, e.token))
	}
	c := w.acquire
	e.token, e.held, e.ending, e.how = token, true, false, NotEnded
	e.holder = t.names.holder(c.Principal, c.Instance, c.Region)
	e.requestID, e.priority, e.ttl, e.grantedMs = c.RequestID, c.Priority, c.TTL, 0
	if !m.Wall.IsZero() {
		e.grantedMs = m.Wall.UnixMilli()
	}
	if len(c.Metadata) > 0 || e.extra != nil {
		e.more().metadata, e.more().sequence = c.Metadata, 0
	}
	t.count(e, 1)
	e.due = deadline(w.intake, c.TTL)
	t.wakeAt(e, e.due)
	t.mark(e)
	t.noteGrant(e)
	if w.call != 0 {
		t.reply(w.call, t.grantReply(e, false))
	}
}

func (t *Table) takeToken() fence.Token {
	if t.TokensLeft() == 0 {
		panic("lease: no token left below the ceiling: the engine must reserve before it decides")
	}
	token, err := fence.NewToken(t.epoch, t.next)
	if err != nil {
		panic(fmt.Sprintf("lease: %v", err))
	}
	t.next++
	return token
}

// extend moves a deadline to intake + TTL. It never moves one back.
func (t *Table) extend(e *entry, intake clock.Instant) {
	e.due = max(e.due, deadline(intake, e.ttl))
}

// deadline is when a lease ends that was asked for at intake.
func deadline(intake clock.Instant, ttl time.Duration) clock.Instant {
	if mutant.On(mutant.EarlyExpiry) {
		ttl -= ttl / 10
	}
	return intake.Add(ttl)
}

// settle ends a lease whose deadline had passed when a request about it was taken in.
func (t *Table) settle(m Moment, e *entry, intake clock.Instant) {
	if e.held && e.due <= intake {
		t.expire(m, e)
	}
}

func (t *Table) expire(m Moment, e *entry) {
	if e.ending {
		t.end(m, e, EndForced)
	} else {
		t.end(m, e, EndExpired)
	}
}

// end ends the present grant and hands the resource to whoever waits.
func (t *Table) end(m Moment, e *entry, how End) {
	e.remember(e.holder.Principal, e.requestID, e.token, how)
	e.held, e.ending, e.how = false, false, how
	t.count(e, -1)
	e.freedAt, e.due = m.Now, m.Now
	if how == EndExpired || how == EndForced {
		e.due = m.Now.Add(t.lockDelay(e))
	}
	t.mark(e)
	t.noteEnd(e, how)
	t.retire(m, e)
	t.promote(m, e)
	if !e.held {
		t.wakeFree(e)
	}
}

func (t *Table) heldError(e *entry) *Error {
	err := &Error{Reason: ReasonHeld, Resource: e.name, Holder: e.by(), Token: e.token}
	if e.held {
		err.Message = fmt.Sprintf("%q is held by %v under token %v", e.name, e.by(), e.token)
	} else {
		err.Message = fmt.Sprintf("%q was not released by %v and stays free for its lock delay", e.name, e.by())
	}
	return err
}

func (t *Table) grantReply(e *entry, replayed bool) *Grant {
	return &Grant{
		Resource: e.name, Token: e.token, Holder: e.by(), TTL: e.ttl, GrantedAt: e.grantedAt(),
		RequestID: e.requestID, Checkpoint: e.checkpoint(), Replayed: replayed, Guarded: t.guarded(e.name) != nil,
	}
}

// remember appends an outcome and forgets the oldest beyond MaxOutcomes. The slice may be shared with a record that is
// being written, so it is never changed in place.
func (e *entry) remember(p Principal, requestID string, token fence.Token, how End) {
	keep := e.outcomes()
	if len(keep) >= MaxOutcomes {
		keep = keep[len(keep)-MaxOutcomes+1:]
	}
	outcomes := make([]Outcome, 0, len(keep)+1)
	e.more().outcomes = append(append(outcomes, keep...), Outcome{Principal: p, Request: DigestRequest(requestID), Token: token, End: how})
}

func (e *entry) outcome(p Principal, requestID string) *Outcome {
	outcomes := e.outcomes()
	if len(outcomes) == 0 {
		return nil
	}
	digest := DigestRequest(requestID)
	for i := range outcomes {
		if o := &outcomes[i]; o.Request == digest && o.Principal == p {
			return o
		}
	}
	return nil
}

func (e *entry) outcomeOf(token fence.Token) *Outcome {
	outcomes := e.outcomes()
	for i := range outcomes {
		if o := &outcomes[i]; o.Token == token {
			return o
		}
	}
	return nil
}

// err is the answer to whoever asks for what has ended; subject says for what, such as a request or a token.
func (o *Outcome) err(name Resource, subject string) *Error {
	reason, what := ReasonReleased, "was released"
	switch o.End {
	case EndExpired:
		reason, what = ReasonExpired, "has expired"
	case EndForced:
		reason, what = ReasonExpired, "was taken away by a forced release"
	case EndCancelled:
		what = "was cancelled before it was granted"
	case EndReleased, NotEnded:
	}
	return &Error{Reason: reason, Resource: name, Token: o.Token, Message: subject + " " + what}
}

func expiredError(e *entry, what string) *Error {
	return &Error{Reason: ReasonExpired, Resource: e.name, Token: e.token, Message: fmt.Sprintf("%q under token %v %s", e.name, e.token, what)}
}
