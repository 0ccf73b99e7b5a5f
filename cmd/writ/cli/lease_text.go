package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// How what is known of a lease is shown to people.

var leaseHeading = []string{"RESOURCE", "STATE", "TOKEN", "HOLDER", "GRANTED"}

func (a *app) leaseRow(l *writv1.Lease) []cell {
	return []cell{text(l.GetResource()), stateCell(l), text(tokenText(l)), text(holderText(l.GetHolder())), text(a.ago(l.GetGrantedAt()))}
}

func stateCell(l *writv1.Lease) cell {
	state := lease.StateFromProto(l.GetState())
	switch state {
	case lease.Held:
		return cell{state.String(), good}
	case lease.Ending, lease.Fencing:
		return cell{state.String(), weak}
	case lease.Free:
		if end := lease.EndFromProto(l.GetEnd()); end != lease.NotEnded {
			return cell{fmt.Sprintf("%v (%v)", state, end), faint}
		}
	}
	return cell{state.String(), faint}
}

// fencingText is the token that guards are being raised to.
func fencingText(l *writv1.Lease) string {
	token := l.GetFencing()
	if token == 0 {
		return ""
	}
	return bothTokens(token, fence.Token(token).String())
}

// proofsText says how each guard was proved to refuse older tokens.
func proofsText(l *writv1.Lease) string {
	var proofs []string
	for _, p := range l.GetProofs() {
		proofs = append(proofs, oneLine(p.GetGuard())+" "+oneLine(p.GetHow()))
	}
	return strings.Join(proofs, ", ")
}

// tokenText is the token for people.
func tokenText(l *writv1.Lease) string {
	if l.GetToken() == 0 {
		return ""
	}
	return l.GetTokenText()
}

// bothTokens is the token for machines and for people.
func bothTokens(token uint64, forPeople string) string {
	if token == 0 {
		return ""
	}
	return fmt.Sprintf("%d (%s)", token, forPeople)
}

func holderText(h *writv1.Holder) string {
	return oneLine(lease.HolderFromProto(h).String())
}

// ago says how long ago something was; longer than two days ago it is the date that counts.
func (a *app) ago(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	const recent = 48 * time.Hour
	if passed := a.now().Sub(at.AsTime()); passed < recent {
		return span(max(0, passed)) + " ago"
	}
	return at.AsTime().UTC().Format(time.RFC3339)
}

// span is a duration with as many digits as people care for.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Minute)
	if d >= 24*time.Hour {
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
	return strings.TrimSuffix(d.String(), "0s")
}

func spanText(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return span(d.AsDuration())
}

func durationText(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().String()
}

// shownBytes is how much of somebody's bytes is shown.
const shownBytes = 200

// bytesText shows bytes of anybody's making: as text if they are, and never so that they could move a cursor.
func bytesText(b []byte) string {
	s, rest := string(b), ""
	if len(b) > shownBytes {
		s, rest = strings.ToValidUTF8(string(b[:shownBytes]), ""), fmt.Sprintf("… (%d bytes)", len(b))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		s = strconv.QuoteToGraphic(s)
	}
	return s + rest
}
