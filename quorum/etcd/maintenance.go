package etcd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/writ-io/writ/quorum"
)

// Progress answers how far the member is. RaftTerm is that of the newest applied entry. It waits for no database that has failed:
// what only that tells is the last that was known then.
func (m *Member) Progress() quorum.Progress {
	backend := m.server.Backend()
	p := quorum.Progress{
		RaftTerm:     m.server.Term(),
		AppliedIndex: m.server.AppliedIndex(),
		Leader:       m.server.Lead(),
		DBBytes:      backend.SizeInUse(),
		DBFileBytes:  backend.Size(),
	}
	h := m.history()
	p.Revision, p.Oldest, p.Compacting = h.newest, h.oldest, h.compacting
	return p
}

// history is what the database tells of its revisions.
type history struct {
	newest, oldest int64
	compacting     bool
}

// history asks the database, which a goroutine that stands still for good may have locked.
func (m *Member) history() history {
	known := make(chan history, 1)
	go func() { known <- m.readHistory() }() // joined, unless the member has failed
	select {
	case h := <-known:
		m.lastHistory.Store(&h)
		return h
	case <-m.trip.c:
		if h := m.lastHistory.Load(); h != nil {
			return *h
		}
		return history{}
	}
}

func (m *Member) readHistory() history {
	h := history{newest: m.server.KV().Rev(), oldest: m.server.KV().FirstRev()}
	_, leave, err := m.gate.enter(context.Background())
	if err != nil { // the database may be closed
		return h
	}
	defer leave()
	tx := m.server.Backend().ReadTx()
	tx.RLock()
	defer tx.RUnlock()
	scheduled, _ := mvcc.UnsafeReadScheduledCompact(tx)
	finished, _ := mvcc.UnsafeReadFinishedCompact(tx)
	h.compacting = scheduled != finished
	return h
}

// Recount has the backend write one small thing: it frees the pages of what was compacted, and counts them, only when a
// transaction follows. What is written is what is there.
func (m *Member) Recount() {
	done := make(chan struct{})
	go func() { // joined, unless the member has failed
		defer close(done)
		m.recount()
	}()
	select {
	case <-done:
	case <-m.trip.c:
	}
}

func (m *Member) recount() {
	_, leave, err := m.gate.enter(context.Background())
	if err != nil { // the database may be closed
		return
	}
	defer leave()
	backend := m.server.Backend()
	tx := backend.BatchTx()
	tx.LockOutsideApply()
	if finished, ever := mvcc.UnsafeReadFinishedCompact(tx); ever {
		mvcc.UnsafeSetFinishedCompact(tx, finished)
	}
	tx.Unlock()
	backend.ForceCommit()
}

// Compact drops history before revision: a watch from revision on still works. What is compacted already is no error. What
// the log holds is folded, for the next compaction: until then, values that were replaced or deleted there are kept.
func (m *Member) Compact(ctx context.Context, revision int64) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if term, ok := m.packs.begin(); ok {
		m.foldLater(int64(term))
	}
	_, err = m.server.Compact(ctx, &pb.CompactionRequest{Revision: revision})
	switch {
	case err == nil, errors.Is(err, mvcc.ErrCompacted):
		return nil
	case errors.Is(err, mvcc.ErrFutureRev):
		return fmt.Errorf("compact: revision %d is in the future: %w", revision, err)
	}
	return fmt.Errorf("compact: %w", unknown(ctx, err))
}

// Defragment gives free pages of the database file back. It blocks this member's reads and writes meanwhile.
func (m *Member) Defragment() error {
	_, leave, err := m.gate.enter(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	if err := m.server.Defragment(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}

// ClearNoSpace takes etcd's alarms for want of space back, on every member. Compact and defragment first: a write that
// finds too little space raises the alarm again.
func (m *Member) ClearNoSpace(ctx context.Context) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	for _, alarm := range m.server.Alarms() {
		if alarm.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		_, err := m.server.Alarm(ctx, &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarm.MemberID, Alarm: pb.AlarmType_NOSPACE})
		if err != nil {
			return fmt.Errorf("clear alarm of member %x: %w", alarm.MemberID, unknown(ctx, err))
		}
	}
	return nil
}

// Snapshot answers an image of the database as of now, followed by its SHA-256, and the size of both. The reader must be
// closed; it ends with an error when ctx does or the member stops.
func (m *Member) Snapshot(ctx context.Context) (io.ReadCloser, int64, error) {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	image := m.server.Backend().Snapshot()
	size := image.Size() + sha256.Size
	out, in := io.Pipe()
	reader := &snapshotReader{PipeReader: out, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = out.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer close(reader.done)
		defer leave()
		defer stop()
		hash := sha256.New()
		_, err := image.WriteTo(io.MultiWriter(in, hash))
		if err == nil {
			_, err = in.Write(hash.Sum(nil))
		}
		_ = in.CloseWithError(errors.Join(err, image.Close())) // nil means the end of the file
	}()
	return reader, size, nil
}

// snapshotReader is joined by Close.
type snapshotReader struct {
	*io.PipeReader
	done chan struct{} // closed when the writer has let go of the database
}

func (r *snapshotReader) Close() error {
	err := r.PipeReader.Close()
	<-r.done
	return err
}
