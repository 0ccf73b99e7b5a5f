package breakglass

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writ-io/writ/region/approval"
)

const (
	// Namespace of the signatures, and the first member of every certificate.
	Namespace = "writ-breakglass@v1"
	// Format is what a certificate's first member says.
	Format = Namespace

	// MaxValidity bounds how long a certificate may be valid: a rebuild of the quorum, and not a way to live without one.
	MaxValidity = 7 * 24 * time.Hour
	// MaxGrants bounds the resources of one certificate.
	MaxGrants = 64

	// FirstSequence is the least sequence of a token that Advance moves to. No quorum gets that far, so one that begins with the
	// same epoch cannot have issued the token, and goes above it when a guard remembers it.
	FirstSequence = 1 << 47

	maxGuards    = 256
	maxAttested  = 512
	maxText      = 1024
	maxResource  = 512
	maxName      = 64
	maxPrincipal = 2048
	maxEpoch     = 1<<15 - 1
	epochBits    = 48
)

// The actions.
const (
	// Continue lets the guards go on under the token of the last tenure.
	Continue = "continue"
	// Advance moves them to a token of the next epoch, for a region that takes over.
	Advance = "advance"
)

// The kinds of what is attested.
const (
	KindGuard  = "guard"
	KindRegion = "region"
	KindNode   = "node"
)

// Certificate lets guards go on without a quorum.
type Certificate struct {
	Format  string `json:"format"`
	Cluster string `json:"cluster"`
	// Incarnation and Epoch are the last that are known of the quorum.
	Incarnation string `json:"incarnation"`
	Epoch       uint32 `json:"epoch"`
	ID          string `json:"id"`
	Action      string `json:"action"`
	// Grants are in order of their resources, each once.
	Grants []Grant `json:"grants"`
	// Guards are the names of those that may be opened, in order.
	Guards   []string   `json:"guards"`
	Attested []Attested `json:"attested"`
	// ApproversVersion is that of the approvers whose rule the signatures have to satisfy.
	ApproversVersion uint64 `json:"approvers_version,string"`
	Requester        string `json:"requester"`
	Reason           string `json:"reason"`
	// By wall clock; UTC, whole seconds.
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Grant says which token of a resource is admitted.
type Grant struct {
	// Group is empty where the resource is no failover group's.
	Group    string `json:"group"`
	Resource string `json:"resource"`
	// Region is the one that writes from now on.
	Region string `json:"region"`
	Token  uint64 `json:"token,string"`
	// After is the newest token of the resource that the plan knew of: Token, if that goes on.
	After uint64 `json:"after,string"`
}

// Attested is what a person answers for.
type Attested struct {
	// Kind is guard, region or node.
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Statement string `json:"statement"`
	By        string `json:"by"`
}

// Encode writes the certificate as it is signed. Its lists have to be in order.
func (c Certificate) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Created, c.Expires = c.Created.UTC(), c.Expires.UTC()
	if c.Attested == nil {
		c.Attested = []Attested{}
	}
	return approval.Canonical(c)
}

// Parse reads a certificate. It takes only what Encode would have written.
func Parse(doc []byte) (Certificate, error) {
	if err := approval.CheckCanonical(doc); err != nil {
		return Certificate{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	var c Certificate
	if err := dec.Decode(&c); err != nil {
		return Certificate{}, fmt.Errorf("breakglass: the certificate: %w", err)
	}
	again, err := c.Encode()
	if err != nil {
		return Certificate{}, err
	}
	if !bytes.Equal(again, doc) {
		return Certificate{}, errors.New("breakglass: the certificate lacks a member, or spells one differently than writ does")
	}
	return c, nil
}

// Highest is the highest epoch that the certificate speaks of: a quorum that is rebuilt has to start above it.
func (c Certificate) Highest() uint32 {
	highest := c.Epoch
	for _, g := range c.Grants {
		highest = max(highest, uint32(g.Token>>epochBits))
	}
	return highest
}

func problem(format string, args ...any) error {
	return fmt.Errorf("breakglass: the certificate's "+format, args...)
}

func (c Certificate) check() error {
	if c.Format != Format {
		return problem("format is %.64q, not %q", c.Format, Format)
	}
	for _, m := range []struct {
		name, value string
		most        int
	}{
		{"cluster", c.Cluster, maxText}, {"incarnation", c.Incarnation, maxText}, {"id", c.ID, 128}, {"requester", c.Requester, maxPrincipal}, {"reason", c.Reason, maxText},
	} {
		if err := checkText(m.name, m.value, m.most); err != nil {
			return err
		}
	}
	switch {
	case c.Epoch == 0 || c.Epoch >= maxEpoch:
		return problem("epoch is %d, which is none that another can follow", c.Epoch)
	case c.Action != Continue && c.Action != Advance:
		return problem("action is %.64q, not %s or %s", c.Action, Continue, Advance)
	case c.ApproversVersion == 0:
		return problem("approvers_version is 0: without approvers nobody could sign")
	case c.Created.Nanosecond() != 0 || c.Expires.Nanosecond() != 0:
		return problem("times are not whole seconds")
	case !c.Expires.After(c.Created) || c.Expires.Sub(c.Created) > MaxValidity:
		return problem("expires is %s, which is not after created %s and at most %v later", c.Expires.UTC().Format(time.RFC3339), c.Created.UTC().Format(time.RFC3339), MaxValidity)
	case len(c.Guards) == 0 || len(c.Guards) > maxGuards:
		return problem("guards are %d: name 1 to %d", len(c.Guards), maxGuards)
	case len(c.Attested) > maxAttested:
		return problem("attested has %d entries, more than %d", len(c.Attested), maxAttested)
	}
	for i, name := range c.Guards {
		if err := checkText(fmt.Sprintf("guards[%d]", i), name, maxName); err != nil {
			return err
		}
		if i > 0 && name <= c.Guards[i-1] {
			return problem("guards are not in order, each once")
		}
	}
	return errors.Join(c.checkGrants(), c.checkAttested())
}

func (c Certificate) checkGrants() error {
	if len(c.Grants) == 0 || len(c.Grants) > MaxGrants {
		return problem("grants are %d: name 1 to %d", len(c.Grants), MaxGrants)
	}
	for i, g := range c.Grants {
		at := fmt.Sprintf("grants[%d]", i)
		if err := errors.Join(checkText(at+".resource", g.Resource, maxResource), checkText(at+".region", g.Region, maxName)); err != nil {
			return err
		}
		if g.Group != "" {
			if err := checkText(at+".group", g.Group, maxName); err != nil {
				return err
			}
		}
		if i > 0 && g.Resource <= c.Grants[i-1].Resource {
			return problem("grants are not in order of their resources, each once")
		}
		epoch, sequence := g.Token>>epochBits, g.Token&(1<<epochBits-1)
		switch {
		case epoch == 0 || epoch > maxEpoch || sequence == 0 || g.After > g.Token:
			return problem("%s.token is %s, which is no token, or older than after, %s", at, strconv.FormatUint(g.Token, 10), strconv.FormatUint(g.After, 10))
		case c.Action == Continue && g.After != g.Token:
			return problem("%s.after is not its token, though the action is %s", at, Continue)
		case c.Action == Continue && epoch > uint64(c.Epoch)+1:
			return problem("%s.token is of epoch %d, and the quorum's is %d", at, epoch, c.Epoch)
		case c.Action == Advance && sequence < FirstSequence:
			return problem("%s.token has the sequence %d, which a quorum may issue: %s takes %d or more", at, sequence, Advance, uint64(FirstSequence))
		case c.Action == Advance && (epoch != uint64(c.Epoch)+1 || g.After == g.Token):
			return problem("%s.token is of epoch %d and not newer than after: %s goes to epoch %d", at, epoch, Advance, c.Epoch+1)
		}
	}
	return nil
}

func (c Certificate) checkAttested() error {
	for i, a := range c.Attested {
		at := fmt.Sprintf("attested[%d]", i)
		if a.Kind != KindGuard && a.Kind != KindRegion && a.Kind != KindNode {
			return problem("%s.kind is %.64q, not guard, region or node", at, a.Kind)
		}
		err := errors.Join(checkText(at+".name", a.Name, maxName), checkText(at+".statement", a.Statement, maxText), checkText(at+".by", a.By, maxPrincipal))
		if err != nil {
			return err
		}
		if a.Kind == KindGuard && slices.Contains(c.Guards, a.Name) {
			return problem("%s says that guard %q is off, which is to be opened", at, a.Name)
		}
		if a.Kind == KindRegion && slices.ContainsFunc(c.Grants, func(g Grant) bool { return g.Region == a.Name }) {
			return problem("%s says that region %q is off, which is to write", at, a.Name)
		}
	}
	return nil
}

// checkText refuses what would not be shown as it is.
func checkText(name, text string, most int) error {
	switch {
	case strings.TrimSpace(text) == "":
		return problem("%s is empty", name)
	case len(text) > most:
		return problem("%s has %d bytes, at most %d are taken", name, len(text), most)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return problem("%s has characters that cannot be shown", name)
	}
	return nil
}
