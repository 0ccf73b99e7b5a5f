package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

type watchFlags struct {
	prefix, resume string
	held           bool // show the present state of held resources only
}

func (a *app) watchCommand() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Follow what changes, until Ctrl-C",
		Long: `Follow what changes: the present state first, then "synced", then every change once and in order, also when nodes fail.
"resync" means that history cannot be continued: what came before is void, and the present state follows.

With -o json every line is one event. Its resumeToken, given to --resume, goes on right behind it, at any node. An event
tells what was committed; it never confers ownership.`,
		Args: arguments("[PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.prefix = strings.Join(args, "")
			return a.watch(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.resume, "resume", "", "go on behind this `token`")
	return cmd
}

func (a *app) watch(ctx context.Context, f watchFlags) error {
	a, end := a.unhindered()
	defer end()
	client, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // always nil
	for event, err := range client.Watch(ctx, lease.WatchOptions{Prefix: f.prefix, ResumeToken: f.resume}) {
		if err != nil {
			if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, lease.ErrClosed)) {
				return nil // somebody ended it
			}
			return err
		}
		if f.held && event.Kind == lease.EventState && event.Info.State == lease.Free {
			continue
		}
		if err := a.printNext(watchResponse(event), watchLine(event)); err != nil {
			return err
		}
	}
	return nil
}

var watchKinds = map[lease.EventKind]writv1.WatchResponse_Kind{
	lease.EventState: writv1.WatchResponse_KIND_STATE, lease.EventSynced: writv1.WatchResponse_KIND_SYNCED,
	lease.EventChanged: writv1.WatchResponse_KIND_CHANGED, lease.EventRemoved: writv1.WatchResponse_KIND_REMOVED,
	lease.EventResync: writv1.WatchResponse_KIND_RESYNC, lease.EventProgress: writv1.WatchResponse_KIND_PROGRESS,
}

func watchResponse(event lease.WatchEvent) *writv1.WatchResponse {
	out := &writv1.WatchResponse{Kind: watchKinds[event.Kind], ResumeToken: event.ResumeToken}
	if event.Info.Resource != "" {
		out.Lease = lease.InfoToProto(&event.Info)
	}
	return out
}

// watchLine is an event for people, "" for one that says nothing to them. Its columns have a least width, because what
// comes next is not known.
func watchLine(event lease.WatchEvent) string {
	switch {
	case event.Kind == lease.EventProgress:
		return ""
	case event.Info.Resource == "":
		return event.Kind.String()
	}
	l := lease.InfoToProto(&event.Info)
	return strings.TrimRight(fmt.Sprintf("%-8v  %-24s  %-15s  %-8s  %s",
		event.Kind, l.GetResource(), stateCell(l).text, tokenText(l), holderText(l.GetHolder())), " ")
}
