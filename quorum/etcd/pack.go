package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-io/writ/quorum"
)

// A put costs etcd far more than its bytes: an index entry, a database page, a watch event, on every member. Most of a
// commit's writes are small records of resources, so a commit packs those into one put under a key of the log, and the
// current term's member folds the log into the keys themselves now and then (see fold.go). The state is the keys with the
// log applied on top, in the order of revisions.
const (
	logPrefix = "/writ.log/"
	// logEnd is the first key after the log; it is also the first that may be under quorum.Prefix.
	logEnd = "/writ.log0"
)

var errUnreadableLog = errors.New("unreadable log entry")

// logKey names a commit's entry in the log. The member is in it because a term may be used through any member; within
// one member and term, keys sort in the order of commits.
func logKey(term int64, member, sequence uint64) []byte {
	return fmt.Appendf(nil, "%s%016x/%016x/%016x", logPrefix, term, member, sequence)
}

// sole begins a log entry that is all its commit wrote. No other begins like that: the length of a key is never 0.
const sole = 0

// markSole marks a log entry as sole.
func markSole(packed []byte) []byte { return slices.Insert(packed, 0, sole) }

func isSole(key string, value []byte) bool {
	return strings.HasPrefix(key, logPrefix) && len(value) > 0 && value[0] == sole
}

// pack answers the packed form of those writes that may be packed, nil if there are none, and the others.
func pack(writes []quorum.Write) (packed []byte, direct []quorum.Write) {
	size := 1 // for markSole
	for _, w := range writes {
		size += len(w.Key) + len(w.Value) + 2*binary.MaxVarintLen32
	}
	for _, w := range writes {
		if !quorum.Packable(w.Key) {
			direct = append(direct, w)
			continue
		}
		if packed == nil {
			packed = make([]byte, 0, size)
		}
		packed = binary.AppendUvarint(packed, uint64(len(w.Key)))
		packed = append(packed, w.Key...)
		if w.Value == nil {
			packed = append(packed, 0)
			continue
		}
		packed = binary.AppendUvarint(packed, uint64(len(w.Value))+1)
		packed = append(packed, w.Value...)
	}
	return packed, direct
}

// unpack calls visit for every write of a log entry, in order. Values are parts of packed; nil is a delete.
func unpack(packed []byte, visit func(key string, value []byte)) error {
	if len(packed) > 0 && packed[0] == sole {
		packed = packed[1:]
	}
	for len(packed) > 0 {
		key, rest, ok := cutBytes(packed, 0)
		if !ok || len(key) == 0 {
			return errUnreadableLog
		}
		n, width := binary.Uvarint(rest)
		if width <= 0 {
			return errUnreadableLog
		}
		if n == 0 {
			visit(string(key), nil)
			packed = rest[width:]
			continue
		}
		value, rest, ok := cutBytes(rest, 1)
		if !ok {
			return errUnreadableLog
		}
		visit(string(key), value)
		packed = rest
	}
	return nil
}

// cutBytes reads a length, which is by bias too large, and as many bytes.
func cutBytes(b []byte, bias uint64) (head, rest []byte, ok bool) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n < bias || n-bias > uint64(len(b)-width) {
		return nil, nil, false
	}
	end := width + int(n-bias)
	return b[width:end:end], b[end:], true
}
