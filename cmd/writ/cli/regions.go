package cli

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// What the commands about failover groups have in common.

// way is how a call finds a node: each or once.
type way func(context.Context, call) error

// groupBytes bounds answers: a thousand groups with their guards are more than gRPC takes by itself.
const groupBytes = 64 << 20

// regionMethod is a method of the API's client.
type regionMethod[Q, A any] func(writv1.RegionServiceClient, context.Context, Q, ...grpc.CallOption) (A, error)

// askRegions makes one call.
func askRegions[Q, A any](ctx context.Context, by way, method regionMethod[Q, A], req Q) (resp A, err error) {
	err = by(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = method(writv1.NewRegionServiceClient(conn), ctx, req, grpc.MaxCallRecvMsgSize(groupBytes))
		return err
	})
	return resp, err
}

// enumText is a value of an enumeration as people write it: without the prefix, in small letters, with hyphens.
func enumText(e protoreflect.Enum) string {
	d := e.Descriptor()
	v := d.Values().ByNumber(e.Number())
	if v == nil {
		return strconv.Itoa(int(e.Number()))
	}
	zero := string(d.Values().ByNumber(0).Name())
	prefix := strings.TrimSuffix(strings.TrimSuffix(zero, "UNSPECIFIED"), "UNKNOWN")
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix)), "_", "-")
}

// enumNamed is the value that people write so, and what there is to choose from.
func enumNamed(d protoreflect.EnumDescriptor, name string) (number protoreflect.EnumNumber, choice string) {
	var names []string
	values := d.Values()
	zero := string(values.ByNumber(0).Name())
	prefix := strings.TrimSuffix(zero, "UNSPECIFIED")
	for i := range values.Len() {
		v := values.Get(i)
		if v.Number() == 0 {
			continue
		}
		text := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix)), "_", "-")
		names = append(names, text)
		if text == name {
			number = v.Number()
		}
	}
	return number, strings.Join(names, ", ")
}

var byteUnits = map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

var bytesForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(B|KiB|MiB|GiB|TiB)$`)

// parseLoss reads an amount of writes: bytes, a time, or both with a comma between.
func parseLoss(flag, text string) (*writv1.Loss, error) {
	const fix = "use an amount such as 16MiB, a time such as 30s, or both: 16MiB,30s"
	if text == "" {
		return nil, nil
	}
	loss := &writv1.Loss{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if m := bytesForm.FindStringSubmatch(part); m != nil {
			n, err := strconv.ParseFloat(m[1], 64)
			if n *= byteUnits[m[2]]; err != nil || loss.Bytes != nil || n >= math.MaxInt64 || n != math.Trunc(n) {
				return nil, lease.Invalid(flag, fmt.Sprintf("is %q", text), fix)
			}
			bytes := uint64(n)
			loss.Bytes = &bytes
			continue
		}
		d, err := time.ParseDuration(part)
		if err != nil || d < 0 || loss.Time != nil {
			return nil, lease.Invalid(flag, fmt.Sprintf("is %q", text), fix)
		}
		loss.Time = durationpb.New(d)
	}
	return loss, nil
}

// bytesAmount is an amount of bytes as people read it.
func bytesAmount(n uint64) string {
	const step = 1 << 10
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f /= step; f < step {
			break
		}
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + unit
}

func lossOf(l *writv1.Loss) string {
	var parts []string
	if l.GetTime() != nil {
		parts = append(parts, l.GetTime().AsDuration().String())
	}
	if l != nil && l.Bytes != nil {
		parts = append(parts, bytesAmount(l.GetBytes()))
	}
	return strings.Join(parts, ", ")
}

func timeText(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return at.AsTime().UTC().Format(time.RFC3339)
}

// until says how long it is to a moment.
func (a *app) until(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	if left := at.AsTime().Sub(a.now()); left > 0 {
		return timeText(at) + " (in " + span(left) + ")"
	}
	return timeText(at) + " (over)"
}

// waitText is what is waited for, with how long that can still take.
func waitText(w *writv1.Wait) string {
	if w.GetLeft() == nil {
		return oneLine(w.GetWhat())
	}
	return fmt.Sprintf("%s (at most %s)", oneLine(w.GetWhat()), span(max(0, w.GetLeft().AsDuration()).Round(time.Second)))
}

func waitsText(waits []*writv1.Wait) string {
	var all []string
	for _, w := range waits {
		all = append(all, waitText(w))
	}
	return strings.Join(all, "; ")
}

// takesFile marks commands whose -o may also name a file.
const takesFile = "-o FILE"

// outFile adds --out, and lets -o name a file, for commands that answer a document to be signed.
func outFile(cmd *cobra.Command, path *string) {
	cmd.Annotations = map[string]string{takesFile: ""}
	cmd.Flags().StringVar(path, "out", "", "write the document that has to be signed to this `file`, too; -o takes a file's name as well (with a dot or a slash in it)")
}

// namesFile reports whether what -o was given is a file's name.
func namesFile(cmd *cobra.Command, output string) bool {
	_, takes := cmd.Annotations[takesFile]
	return takes && strings.ContainsAny(output, "./")
}

// saveDocument writes what people sign: exactly the bytes, so that ssh-keygen can sign the file as it is.
func (a *app) saveDocument(op *writv1.Operation, out string) error {
	if out == "" {
		out = a.file
	}
	if out == "" || op == nil {
		return nil
	}
	if err := os.WriteFile(out, op.GetDocument(), 0o644); err != nil { // nothing in it is secret
		return lease.Invalid("--out", "cannot be written: "+err.Error(), "name a file in a directory that you may write to")
	}
	a.say("wrote %s, SHA-256 %s; approve it with: writ promote approve %s --key FILE", out, op.GetDigest(), out)
	return nil
}
