package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// print writes data in the chosen form. table writes it for people.
func (a *app) print(data any, table func(io.Writer)) error {
	if a.output == "table" {
		table(a.stdout)
		return nil
	}
	raw, err := a.encode(data)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(raw)
	return err
}

func (a *app) encode(data any) (raw []byte, err error) {
	if m, ok := data.(proto.Message); ok {
		raw, err = protojson.Marshal(m)
	} else {
		raw, err = json.Marshal(data)
	}
	if err != nil {
		return nil, err
	}
	if a.output == "yaml" {
		return yaml.JSONToYAML(raw)
	}
	// protojson varies its white space on purpose.
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}

// printLine writes one event of a stream: a line of JSON, a YAML document, or a line for people.
func (a *app) printLine(m proto.Message, line string) error {
	if a.output == "table" {
		_, err := fmt.Fprintln(a.stdout, line)
		return err
	}
	raw, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	if a.output == "yaml" {
		if raw, err = yaml.JSONToYAML(raw); err == nil {
			_, err = fmt.Fprintf(a.stdout, "---\n%s", raw)
		}
		return err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, out.String())
	return err
}

// columns writes rows aligned. The first is the heading.
func columns(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				_, _ = fmt.Fprint(tw, "\t")
			}
			if cell == "" {
				cell = "-"
			}
			_, _ = fmt.Fprint(tw, cell)
		}
		_, _ = fmt.Fprintln(tw)
	}
	_ = tw.Flush()
}

// pairs writes names and values, one a line.
func pairs(w io.Writer, rows ...[2]string) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		if row[1] != "" {
			_, _ = fmt.Fprintf(tw, "%s\t%s\n", row[0], row[1])
		}
	}
	_ = tw.Flush()
}

// leaseRow is one lease in a table.
func leaseRow(l *writv1.Lease) []string {
	return []string{l.GetResource(), stateText(l), tokenText(l.GetToken(), l.GetTokenText()), holderText(l.GetHolder()), age(l)}
}

var leaseHeading = []string{"RESOURCE", "STATE", "TOKEN", "HOLDER", "GRANTED"}

func stateText(l *writv1.Lease) string {
	state := lease.State(0)
	switch l.GetState() {
	case writv1.LeaseState_LEASE_STATE_FREE:
		state = lease.Free
	case writv1.LeaseState_LEASE_STATE_HELD:
		state = lease.Held
	case writv1.LeaseState_LEASE_STATE_ENDING:
		state = lease.Ending
	case writv1.LeaseState_LEASE_STATE_UNSPECIFIED:
	}
	if end := lease.EndFromProto(l.GetEnd()); state == lease.Free && end != lease.NotEnded {
		return fmt.Sprintf("%v (%v)", state, end)
	}
	return state.String()
}

func tokenText(token uint64, text string) string {
	if token == 0 {
		return ""
	}
	return text
}

func holderText(h *writv1.Holder) string {
	if h == nil {
		return ""
	}
	return lease.Holder{Principal: lease.Principal(h.GetPrincipal()), Instance: h.GetInstance(), Region: h.GetRegion()}.String()
}

func age(l *writv1.Lease) string {
	if l.GetGrantedAt() == nil {
		return ""
	}
	d := time.Since(l.GetGrantedAt().AsTime())
	switch {
	case d < 0:
		return "now"
	case d < 10*time.Second:
		return d.Round(100*time.Millisecond).String() + " ago"
	case d < 48*time.Hour:
		return d.Round(time.Second).String() + " ago"
	}
	return l.GetGrantedAt().AsTime().UTC().Format(time.RFC3339)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
