package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// breakglassPlan is what a certificate is planned from.
type breakglassPlan struct {
	to, reason, requester, out   string
	guards, resources, nodes     []string
	attest                       []string
	statusFile, guardsFile       string
	dataDir                      string
	advance, onlyGuards, replace bool
	validFor                     time.Duration
}

func (a *app) breakglassPlanCommand() *cobra.Command {
	var f breakglassPlan
	cmd := &cobra.Command{
		Use: "plan --to REGION --guard ADDRESS… --resource NAME[=GROUP]… --out FILE", Short: "Plan a certificate",
		Long: `Plan a certificate. Every node that is known, from --endpoints, --node and a saved "writ quorum status -o json", is tried first:
the plan is refused while one answers that is not of the region which goes on, or while that region's own node knows a coordinator.
Each other region, and each guard elsewhere, has to be attested off by name: --attest region=us:"power cut at the breaker, ticket 7".
What the quorum's state was, the guards say that are to be opened.

Where nobody has saved anything, --data-dir takes its place: the data directory of a node that does not run says who took part,
and what was granted last. It is only read; the node's server has to be stopped.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.breakglassPlan(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "the `region` that writes from now on")
	flags.StringSliceVar(&f.guards, "guard", nil, "admin `address` of a guard that is to be opened, host:port or unix:/path; may be given several times")
	flags.StringSliceVar(&f.resources, "resource", nil, "a resource that is to be written, `NAME[=GROUP]`; may be given several times")
	flags.StringSliceVar(&f.nodes, "node", nil, "API address of a node, `host:port`, beside those of --endpoints and --status")
	flags.StringVar(&f.statusFile, "status", "", "a saved `file` of: writ quorum status -o json")
	flags.StringVar(&f.guardsFile, "guards", "", "a saved `file` of: writ guard list -o json")
	flags.StringVar(&f.dataDir, "data-dir", "", "the data `directory` of a node that does not run, instead of --status and --guards, or beside them")
	flags.BoolVar(&f.onlyGuards, "only-guards", false, "you know that there are no guards but those that are to be opened and those that are attested")
	flags.StringArrayVar(&f.attest, "attest", nil, "what is off for sure, and how you know: `KIND=NAME:STATEMENT`, KIND being region, guard or node")
	flags.BoolVar(&f.advance, "advance", false, "move to a token of the next epoch, for a region that takes over")
	flags.DurationVar(&f.validFor, "valid-for", 4*time.Hour, "how long the certificate is valid")
	flags.StringVar(&f.reason, "reason", "", "why")
	flags.StringVar(&f.requester, "requester", "", "who plans it; default: the user's name")
	flags.StringVar(&f.out, "out", "", "the `file` to write")
	flags.BoolVar(&f.replace, "force", false, "replace the file if it exists")
	return cmd
}

// knownGuard is what a guard says of itself and of its quorum.
type knownGuard struct {
	Name   string   `json:"name"`
	Region string   `json:"region"`
	Covers []string `json:"covers"`
	Known  struct {
		Cluster          string `json:"cluster"`
		Incarnation      string `json:"incarnation"`
		Epoch            uint32 `json:"epoch"`
		ApproversVersion uint64 `json:"approvers_version,string"`
	} `json:"known"`
	Base   fence.Token `json:"base"`
	Tokens []struct {
		Resource string      `json:"resource"`
		Token    fence.Token `json:"token"`
	} `json:"tokens"`
}

func (f breakglassPlan) check() error {
	for _, missing := range []struct {
		flag, value, fix string
	}{
		{"--to", f.to, "name the region that writes from now on"}, {"--guard", strings.Join(f.guards, ""), "name the admin address of each guard that is to be opened"},
		{"--resource", strings.Join(f.resources, ""), "name what is to be written, such as orders-db=orders"}, {"--reason", f.reason, "say why, for those who sign"},
		{"--out", f.out, "name the file to write"},
	} {
		if missing.value == "" {
			return lease.Invalid(missing.flag, "is missing", missing.fix)
		}
	}
	if f.validFor < time.Minute || f.validFor > breakglass.MaxValidity {
		return lease.Invalid("--valid-for", "is "+f.validFor.String(), "use 1m to "+breakglass.MaxValidity.String())
	}
	return nil
}

func (a *app) breakglassPlan(ctx context.Context, f breakglassPlan) error {
	if err := f.check(); err != nil {
		return err
	}
	attested, err := f.attested()
	if err != nil {
		return err
	}
	status, err := a.savedStatus(f)
	if err != nil {
		return err
	}
	list, err := a.savedGuards(f)
	if err != nil {
		return err
	}
	left, err := a.remains(f)
	if err != nil {
		return err
	}
	left.addTo(status, list)
	if err := a.probeNodes(ctx, f, status); err != nil {
		return err
	}
	if err := f.regionsAttested(status, attested); err != nil {
		return err
	}
	guards, err := a.knownGuards(ctx, f)
	if err != nil {
		return err
	}
	if err := guardsAttested(list, guards, attested); err != nil {
		return err
	}
	if err := a.agree(left, guards); err != nil {
		return err
	}
	c, err := f.certificate(a.now(), guards, attested, left)
	if err != nil {
		return err
	}
	doc, err := c.Encode()
	if err != nil {
		return lease.Invalid("certificate", "cannot be written: "+err.Error(), "correct what it names")
	}
	file := breakglass.File{Document: string(doc)}
	if err := writeCertificate(f.out, file, f.replace); err != nil {
		return lease.Invalid("--out", "cannot be written: "+err.Error(), "name another file, or give --force")
	}
	return a.print(json.RawMessage(doc), func(w io.Writer) {
		a.printCertificate(w, file, c)
		_, _ = fmt.Fprintf(w, "\nnext, each of the people who have to sign: writ breakglass sign %s --key …\n", f.out)
	})
}

func (f breakglassPlan) attested() ([]breakglass.Attested, error) {
	var list []breakglass.Attested
	for _, text := range f.attest {
		kind, rest, ok := strings.Cut(text, "=")
		name, statement, said := strings.Cut(rest, ":")
		if !ok || !said || strings.TrimSpace(statement) == "" || kind != breakglass.KindGuard && kind != breakglass.KindRegion && kind != breakglass.KindNode {
			return nil, lease.Invalid("--attest", fmt.Sprintf("is %q", text), `write it like region=us:"powered off by the site, ticket 7", or guard=…, or node=…`)
		}
		list = append(list, breakglass.Attested{Kind: kind, Name: name, Statement: strings.TrimSpace(statement), By: f.who()})
	}
	return list, nil
}

func (f breakglassPlan) who() string {
	if f.requester != "" {
		return f.requester
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "unknown"
}

func (a *app) savedStatus(f breakglassPlan) (*writv1.StatusResponse, error) {
	status := &writv1.StatusResponse{}
	if f.statusFile == "" {
		return status, nil
	}
	raw, err := a.readFile("--status", f.statusFile)
	if err != nil {
		return nil, err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, status); err != nil {
		return nil, lease.Invalid("--status", "cannot be read: "+err.Error(), "save it with: writ quorum status -o json")
	}
	return status, nil
}

// probeTime bounds how long a node is given to answer anything.
const probeTime = 5 * time.Second

// probeNodes refuses while there may be a quorum. A node that answers anything is alive.
func (a *app) probeNodes(ctx context.Context, f breakglassPlan, status *writv1.StatusResponse) error {
	addresses := slices.Clone(f.nodes)
	config, err := a.config()
	if err != nil && len(config.Endpoints) > 0 {
		return err // not to try them would be to take them for off
	}
	addresses = append(addresses, config.Endpoints...)
	regions := map[string]string{}
	for _, n := range status.GetNodes() {
		addresses = append(addresses, n.GetApiAddress())
		regions[n.GetApiAddress()] = n.GetRegion()
	}
	addresses = slices.DeleteFunc(addresses, func(address string) bool { return address == "" })
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	if len(addresses) == 0 {
		return lease.Invalid("--status", "is missing, and no node is named", `give a saved "writ quorum status -o json", or --data-dir, or each node with --node`)
	}
	for _, address := range addresses {
		conn, err := (&net.Dialer{Timeout: probeTime}).DialContext(ctx, "tcp", address)
		if err != nil {
			a.say("node %s does not answer: %v", oneLine(address), err)
			continue
		}
		_ = conn.Close() // that it opened was the answer
		if err := a.harmless(ctx, f.to, address, regions[address]); err != nil {
			return err
		}
	}
	return nil
}

// harmless says of a node that answers whether it is the survivor's own, and knows no quorum.
func (a *app) harmless(ctx context.Context, to, address, region string) error {
	alive := func(what string) error {
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("node %s answers: %s", address, what),
			Fix: "a quorum may be there, which decides for itself: find out with writ quorum status. Break-glass is for when every other region is off"}
	}
	if region != "" && region != to {
		return alive("region " + region + " is not off")
	}
	one := *a
	one.endpoints, one.timeout = []string{address}, probeTime
	status, err := one.status(ctx)
	if err != nil {
		return alive("and does not say what it is: " + err.Error())
	}
	for _, n := range status.GetNodes() {
		if n.GetName() == status.GetNode() {
			region = cmp.Or(n.GetRegion(), region)
		}
	}
	switch {
	case region != to:
		return alive(fmt.Sprintf("it is of region %q, and not of %q", region, to))
	case status.GetCoordinator() != "" || status.GetReady():
		return alive(fmt.Sprintf("there is a coordinator, %s: the quorum lives", cmp.Or(status.GetCoordinator(), "which is ready")))
	}
	a.say("node %s of region %s answers, and knows no quorum", address, region)
	return nil
}

// regionsAttested wants somebody to answer for each other region.
func (f breakglassPlan) regionsAttested(status *writv1.StatusResponse, attested []breakglass.Attested) error {
	regions := 0
	for _, n := range status.GetNodes() {
		if n.GetRegion() == f.to || n.GetRegion() == "" {
			continue
		}
		regions++
		if !attests(attested, breakglass.KindRegion, n.GetRegion()) && !attests(attested, breakglass.KindNode, n.GetName()) {
			return lease.Invalid("--attest", fmt.Sprintf("says nothing of region %s, where node %s was", n.GetRegion(), n.GetName()),
				fmt.Sprintf(`say how you know that it is off: --attest region=%s:"…"`, n.GetRegion()))
		}
	}
	if regions == 0 && !slices.ContainsFunc(attested, func(t breakglass.Attested) bool { return t.Kind == breakglass.KindRegion }) {
		return lease.Invalid("--attest", "says nothing of any other region", `say of each how you know that it is off: --attest region=us:"…"`)
	}
	return nil
}

func attests(list []breakglass.Attested, kind, name string) bool {
	return slices.ContainsFunc(list, func(t breakglass.Attested) bool { return t.Kind == kind && t.Name == name })
}

// knownGuards asks the guards that are to be opened.
func (a *app) knownGuards(ctx context.Context, f breakglassPlan) ([]knownGuard, error) {
	var list []knownGuard
	for _, address := range f.guards {
		var g knownGuard
		if err := askGuard(ctx, http.MethodGet, address, "/status", nil, &g); err != nil {
			return nil, fmt.Errorf("guard at %s: %w", address, err)
		}
		first := g
		if len(list) > 0 {
			first = list[0]
		}
		switch {
		case g.Known.Cluster == "" || g.Known.ApproversVersion == 0:
			return nil, lease.Errorf(lease.ReasonConflict, "guard %s remembers no quorum, or no approvers of one: no certificate opens it", g.Name)
		case g.Known != first.Known:
			return nil, lease.Errorf(lease.ReasonConflict, "guards %s and %s remember different quorums or approvers: %+v and %+v. Plan a certificate for each", first.Name, g.Name, first.Known, g.Known)
		}
		list = append(list, g)
	}
	return list, nil
}

// savedGuards are those that somebody has saved, or answers for that there are no others.
func (a *app) savedGuards(f breakglassPlan) (*writv1.ListGuardsResponse, error) {
	list := &writv1.ListGuardsResponse{}
	if f.guardsFile == "" {
		if f.onlyGuards || f.dataDir != "" {
			return list, nil
		}
		return nil, lease.Invalid("--guards", "is missing",
			`give a saved "writ guard list -o json", or --data-dir; or attest each guard elsewhere, and give --only-guards`)
	}
	raw, err := a.readFile("--guards", f.guardsFile)
	if err != nil {
		return nil, err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, list); err != nil {
		return nil, lease.Invalid("--guards", "cannot be read: "+err.Error(), "save it with: writ guard list -o json")
	}
	return list, nil
}

// guardsAttested wants somebody to answer for each guard that is not to be opened.
func guardsAttested(list *writv1.ListGuardsResponse, open []knownGuard, attested []breakglass.Attested) error {
	for _, g := range list.GetGuards() {
		if slices.ContainsFunc(open, func(o knownGuard) bool { return o.Name == g.GetName() }) || attests(attested, breakglass.KindGuard, g.GetName()) {
			continue
		}
		return lease.Invalid("--attest", fmt.Sprintf("says nothing of guard %s in %s", g.GetName(), g.GetRegion()),
			fmt.Sprintf(`say how you know that it admits nothing: --attest guard=%s:"…"; or open it as well`, g.GetName()))
	}
	return nil
}

func (f breakglassPlan) certificate(now time.Time, guards []knownGuard, attested []breakglass.Attested, left *lastKnown) (breakglass.Certificate, error) {
	known := guards[0].Known
	created := now.UTC().Truncate(time.Second)
	c := breakglass.Certificate{
		Format: breakglass.Format, Cluster: known.Cluster, Incarnation: known.Incarnation, Epoch: known.Epoch, Action: breakglass.Continue,
		ID: "breakglass-" + strconv.FormatUint(uint64(known.Epoch), 10) + "." + created.Format("20060102T150405Z"), Attested: attested,
		ApproversVersion: known.ApproversVersion, Requester: f.who(), Reason: f.reason, Created: created, Expires: created.Add(f.validFor.Truncate(time.Second)),
	}
	if f.advance {
		c.Action = breakglass.Advance
	}
	for _, g := range guards {
		c.Guards = append(c.Guards, g.Name)
	}
	for _, text := range f.resources {
		resource, group, _ := strings.Cut(text, "=")
		var last fence.Token
		for _, g := range guards {
			last = max(last, g.floorOf(resource))
		}
		group, last, err := left.granted(f, resource, group, last)
		if err != nil {
			return c, err
		}
		if last == 0 {
			return c, lease.Errorf(lease.ReasonNotFound, "no guard that is to be opened knows a token of %q", resource)
		}
		grant := breakglass.Grant{Group: group, Resource: resource, Region: f.to, Token: uint64(last), After: uint64(last)}
		if f.advance {
			next, err := fence.NewToken(fence.Epoch(known.Epoch)+1, breakglass.FirstSequence)
			if err != nil {
				return c, err
			}
			grant.Token = uint64(max(next, last+1))
		}
		c.Grants = append(c.Grants, grant)
	}
	slices.Sort(c.Guards)
	slices.SortFunc(c.Grants, func(a, b breakglass.Grant) int { return strings.Compare(a.Resource, b.Resource) })
	return c, nil
}

// floorOf is the newest token of a resource that the guard has seen; 0: it knows none. A floor that is not above the guard's base
// is not listed: the base is it then, for what the guard covers.
func (g knownGuard) floorOf(resource string) fence.Token {
	for _, t := range g.Tokens {
		if t.Resource == resource {
			return t.Token
		}
	}
	covers := slices.ContainsFunc(g.Covers, func(pattern string) bool {
		prefix, all := strings.CutSuffix(pattern, "*")
		return pattern == resource || all && strings.HasPrefix(resource, prefix)
	})
	if covers && g.Base.Valid() {
		return g.Base
	}
	return 0
}
