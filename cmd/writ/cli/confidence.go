package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) confidenceCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "confidence GROUP --to REGION",
		Short: "Say whether a promotion would work if it were executed now",
		Long: `Say whether a promotion would work if it were executed now: the group's guards, agents, replication and approvers as the
coordinator knows them, and the quorum as it is reached from here. Each line that is red names what to do about it.

Exit code 0: go; 1: no go.`,
		Args: arguments("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.confidence(cmd.Context(), args[0], to) },
	}
	cmd.Flags().StringVar(&to, "to", "", "the `region` that would be primary; default: the eligible one with the highest priority")
	return cmd
}

func (a *app) confidence(ctx context.Context, group, to string) error {
	resp, err := askRegions(ctx, a.each, writv1.RegionServiceClient.Confidence, &writv1.ConfidenceRequest{Group: group, To: to})
	if err != nil {
		return err
	}
	g, err := a.getGroup(ctx, group)
	if err != nil {
		return err
	}
	st, err := a.status(ctx)
	if err != nil {
		return err
	}
	resp.Lines = append(resp.Lines, quorumLines(g, st)...)
	resp.Lines = append(resp.Lines, a.nodeLines(ctx, st)...)
	var red []string
	for _, l := range resp.GetLines() {
		if !l.GetOk() && !l.GetWarning() {
			red = append(red, l.GetCheck())
		}
	}
	resp.Go = resp.GetGo() && len(red) == 0
	if err := a.print(resp, func(w io.Writer) { a.printConfidence(w, resp) }); err != nil || resp.GetGo() {
		return err
	}
	return &exitError{code: lease.ExitError, cause: fmt.Errorf("no go: %d of %d checks are red: %s", len(red), len(resp.GetLines()), strings.Join(red, ", "))}
}

func (a *app) printConfidence(w io.Writer, resp *writv1.ConfidenceResponse) {
	var rows [][]cell
	for _, l := range resp.GetLines() {
		verdict := cell{"ok", good}
		switch {
		case !l.GetOk() && l.GetWarning():
			verdict = cell{"warning", weak}
		case !l.GetOk():
			verdict = cell{"red", bad}
		}
		rows = append(rows, []cell{text(oneLine(l.GetCheck())), verdict, text(oneLine(l.GetDetail())), text(oneLine(l.GetFix()))})
	}
	a.columns(w, []string{"CHECK", "VERDICT", "DETAIL", "FIX"}, rows)
	verdict := "go"
	if !resp.GetGo() {
		verdict = "no go"
	}
	_, _ = fmt.Fprintf(w, "\n%s\n", verdict)
}

// quorumLines looks at whether the quorum would outlive the region that is left: it decides when that one is gone.
func quorumLines(g *writv1.Group, st *writv1.StatusResponse) []*writv1.ConfidenceLine {
	var voters, left int
	var away, without []string
	domains := make(map[string]bool)
	for _, n := range st.GetNodes() {
		if n.GetLearner() {
			continue
		}
		voters++
		domains[n.GetRegion()] = true
		if !n.GetReachable() {
			away = append(away, n.GetName())
		} else if n.GetRegion() != g.GetPrimary() {
			left++
		}
	}
	for _, r := range g.GetSpec().GetRegions() {
		if !domains[r.GetName()] {
			without = append(without, r.GetName())
		}
	}
	reach := &writv1.ConfidenceLine{Check: "quorum", Ok: len(away) == 0, Detail: fmt.Sprintf("%s reaches all %d members", st.GetNode(), voters)}
	if !reach.Ok {
		reach.Detail = fmt.Sprintf("%s does not reach %s", st.GetNode(), strings.Join(away, ", "))
		reach.Fix = "bring them back, or replace them with writ quorum member replace"
	}
	need := voters/2 + 1
	survive := &writv1.ConfidenceLine{
		Check: "quorum without " + g.GetPrimary(), Ok: left >= need, Detail: fmt.Sprintf("%d of %d members are reached elsewhere, %d are needed", left, voters, need),
	}
	if !survive.Ok {
		survive.Fix = "run members in at least three failure domains: writ quorum member add"
	}
	lines := []*writv1.ConfidenceLine{reach, survive}
	if len(without) > 0 {
		lines = append(lines, &writv1.ConfidenceLine{
			Check: "failure domains", Warning: true, Detail: "the quorum has no member in " + strings.Join(without, ", "), Fix: "have one in every region of the group, or name regions alike",
		})
	}
	return lines
}

const (
	nodePatience = 3 * time.Second
	// A certificate that ends sooner is a warning, and one that ends within a day is red.
	certificateSoon, certificateNow = 14 * 24 * time.Hour, 24 * time.Hour
)

// nodeLines asks every node from here, and looks at its certificate.
func (a *app) nodeLines(ctx context.Context, st *writv1.StatusResponse) []*writv1.ConfidenceLine {
	cfg, err := a.config()
	if err != nil {
		return nil // the calls before have succeeded with it
	}
	creds, err := transport(cfg)
	if err != nil {
		return nil
	}
	var lines []*writv1.ConfidenceLine
	for _, n := range st.GetNodes() {
		line := &writv1.ConfidenceLine{Check: "node " + n.GetName()}
		lines = append(lines, line)
		var at peer.Peer
		err := errors.New("it has told no address")
		if n.GetApiAddress() != "" {
			err = ask(ctx, n.GetApiAddress(), creds, nodePatience, func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := writv1.NewClusterServiceClient(conn).Status(ctx, &writv1.StatusRequest{}, grpc.Peer(&at))
				return err
			})
		}
		if err != nil {
			// That it is not reached from here does not stop a promotion; that the others do not reach it is a line of its own.
			line.Warning, line.Detail, line.Fix = true, "it is not reached from here: "+oneLine(trouble(err)), "see that it runs, and that "+n.GetApiAddress()+" is reached"
			continue
		}
		line.Ok, line.Detail = true, "answers"
		a.judgeCertificate(line, &at)
	}
	return lines
}

func (a *app) judgeCertificate(line *writv1.ConfidenceLine, at *peer.Peer) {
	info, ok := at.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return // plain text
	}
	ends := info.State.PeerCertificates[0].NotAfter
	left := ends.Sub(a.now())
	line.Detail = fmt.Sprintf("answers; its certificate ends in %s", span(left))
	if left < certificateSoon {
		line.Ok, line.Warning, line.Fix = false, left >= certificateNow, "renew its certificate: the node reads the files again by itself"
	}
}
