//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/wait"
)

// auditor is the identity that may export the audit log.
const auditor = "auditor"

// ExportAudit writes the quorum's audit log to a file, as whichever node answers has it, at most until ctx ends.
func (l *Lab) ExportAudit(ctx context.Context, path string) error {
	for i := 0; ; i++ {
		err := l.exportAudit(ctx, i%cluster.Size, path)
		if err == nil {
			return nil
		}
		if !wait.For(ctx, 100*time.Millisecond) {
			return errors.Join(fmt.Errorf("lab: the audit log cannot be had: %w", err), os.Remove(path))
		}
	}
}

func (l *Lab) exportAudit(ctx context.Context, node int, path string) (err error) {
	conn, err := l.Nodes.DialAs(node, auditor, l.Net.Dial(Observer))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := writv1.NewAuditServiceClient(conn).ExportAudit(ctx, &writv1.ExportAuditRequest{})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		piece, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if _, err := f.Write(piece.GetData()); err != nil {
			return err
		}
	}
}
