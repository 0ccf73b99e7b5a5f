package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

const (
	// maxGroups is how many a quorum has at the most.
	maxGroups = 4096
	// drillPrefix is what the resources of drills begin with.
	drillPrefix = "drill/"
	// quorumActor proposes what is done on evidence.
	quorumActor = "quorum"
	// removeAction is what the document of a group's removal says that it does.
	removeAction = "remove"
)

// intent is what the body of a document says of what it asks signatures for.
type intent struct {
	Action    string          `json:"action"`
	From      string          `json:"from"`
	To        string          `json:"to"`
	Mode      string          `json:"mode"`
	Automatic bool            `json:"automatic"`
	Spec      json.RawMessage `json:"spec"`
}

func (p *proposal) intent() (intent, error) {
	var said intent
	if err := json.Unmarshal(p.parsed.Body, &said); err != nil {
		return said, fmt.Errorf("the body of the document of operation %q cannot be read: %w", p.parsed.ID, err)
	}
	return said, nil
}

// applyGroup follows the specs of the groups: they say whose signatures an operation needs. What weakens that needs some itself.
func (l *ledger) applyGroup(r Record) error {
	spec := &writv1.GroupSpec{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(r.Detail[detailSpec]), spec); err != nil {
		return fmt.Errorf("its spec cannot be read: %w", err)
	}
	old, executed := l.groups[r.Target], l.changing
	l.changing = nil
	switch {
	case spec.Name != r.Target:
		return fmt.Errorf("its spec is that of the group %q", spec.Name)
	case spec.DrillOf != "" && !strings.HasPrefix(spec.Resource, drillPrefix):
		return fmt.Errorf("it is a drill, and its resource %q is not", spec.Resource)
	case old == nil && len(l.groups) >= maxGroups:
		return errors.New("there are more groups than a quorum allows")
	}
	if !l.context {
		if err := l.agreedGroup(r, executed, old, spec); err != nil {
			return err
		}
	}
	l.groups[r.Target] = spec
	return nil
}

// agreedGroup holds a spec against the document that was signed for it, or says that it needed one.
func (l *ledger) agreedGroup(r Record, p *proposal, old, spec *writv1.GroupSpec) error {
	id, begins := r.Detail[detailOperation], l.report.Start.Sequence
	switch {
	case id != "" && (id == l.unknown || p == nil && begins > 0 && r.Sequence == begins+1):
		l.report.unchecked(fmt.Sprintf("record %d: the operation %s was proposed in records that this bundle does not have", r.Sequence, id))
		return nil
	case id != "" && (p == nil || p.parsed.ID != id || p.parsed.Group != r.Target):
		return fmt.Errorf("the group is changed by operation %q, which was not executed right before it", id)
	case id != "":
		said, err := p.intent()
		if err != nil {
			return err
		}
		signed := &writv1.GroupSpec{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(said.Spec, signed); err != nil {
			return fmt.Errorf("the spec in the document of operation %q cannot be read: %w", id, err)
		}
		if !proto.Equal(signed, spec) {
			return fmt.Errorf("the spec is not that in the document of operation %q, which was signed", id)
		}
		return nil
	}
	what := l.loosened(old, spec)
	switch {
	case what == "":
		return nil
	case old == nil && begins > 0:
		l.report.unchecked(fmt.Sprintf("record %d: what the group %s was before may stand in records that this bundle does not have", r.Sequence, shown(r.Target)))
		return nil
	}
	return fmt.Errorf("it needs signatures, and has none: %s", what)
}

// loosened says what a spec asks less signatures for than the one before it, or than the approvers do; empty: nothing that
// anybody has to sign.
func (l *ledger) loosened(old, spec *writv1.GroupSpec) string {
	own := l.raw.GetRule()
	if own == nil || old == nil && spec.DrillOf != "" || old.GetApprovals().GetChange().GetNone() {
		return ""
	}
	for _, d := range spec.Automatic {
		if !slices.ContainsFunc(old.GetAutomatic(), func(o *writv1.Direction) bool { return proto.Equal(o, d) }) {
			return fmt.Sprintf("from %s to %s is automatic", d.GetFrom(), d.GetTo())
		}
	}
	if old != nil && spec.DrillOf != old.DrillOf {
		return "it becomes a drill, or ceases to be one"
	}
	before := old.GetApprovals()
	after := spec.GetApprovals()
	for _, rules := range [][2]*writv1.ApprovalRule{
		{before.GetSwitchover(), after.GetSwitchover()}, {before.GetFailover(), after.GetFailover()},
		{before.GetFailback(), after.GetFailback()}, {before.GetChange(), after.GetChange()},
	} {
		if looser := approval.Loosens(ruleOr(rules[0], own), ruleOr(rules[1], own)); len(looser) > 0 {
			return looser[0]
		}
	}
	return ""
}

func ruleOr(rule, own *writv1.ApprovalRule) *writv1.ApprovalRule {
	if rule == nil {
		return own
	}
	return rule
}

// ruled is the rule that an operation had to satisfy when it was executed; nil: that cannot be known.
func (l *ledger) ruled(p *proposal) (*writv1.ApprovalRule, error) {
	own := l.raw.GetRule()
	spec := l.groups[p.parsed.Group]
	switch {
	case p.parsed.Kind == approval.KindApproversChange:
		return own, nil
	case p.parsed.Group == "": // a guard that is gone, of the groups that it covered
		return nil, nil
	case spec == nil && l.report.Start.Sequence > 0:
		return nil, nil
	case spec == nil:
		return own, nil
	case p.parsed.Kind == approval.KindGroupChange:
		return l.ruledChange(p, spec)
	case p.parsed.Kind != approval.KindPromotion:
		return ruleOr(spec.GetApprovals().GetChange(), own), nil
	}
	said, err := p.intent()
	if err != nil {
		return nil, err
	}
	switch said.Mode {
	case "switchover":
		return ruleOr(spec.GetApprovals().GetSwitchover(), own), nil
	case "failback":
		return ruleOr(spec.GetApprovals().GetFailback(), own), nil
	default: // that a primary is named after a recovery is a failover too
		return ruleOr(spec.GetApprovals().GetFailover(), own), nil
	}
}

// ruledChange is the rule of a change of a group: the one for changes, and each that the change loosens.
func (l *ledger) ruledChange(p *proposal, old *writv1.GroupSpec) (*writv1.ApprovalRule, error) {
	own := l.raw.GetRule()
	change := ruleOr(old.GetApprovals().GetChange(), own)
	if old.DrillOf != "" {
		return change, nil
	}
	said, err := p.intent()
	if err != nil {
		return nil, err
	}
	spec := &writv1.GroupSpec{}
	if said.Action != removeAction {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(said.Spec, spec); err != nil {
			return nil, fmt.Errorf("the spec in the document of operation %q cannot be read: %w", p.parsed.ID, err)
		}
	}
	before, after := old.GetApprovals(), spec.GetApprovals()
	var loosened []*writv1.ApprovalRule
	if slices.ContainsFunc(spec.Automatic, func(d *writv1.Direction) bool {
		return !slices.ContainsFunc(old.Automatic, func(o *writv1.Direction) bool { return proto.Equal(o, d) })
	}) {
		loosened = append(loosened, ruleOr(before.GetFailover(), own))
	}
	for _, rules := range [][2]*writv1.ApprovalRule{
		{before.GetSwitchover(), after.GetSwitchover()}, {before.GetFailover(), after.GetFailover()},
		{before.GetFailback(), after.GetFailback()}, {before.GetChange(), after.GetChange()},
	} {
		if was := ruleOr(rules[0], own); said.Action == removeAction || len(approval.Loosens(was, ruleOr(rules[1], own))) > 0 {
			loosened = append(loosened, was)
		}
	}
	return approval.ForLoosening(change, loosened), nil
}

// onEvidence says why an operation cannot have been executed without anybody's signature, on evidence. unchecked says what
// of that could not be looked at.
func (l *ledger) onEvidence(p *proposal) (unchecked string, err error) {
	said, err := p.intent()
	if err != nil {
		return "", err
	}
	if p.parsed.Kind != approval.KindPromotion || !said.Automatic || p.parsed.Requester != quorumActor {
		return "", errors.New("it was executed as automatic, and its document is not that of an automatic promotion")
	}
	spec := l.groups[p.parsed.Group]
	if spec == nil && l.report.Start.Sequence > 0 {
		return "what is automatic in its group stands in records that this bundle does not have", nil
	}
	if !slices.ContainsFunc(spec.GetAutomatic(), func(d *writv1.Direction) bool { return d.GetFrom() == said.From && d.GetTo() == said.To }) {
		return "", fmt.Errorf("it was executed as automatic, and from %.80q to %.80q nothing is automatic in its group", said.From, said.To)
	}
	return "", nil
}

// signedBy checks a rule, and that the signers satisfied it. unchecked says what of that could not be looked at.
func (l *ledger) signedBy(p *proposal, written string, signers []approval.Signer) (unchecked string, err error) {
	if written == "" {
		return "", errors.New("it does not say which rule it had to satisfy")
	}
	rule := &writv1.ApprovalRule{}
	if err := protojson.Unmarshal([]byte(written), rule); err != nil {
		return "", fmt.Errorf("its rule cannot be read: %w", err)
	}
	want, err := l.ruled(p)
	switch {
	case err != nil:
		return "", err
	case want != nil && !proto.Equal(rule, want) && p.parsed.Kind == approval.KindApproversChange:
		return "", errors.New("it was executed by another rule than that of the approvers")
	case want != nil && !proto.Equal(rule, want):
		return "", errors.New("it was executed by another rule than its group asked for")
	}
	unknown := want == nil && p.parsed.Group != "" && l.report.Start.Sequence > 0
	if err := approval.CheckRule("its rule", rule, want != nil || unknown); err != nil {
		return "", err
	}
	switch {
	case rule.GetNone() && unknown:
		return "whether nobody had to sign stands in records that this bundle does not have", nil
	case rule.GetNone():
		return "", nil
	case l.set == nil:
		return "", errors.New("it needs signatures, and there are no approvers")
	}
	if missing := l.set.Missing(rule, p.parsed.Requester, signers); missing != "" {
		return "", fmt.Errorf("it was executed without what its rule asks for: %s", missing)
	}
	return "", nil
}
