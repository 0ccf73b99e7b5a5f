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
// the revision is the last one known then.
func (m *Member) Progress() quorum.Progress {
	backend := m.server.Backend()
	return quorum.Progress{
		RaftTerm:     m.server.Term(),
		AppliedIndex: m.server.AppliedIndex(),
		Revision:     m.revision(),
		Leader:       m.server.Lead(),
		DBBytes:      backend.SizeInUse(),
		DBFileBytes:  backend.Size(),
	}
}

// revision asks the database, which a goroutine that stands still for good may have locked.
func (m *Member) revision() int64 {
	known := make(chan int64, 1)
	go func() { known <- m.server.KV().Rev() }() // joined, unless the member has failed
	select {
	case revision := <-known:
		m.lastRevision.Store(revision)
		return revision
	case <-m.trip.c:
		return m.lastRevision.Load()
	}
}

// Compact drops history before revision: a watch from revision on still works. What is compacted already is no error.
func (m *Member) Compact(ctx context.Context, revision int64) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
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
