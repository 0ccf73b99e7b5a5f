package sim

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// asks tells that a client sends a command to a node.
func (s *story) asks(p *world.Process, node string, command lease.Command) {
	if s == nil {
		return
	}
	s.event(p, trace.EventRequest, "asks %s to %s", node, wish(command))
}

// wish is a command in words.
func wish(command lease.Command) string {
	switch c := command.(type) {
	case lease.Acquire:
		text := fmt.Sprintf("acquire %s for %v, request %s", c.Resource, c.TTL, c.RequestID)
		if c.Wait > 0 {
			return fmt.Sprintf("%s, and waits up to %v", text, c.Wait.Round(time.Millisecond))
		}
		return text + ", without waiting"
	case lease.Renew:
		return "renew " + refsIn(c.Refs)
	case lease.Release:
		return "release " + refsIn([]lease.Ref{c.Ref})
	case lease.Checkpoint:
		return fmt.Sprintf("store a checkpoint of %s", refsIn([]lease.Ref{c.Ref}))
	case lease.CancelAcquire:
		return fmt.Sprintf("forget request %s for %s", c.RequestID, c.Resource)
	case lease.Inspect:
		return fmt.Sprintf("inspect %s", c.Resource)
	}
	return fmt.Sprintf("%T", command)
}

func refsIn(refs []lease.Ref) string {
	words := make([]string, len(refs))
	for i, r := range refs {
		words[i] = fmt.Sprintf("%s under %v", r.Resource, r.Token)
	}
	return strings.Join(words, ", ")
}

// answers tells what a client hears of its command.
func (s *story) answers(p *world.Process, node string, command lease.Command, r lease.Reply) {
	if s == nil {
		return
	}
	if r.Err != nil {
		s.event(p, trace.EventAnswer, "hears from %s: %v", node, r.Err)
		return
	}
	switch value := r.Value.(type) {
	case *lease.Grant:
		return // whoever makes a hold of it tells
	case *lease.Waiting:
		s.event(p, trace.EventAnswer, "hears from %s that it is number %d in the queue, behind %v", node, value.Position, value.HeldToken)
		return
	case lease.RenewOutcome:
		for _, f := range value.Failures {
			s.event(p, trace.EventAnswer, "hears from %s: %v", node, f.Err)
		}
		if c, ok := command.(lease.Renew); ok && len(value.Failures) < len(c.Refs) {
			s.event(p, trace.EventAnswer, "hears from %s: renewed %d of %d", node, len(c.Refs)-len(value.Failures), len(c.Refs))
		}
		return
	}
	s.event(p, trace.EventAnswer, "hears from %s: done", node)
}

// silent tells that a client stops waiting for an answer.
func (s *story) silent(p *world.Process, node string, waited time.Duration) {
	if s == nil {
		return
	}
	s.event(p, trace.EventAnswer, "has heard nothing from %s for %v", node, waited.Round(time.Millisecond))
}

// committed tells what a change of the store means for resources and for who decides.
func (s *story) committed(r *run, c quorum.Change) {
	if s == nil {
		return
	}
	var words []string
	for _, e := range c.Entries {
		switch {
		case e.Key == quorum.KeyTerm:
			var claim writv1.TermRecord
			if proto.Unmarshal(e.Value, &claim) == nil {
				s.decides = claim.GetNode()
				words = append(words, fmt.Sprintf("claim of term %d", c.Revision))
			}
		case strings.HasPrefix(e.Key, quorum.LeaseKey("")):
			words = append(words, fate(lease.Resource(e.Key[len(quorum.LeaseKey("")):]), e.Value))
		case strings.HasPrefix(e.Key, quorum.NodeKey("")):
			words = append(words, "what "+e.Key[len(quorum.NodeKey("")):]+" says of itself")
		case e.Key == quorum.KeyIdentity:
			words = append(words, identity(e.Value))
		}
	}
	if len(words) == 0 {
		return
	}
	var by *world.Process
	if n := r.nodeNamed(s.decides); n != nil {
		by = n.process
	}
	s.event(by, trace.EventCommit, "committed as revision %d: %s", c.Revision, strings.Join(words, "; "))
}

// identity is what the quorum says of itself, in words.
func identity(value []byte) string {
	var id writv1.IdentityRecord
	if err := proto.Unmarshal(value, &id); err != nil {
		return fmt.Sprintf("an identity that cannot be read: %v", err)
	}
	words := fmt.Sprintf("epoch %d, sequences up to %d, %d members", id.GetEpoch(), id.GetCeiling(), len(id.GetMembers()))
	if rec := id.GetRecovery(); rec != nil {
		words += ", recovering: " + rec.GetReason()
	}
	return words
}

// fate is what the record of a resource says, in words.
func fate(name lease.Resource, value []byte) string {
	var rec lease.Record
	if value == nil {
		return string(name) + " is forgotten"
	}
	if err := rec.UnmarshalBinary(value); err != nil {
		return fmt.Sprintf("%s cannot be read: %v", name, err)
	}
	words := fmt.Sprintf("%s is free, %v %v", name, rec.Token, rec.End)
	var before fence.Token
	var end lease.End
	if rec.Held {
		words = fmt.Sprintf("%s is held under %v by %s", name, rec.Token, rec.Holder.Instance)
	}
	for _, o := range rec.Outcomes {
		if o.Token > before && o.Token < rec.Token {
			before, end = o.Token, o.End
		}
	}
	if rec.Held && before != 0 {
		words += fmt.Sprintf(", after %v %v", before, end)
	}
	return words
}
