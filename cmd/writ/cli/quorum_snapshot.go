package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// snapshotTimeout bounds a backup: it takes as long as its size asks for, not as long as a request.
const snapshotTimeout = time.Hour

func (a *app) snapshotCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "snapshot FILE", Short: "Save a backup of the quorum's state",
		Long: `Save a backup of the state as the asked node has it. The file appears under its name only when it is whole and on disk.
"writ quorum restore" rebuilds a quorum from it. Unless --timeout is given it may take an hour.`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patient := *a
			if !cmd.Flags().Changed("timeout") {
				patient.timeout = snapshotTimeout
			}
			size, sum, err := patient.download(cmd.Context(), args[0], force, receiveSnapshot)
			if err != nil {
				return err
			}
			// As protobuf JSON has it, 64 bits are a string.
			data := map[string]string{"file": args[0], "bytes": strconv.FormatInt(size, 10), "sha256": sum}
			return a.print(data, func(w io.Writer) { _, _ = fmt.Fprintf(w, "saved %s: %d bytes, sha256 %s\n", args[0], size, sum) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it exists")
	return cmd
}

func receiveSnapshot(ctx context.Context, conn *grpc.ClientConn, w io.Writer) (size int64, err error) {
	stream, err := writv1.NewClusterServiceClient(conn).Snapshot(ctx, &writv1.SnapshotRequest{})
	if err != nil {
		return 0, err
	}
	return receive(stream, (*writv1.SnapshotResponse).GetChunk, w)
}
