package store

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// send sends those messages that promise something, and the others, as wanted.
func (r *replica) send(messages []*raftpb.Message, promising, others bool) {
	for _, m := range messages {
		if promises(m) && promising || !promises(m) && others {
			r.sendOne(m)
		}
	}
}

// sendOne sends a message. The receiver may keep it: raft changes neither a message that it has sent nor the entries in it.
func (r *replica) sendOne(m *raftpb.Message) {
	to := r.cluster.byID[m.GetTo()]
	if to == nil {
		return
	}
	net, l := r.cluster.net, r.log.lineage
	switch m.GetType() {
	case raftpb.MsgProp, raftpb.MsgReadIndex, raftpb.MsgTransferLeader:
		// These may be forwarded, and a proposal that came twice would be made twice: etcd's peers speak over TCP.
		arrived := false
		net.Send(r.seat.process, to.process, func() {
			if !arrived {
				arrived = true
				to.receive(l, m, nil)
			}
		})
	case raftpb.MsgSnap:
		r.superviseSnapshot(m.GetTo())
		if i := r.log.imageAt(m.GetSnapshot().GetMetadata().GetIndex()); i != nil {
			net.Send(r.seat.process, to.process, func() { to.receive(l, m, i) })
		}
	default:
		net.Send(r.seat.process, to.process, func() { to.receive(l, m, nil) })
	}
}

// superviseSnapshot tells raft some time later that a snapshot is lost, which it does not find out by itself. If it has arrived,
// raft knows, and does not listen.
func (r *replica) superviseSnapshot(to uint64) {
	r.seat.process.After(2*r.cluster.timing.Election, func() {
		if !r.over() {
			r.node.ReportSnapshot(to, raft.SnapshotFailure)
			r.pump()
		}
	})
}

// expel tells a member that it has been removed, as etcd's peers do: nobody else tells it what was decided since.
func (r *replica) expel(id uint64) {
	to := r.cluster.byID[id]
	if to == nil {
		return
	}
	l := r.log.lineage
	r.cluster.net.Send(r.seat.process, to.process, func() {
		if o := to.replica; o != nil && !o.over() && o.log.lineage == l && o.log.member == id {
			o.stop()
			o.notify()
		}
	})
}

// quiet is raft's logger: everything that raft has to say shows in what it does.
type quiet struct{}

func (quiet) Debug(...any)              {}
func (quiet) Debugf(string, ...any)     {}
func (quiet) Error(...any)              {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Info(...any)               {}
func (quiet) Infof(string, ...any)      {}
func (quiet) Warning(...any)            {}
func (quiet) Warningf(string, ...any)   {}
func (quiet) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (quiet) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (quiet) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (quiet) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
