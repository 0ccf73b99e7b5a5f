//writ:core

package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// Break-glass: people let the gate go on without a quorum, for resources and under tokens that a certificate names. Who has
// signed it is judged before; what is judged here is whether it fits what this gate knows.

const (
	// maxOpenings bounds what is remembered of certificates. What the quorum has been told of goes when its certificate has
	// expired.
	maxOpenings = 256
	// maxAhead is how far a certificate may come from the future: two clocks that are further apart are not to be judged by.
	maxAhead = 5 * time.Minute
	// firstAdvanced is the least sequence of a token that people make. No quorum gets that far, so that a guard which remembers
	// one contradicts every quorum of its epoch.
	firstAdvanced = 1 << 47
)

// ErrCertificate means that a certificate opens nothing here. The error says why.
var ErrCertificate = errors.New("the certificate opens nothing here")

// Quorum is what a gate knows of the quorum that it enrolled with last, and keeps.
type Quorum struct {
	Cluster     string
	Incarnation string
	Epoch       fence.Epoch
	// Approvers is an encoded ApproverSet, and ApproversVersion its version; 0: the gate knows of none.
	Approvers        []byte
	ApproversVersion uint64
}

// Certificate is a certificate of break-glass whose signatures have been judged.
type Certificate struct {
	ID          string
	Cluster     string
	Incarnation string
	Epoch       fence.Epoch
	Guards      []string
	Grants      []CertificateGrant
	// Advance: the tokens are of the next epoch, and new.
	Advance          bool
	Created, Expires time.Time
}

// CertificateGrant says which token of a resource is admitted.
type CertificateGrant struct {
	Group, Resource, Region string
	// After is the newest that was known when the certificate was made.
	Token, After fence.Token
}

// Opening is what a certificate did for one resource.
type Opening struct {
	Certificate, Group, Resource, Region string
	Token, After                         fence.Token
	OpenedAt, Expires                    time.Time
	// First and Last are when writes were admitted; zero: none was. Admitted counts them. A process that crashed may have
	// admitted some within its last second that are not counted.
	First, Last time.Time
	Admitted    uint64
	// Closed says why it was closed, at ClosedAt; empty: it is open.
	Closed   string
	ClosedAt time.Time
	// Told: the quorum knows of it.
	Told bool
}

// opening is one in memory.
type opening struct {
	Opening
	until   clock.Instant
	durable bool
	serial  uint64 // of the batch that holds it first; 0: of none yet
}

// breakglass is what the gate knows of certificates and of whom they replace.
type breakglass struct {
	quorum   Quorum
	openings []*opening // in the order in which they were made
	closings uint64     // counts them
	// wall was the time of day at wallAt.
	wall   time.Time
	wallAt clock.Instant
	// alive is until when a quorum has to be reckoned with that confers nothing on this gate.
	alive clock.Instant
	heard bool // a quorum has, in this process
}

func (b *breakglass) time(now clock.Instant) time.Time { return b.wall.Add(now.Sub(b.wallAt)) }

// BreakGlass opens resources by a certificate whose signatures satisfy the approvers' rule, at a time of day. They are open
// when that is durable: Effects.Opened says so. Call Take right afterwards, whatever it answers. A certificate that is in
// force already changes nothing. The error is an ErrCertificate.
func (g *Gate) BreakGlass(now clock.Instant, wall time.Time, c Certificate) error {
	g.begin(now)
	g.glass.wall, g.glass.wallAt = wall, g.now
	g.passTime()
	if g.inForce(c) {
		return nil
	}
	if err := g.mayOpen(wall, c); err != nil {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	var grants []CertificateGrant
	for _, grant := range c.Grants {
		if !g.Covers(grant.Resource) || g.opened(c.ID, grant) {
			continue
		}
		if err := g.mayGrant(c, grant); err != nil {
			return fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		grants = append(grants, grant)
	}
	if len(g.glass.openings)+len(grants) > maxOpenings {
		return fmt.Errorf("%w: %d openings are remembered already, until the quorum has been told of them", ErrCertificate, len(g.glass.openings))
	}
	for _, grant := range grants {
		g.open(wall, c, grant)
	}
	return nil
}

// mayOpen says why a certificate opens nothing.
func (g *Gate) mayOpen(wall time.Time, c Certificate) error {
	q := g.glass.quorum
	switch {
	case g.stopping:
		return errors.New("the guard is stopping")
	case q.Cluster == "" || q.Incarnation == "":
		return errors.New("this guard has never enrolled with a quorum, and knows none whose place a certificate could take")
	case c.Cluster != q.Cluster:
		return fmt.Errorf("it is for the quorum %q, and this guard's is %q", c.Cluster, q.Cluster)
	case c.Incarnation != q.Incarnation || c.Epoch != q.Epoch:
		return fmt.Errorf("it is for epoch %d, incarnation %s, and this guard knows epoch %d, incarnation %s: plan it anew", c.Epoch, c.Incarnation, q.Epoch, q.Incarnation)
	case !slices.Contains(c.Guards, g.cfg.Name):
		return fmt.Errorf("it does not name guard %q, but %s", g.cfg.Name, strings.Join(c.Guards, ", "))
	case !wall.Before(c.Expires):
		return fmt.Errorf("it expired at %s, and it is %s", c.Expires.UTC().Format(time.RFC3339), wall.UTC().Format(time.RFC3339))
	case wall.Add(maxAhead).Before(c.Created):
		return fmt.Errorf("it was made at %s, and here it is %s: set the clock", c.Created.UTC().Format(time.RFC3339), wall.UTC().Format(time.RFC3339))
	case g.disk.failing():
		return errors.New("the floor store fails")
	case !slices.ContainsFunc(c.Grants, func(grant CertificateGrant) bool { return g.Covers(grant.Resource) }):
		return errors.New("it names no resource that this guard covers")
	}
	for _, o := range g.glass.openings {
		if o.Certificate == c.ID && o.Closed != "" {
			return fmt.Errorf("it has been used up: it was closed at %s, because %s", o.ClosedAt.UTC().Format(time.RFC3339), o.Closed)
		}
	}
	return g.inContact()
}

// inContact says why there may be a quorum.
func (g *Gate) inContact() error {
	alone := max(g.deadline, g.glass.alive).Add(g.cfg.Slack)
	if g.now.Before(alone) && !mutant.On(mutant.BreakglassWhileInContact) {
		return fmt.Errorf("this guard has contact with the quorum, or had until a moment ago: it counts as cut off in %v", alone.Sub(g.now).Round(time.Second))
	}
	return nil
}

func (g *Gate) opened(id string, grant CertificateGrant) bool {
	r := g.resources.byName[grant.Resource]
	return r != nil && r.opening != nil && r.opening.Certificate == id
}

// inForce tells whether a certificate has opened everything already that it is for.
func (g *Gate) inForce(c Certificate) bool {
	covered := 0
	for _, grant := range c.Grants {
		if !g.Covers(grant.Resource) {
			continue
		}
		if covered++; !g.opened(c.ID, grant) {
			return false
		}
	}
	return covered > 0
}

// InForce tells whether resources are open by the certificate of that id, durably.
func (g *Gate) InForce(id string) bool {
	found := false
	for _, o := range g.glass.openings {
		if o.Certificate == id {
			if o.Closed != "" || !o.durable {
				return false
			}
			found = true
		}
	}
	return found
}

// Certified answers the token under which a certificate in force lets a region write a resource; 0: none does.
func (g *Gate) Certified(resource, region string) fence.Token {
	r := g.resources.byName[resource]
	if r == nil || !r.opening.admits() || r.opening.Region != region {
		return 0
	}
	return r.opening.Token
}

// mayGrant says why a token cannot be admitted under a certificate.
func (g *Gate) mayGrant(c Certificate, grant CertificateGrant) error {
	floor := g.Floor(grant.Resource)
	closes, _ := g.ruleFor(grant.Resource)
	switch {
	case g.seeded && !closes:
		return fmt.Errorf("the rule for %q lets this guard go on without a quorum", grant.Resource)
	case !grant.Token.Valid():
		return fmt.Errorf("%s is no token", grant.Token.Decimal())
	case grant.Token < floor:
		return fmt.Errorf("it says %v for %q, and this guard has seen %v: plan it anew", grant.Token, grant.Resource, floor)
	case c.Advance && grant.Token.Sequence() < firstAdvanced:
		return fmt.Errorf("it advances %q to %v, which a quorum may issue", grant.Resource, grant.Token)
	case c.Advance && grant.Token == floor:
		return fmt.Errorf("it advances %q to %v, which this guard has seen already: plan it anew", grant.Resource, grant.Token)
	case !c.Advance && grant.Token > floor && grant.Token.Epoch() > c.Epoch:
		return fmt.Errorf("it lets %q go on under %v, which nobody has had here", grant.Resource, grant.Token)
	}
	return nil
}

// open lets one resource go on as soon as that is durable.
func (g *Gate) open(wall time.Time, c Certificate, grant CertificateGrant) {
	r := g.resource(grant.Resource)
	if r.opening != nil { // what is under way goes on, or is drained
		g.end(r.opening, "the certificate "+c.ID+" took its place")
	}
	g.witness(grant.Token)
	if grant.Token > r.floor {
		g.raise(r, grant.Token, true, true)
	}
	r.opening = &opening{
		Opening: Opening{
			Certificate: c.ID, Group: grant.Group, Resource: grant.Resource, Region: grant.Region,
			Token: grant.Token, After: grant.After, OpenedAt: wall, Expires: c.Expires,
		},
		until: g.now.Add(c.Expires.Sub(wall)),
	}
	g.glass.openings = append(g.glass.openings, r.opening)
	g.disk.openings = true
	g.settle(r)
}

// recallOpenings takes up what a process before this one was opened for.
func (g *Gate) recallOpenings(s State) {
	g.glass.quorum = s.Quorum
	g.glass.wall, g.glass.wallAt = s.Wall, g.now
	g.glass.alive = g.now.Add(g.link.lease)
	for _, stored := range s.Openings {
		o := &opening{Opening: stored, durable: true, until: g.now.Add(stored.Expires.Sub(s.Wall))}
		g.glass.openings = append(g.glass.openings, o)
		if o.Closed != "" {
			continue
		}
		r := g.resource(o.Resource)
		r.opening = o
		switch {
		case s.Wall.IsZero() || s.Wall.Add(maxAhead).Before(o.OpenedAt):
			g.close(o, "the clock of this host went back")
		case !r.covered || o.Token != r.floor:
			g.close(o, "the guard's floors are others by now")
		default:
			g.settle(r)
		}
	}
}

const expired = "its certificate has expired"

// admits tells whether a resource is open by a certificate.
func (o *opening) admits() bool { return o != nil && o.durable }

// by tells whether a write may go by a certificate alone.
func (r *resource) by(token fence.Token) bool {
	return r != nil && r.opening.admits() && token == r.opening.Token && token == r.floor
}

// countOpening counts a write that a certificate let go.
func (g *Gate) countOpening(r *resource) {
	o := r.opening
	if o == nil {
		return
	}
	o.Last = g.glass.time(g.now)
	if o.Admitted++; o.Admitted == 1 {
		o.First = o.Last
	}
	if g.disk.idle() {
		g.disk.lazyAt = g.now.Add(lazyAfter)
	}
	g.disk.counts = true
}

// expireOpenings closes what a certificate does not cover any more.
func (g *Gate) expireOpenings() {
	for _, o := range g.glass.openings {
		if o.Closed == "" && !g.now.Before(o.until) && !mutant.On(mutant.BreakglassAfterExpiry) {
			g.close(o, expired)
		}
	}
}

// openingsWake is when the next certificate expires.
func (g *Gate) openingsWake() clock.Instant {
	wake := clock.Never
	for _, o := range g.glass.openings {
		if o.Closed == "" {
			wake = min(wake, o.until)
		}
	}
	return wake
}

// met takes in that there is a live quorum: from now on it decides, and nobody else.
func (g *Gate) met() {
	g.glass.alive = max(g.glass.alive, g.now.Add(g.link.lease))
	if mutant.On(mutant.BreakglassKeptAfterContact) {
		return
	}
	for _, o := range g.glass.openings {
		if o.Closed == "" {
			g.close(o, "the guard met a live quorum")
		}
	}
}

// close ends what a certificate allowed. What is under way under it is broken off.
func (g *Gate) close(o *opening, why string) {
	r := g.resources.byName[o.Resource]
	g.end(o, why)
	if r == nil || r.opening != o {
		return
	}
	r.opening = nil
	for i := range g.slots {
		if s := &g.slots[i]; s.res == r && s.state == underWay {
			g.breakOff(i)
		}
	}
	for _, index := range r.waiting {
		s := &g.slots[index]
		g.out.Decided = append(g.out.Decided, Decided{Ticket: ticketOf(int(index), s.generation), Token: s.token, Err: g.isolated(r.name)})
		g.parked--
		g.refused++
		g.vacate(index)
	}
	r.waiting = r.waiting[:0]
	g.settle(r)
}

// end notes that a certificate allows nothing any more.
func (g *Gate) end(o *opening, why string) {
	o.Closed, o.ClosedAt = why, g.glass.time(g.now)
	g.glass.closings++
	g.disk.openings = true
	g.warn("break-glass is over for %q: %s", o.Resource, why)
}

// contradicted closes what a newer writ shows to be over: somebody granted it.
func (g *Gate) contradicted(r *resource, token fence.Token) {
	if o := r.opening; o != nil && token > o.Token {
		g.witness(token)
		g.close(o, fmt.Sprintf("somebody presented a writ for the newer token %v", token))
	}
}

// untold are the openings that are over and that the quorum has not been told of.
func (g *Gate) untold() []*opening {
	var list []*opening
	for _, o := range g.glass.openings {
		if o.Closed != "" && !o.Told {
			list = append(list, o)
		}
	}
	return list
}

func (o *opening) message() *writv1.GuardOpening {
	m := &writv1.GuardOpening{
		Certificate: o.Certificate, Group: o.Group, Resource: o.Resource, Region: o.Region, Token: uint64(o.Token), After: uint64(o.After),
		OpenedAt: timestamppb.New(o.OpenedAt), ClosedAt: timestamppb.New(o.ClosedAt), Admitted: o.Admitted, Closed: o.Closed,
	}
	if o.Admitted > 0 {
		m.FirstAt, m.LastAt = timestamppb.New(o.First), timestamppb.New(o.Last)
	}
	return m
}

// told notes that the quorum knows of what an enrolment said.
func (g *Gate) toldOpenings(list []*opening) {
	for _, o := range list {
		o.Told = true
		g.disk.openings = true
	}
}

// storedOpenings are all that are to be remembered: what the quorum knows of is forgotten when its certificate cannot be used
// any more.
func (g *Gate) storedOpenings() []Opening {
	now := g.glass.time(g.now)
	g.glass.openings = slices.DeleteFunc(g.glass.openings, func(o *opening) bool { return o.Told && now.After(o.Expires.Add(maxAhead)) })
	list := make([]Opening, 0, len(g.glass.openings))
	for _, o := range g.glass.openings {
		list = append(list, o.Opening)
	}
	return list
}

// Openings answers what certificates did here, the oldest first. One that is not durable yet admits nothing, and is not among
// them.
func (g *Gate) Openings() []Opening {
	var list []Opening
	for _, o := range g.glass.openings {
		if o.durable || o.Closed != "" {
			list = append(list, o.Opening)
		}
	}
	return list
}

// Quorum answers what the gate knows of its quorum.
func (g *Gate) Quorum() Quorum { return g.glass.quorum }

// learn takes in which history the quorum is of, and who may open this gate without it. Of a contact, no approvers means that
// they have not changed.
func (g *Gate) learn(cluster, incarnation string, epoch uint32, approvers []byte, all bool) {
	if incarnation == "" || cluster == "" || !fence.Epoch(epoch).Valid() {
		return
	}
	q := g.glass.quorum
	before := q
	q.Cluster, q.Incarnation, q.Epoch = cluster, incarnation, fence.Epoch(epoch)
	set := &writv1.ApproverSet{}
	switch {
	case len(approvers) > 0 && proto.Unmarshal(approvers, set) == nil:
		q.Approvers, q.ApproversVersion = slices.Clone(approvers), set.GetVersion()
	case len(approvers) > 0:
		g.warn("the quorum's approvers cannot be read; the guard goes on with those that it knew")
	case all:
		q.Approvers, q.ApproversVersion = nil, 0
	case q.Incarnation != before.Incarnation:
		q.ApproversVersion = 0 // they may be others of the same version: it asks for them
	}
	g.glass.quorum = q
	g.disk.quorum = g.disk.quorum || q.Cluster != before.Cluster || q.Incarnation != before.Incarnation || q.Epoch != before.Epoch ||
		q.ApproversVersion != before.ApproversVersion || !slices.Equal(q.Approvers, before.Approvers)
}
