package store

import "encoding/binary"

// reads are the linearizable reads of a replica. As in etcd, one question to the leader answers for all reads that had begun
// before it was asked.
type reads struct {
	waiting []func() // for the next question
	asked   []func() // for the present one
	id      uint64   // of the present question; 0: none
	age     int      // ticks since it was first asked
	ready   []batch  // to be answered once their index is applied
	coming  bool     // the next question is about to be asked
}

type batch struct {
	index uint64
	calls []func()
}

// A question that is not answered is asked again after askAgain ticks; after giveUp its reads are never answered.
const (
	askAgain = 5
	giveUp   = 100
)

// begin has call called when the replica has applied everything that was committed before.
func (q *reads) begin(r *replica, call func()) {
	q.waiting = append(q.waiting, call)
	q.prepare(r)
}

// prepare asks the next question soon, but not from within the call that began a read.
func (q *reads) prepare(r *replica) {
	if q.coming || q.id != 0 || len(q.waiting) == 0 {
		return
	}
	q.coming = true
	r.seat.process.After(0, func() {
		q.coming = false
		if r.over() || q.id != 0 {
			return
		}
		q.asked, q.waiting, q.age = q.waiting, nil, 0
		q.ask(r)
		r.pump()
	})
}

func (q *reads) ask(r *replica) {
	q.id = r.cluster.serial()
	r.node.ReadIndex(binary.BigEndian.AppendUint64(nil, q.id))
}

func (q *reads) tick(r *replica) {
	if q.id == 0 {
		return
	}
	q.age++
	if q.age > giveUp {
		q.id, q.asked = 0, nil
		q.prepare(r)
	} else if q.age%askAgain == 0 {
		q.asked = append(q.asked, q.waiting...)
		q.waiting = nil
		q.ask(r)
	}
}

// confirmed takes in the answer to a question.
func (q *reads) confirmed(r *replica, index, id uint64) {
	if id != q.id {
		return // asked again since
	}
	q.ready = append(q.ready, batch{index, q.asked})
	q.id, q.asked = 0, nil
	q.prepare(r)
}

// answer answers the reads whose index is applied.
func (q *reads) answer(r *replica) {
	for len(q.ready) > 0 && q.ready[0].index <= r.applied {
		calls := q.ready[0].calls
		q.ready = q.ready[1:]
		for _, call := range calls {
			if r.dead {
				return
			}
			call()
		}
	}
}
