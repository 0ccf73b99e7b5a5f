//writ:core

package quorum

import (
	"fmt"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What guards remember of tokens is evidence about the state, as the witnesses of nodes are. But a guard is one process of one
// principal, and its memory can be damaged or made up: what it can do to the epochs, of which there are 32767, is bounded.
const (
	// maxEpochsBehind is how far above the epoch of this history one can be that a guard remembers. An epoch is a rebuild or a
	// certificate of break-glass, each by people's hands, so a quorum that was rebuilt from old backups, with no witness left
	// and an epoch named too low, is a few behind. Between two that a guard brings about, the longest TTL passes.
	maxEpochsBehind = 64
	// maxGuardsEpoch is the last epoch that a guard can have the quorum leave behind. Those above are for members' witnesses and
	// for operators: no guard, and no number of guards, can use the epochs up.
	maxGuardsEpoch = fence.MaxEpoch / 2
)

// contradicted says why what a guard remembers shows that this state is not the history that its tokens were handed out from;
// nil if it shows no such thing.
func (e *Engine) contradicted(command any) *writv1.Recovery {
	token, ok := e.beyond(command)
	if !ok || e.incredible(token) {
		return nil
	}
	c, _ := command.(lease.GuardCall)
	reason := because(fmt.Sprintf("the state's tokens go up to %d.%d, but guard %s remembers %v",
		e.identity.Epoch, e.identity.Ceiling, c.Request.GetGuard(), token))
	if reason == "" {
		return nil
	}
	return &writv1.Recovery{Id: e.nonce, Reason: reason, Above: uint32(token.Epoch())}
}

// beyond answers the token that a guard remembers if this history cannot have granted it. It is asked only of guards that may
// have the name under which they enrol: others are refused, whatever they remember.
func (e *Engine) beyond(command any) (fence.Token, bool) {
	c, ok := command.(lease.GuardCall)
	if !ok || c.Request.GetEnrol() == nil || !e.table.MayWitness(c) {
		return 0, false
	}
	token := fence.Token(c.Request.GetEnrol().GetWitnessed())
	if !token.Valid() || token.Epoch() < e.epoch() || (token.Epoch() == e.epoch() && token.Sequence() <= e.identity.Ceiling) {
		return 0, false
	}
	return token, true
}

// incredible says that a token beyond this history is no evidence. There is an epoch above every one that is.
func (e *Engine) incredible(token fence.Token) bool {
	return token.Epoch() > maxGuardsEpoch || token.Epoch()-e.epoch() > maxEpochsBehind
}

// disbelieve refuses a guard whose memory is no evidence; nil if it is, or if there is nothing to be believed. The guard keeps
// its floors meanwhile, and closes when its lease is over.
func (e *Engine) disbelieve(c lease.GuardCall) *lease.Error {
	token, ok := e.beyond(c)
	if !ok || !e.incredible(token) {
		return nil
	}
	most := min(e.epoch()+maxEpochsBehind, maxGuardsEpoch)
	err := lease.Invalid("witnessed",
		fmt.Sprintf("is %v, but the tokens of this quorum go up to %d.%d: what a guard remembers is believed up to epoch %d",
			token, e.identity.Epoch, e.identity.Ceiling, most),
		"give the guard a new floor store; or, if that token was granted, rebuild the quorum with writ quorum restore --min-epoch N, "+
			"N being the highest epoch that anybody remembers")
	e.effects.Warning = fmt.Sprintf("guard %s of %s is not enrolled: %v", c.Request.GetGuard(), c.Principal, err)
	return err
}

// recoverAnew commits, before anything else is decided, that the state is foreign. The next term begins with the recovery.
func (e *Engine) recoverAnew(m lease.Moment) {
	e.identity.Recovery = e.contradiction
	reason := e.contradiction.Reason
	e.effects.Warning = "foreign state: " + reason + "; the epoch will be raised above every witness before anything is granted"
	e.audit(m, audit.Record{Actor: "node/" + e.config.Node, Action: "quorum.foreign-state", Target: e.config.Cluster, Reason: reason})
	e.send(nil, e.takeWrites())
}
