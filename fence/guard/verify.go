package guard

import (
	"strings"
	"sync"

	"github.com/writ-io/writ/fence"
)

// proven is what a verified writ says.
type proven struct {
	resource string
	token    fence.Token
}

// verifier tells real writs from others, and recognises those that it has seen.
//
// What was seen is kept in two generations: a writ that is met again moves to the young one; when that is full it becomes the
// old one, and what is in the old one is forgotten. Only what the quorum signed is kept, so that nobody can push it out.
type verifier struct {
	limit int // bytes of a generation

	mu         sync.RWMutex
	keys       fence.KeySet      // guarded by mu
	issuer     string            // guarded by mu
	young, old map[string]proven // guarded by mu
	bytes      int               // guarded by mu; of the young ones
	changes    uint64            // guarded by mu; of keys and issuer
}

// entryBytes is what a writ costs besides its text, roughly.
const entryBytes = 128

func newVerifier(limit int) *verifier {
	return &verifier{limit: max(0, limit) / 2, young: make(map[string]proven)}
}

// verify returns what a writ says, [fence.ErrUnknownKey] or [fence.ErrInvalidWrit]; known is false if the quorum's keys or its
// name are not known yet.
func (v *verifier) verify(compact string) (p proven, known bool, err error) {
	v.mu.RLock()
	p, seen := v.young[compact]
	aging := false
	if !seen {
		p, aging = v.old[compact]
	}
	keys, issuer, changes := v.keys, v.issuer, v.changes
	v.mu.RUnlock()
	switch {
	case seen:
		return p, true, nil
	case aging:
		v.keep(compact, p, changes)
		return p, true, nil
	case issuer == "" || keys.Len() == 0:
		return proven{}, false, nil
	}
	w, err := keys.Verify(compact)
	if err == nil {
		err = w.Require(fence.Expected{Issuer: issuer})
	}
	if err != nil {
		return proven{}, true, err
	}
	p = proven{resource: w.Resource, token: w.Token}
	v.keep(compact, p, changes)
	return p, true, nil
}

// keep remembers a writ that was verified while keys and issuer had changed that often.
func (v *verifier) keep(compact string, p proven, changes uint64) {
	size := 2*len(compact) + entryBytes // the resource is part of the text
	if size > v.limit {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changes != changes {
		return
	}
	if _, there := v.young[compact]; there {
		return
	}
	if v.bytes+size > v.limit {
		v.old, v.young, v.bytes = v.young, make(map[string]proven), 0
	}
	// Not a piece of a buffer that would then be kept with it.
	v.young[strings.Clone(compact)] = p
	v.bytes += size
}

// trust goes by other keys or another issuer from now on; what was verified before has to be verified again.
func (v *verifier) trust(keys fence.KeySet, issuer string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys, v.issuer = keys, issuer
	v.young, v.old, v.bytes = make(map[string]proven), nil, 0
	v.changes++
}

// count returns how many keys and writs it knows.
func (v *verifier) count() (keys, writs int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.keys.Len(), len(v.young) + len(v.old)
}
