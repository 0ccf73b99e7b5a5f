package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// ErrCertificate means that a certificate of break-glass opens nothing here. The error says why.
var ErrCertificate = gate.ErrCertificate

// Opened is what a certificate has opened.
type Opened struct {
	Certificate breakglass.Certificate
	// Signers are those whose signatures counted.
	Signers []approval.Signer
	// Resources of the certificate that this guard covers, and admits from now on.
	Resources []string
}

// BreakGlass takes a certificate with its signatures, as [breakglass.File] holds them, and answers when what it opens is open
// and durable. Who has signed is judged by the approvers that the quorum told this guard of last. A certificate that is in
// force already is no error. Errors are [ErrCertificate], and those of ctx.
func (g *Guard) BreakGlass(ctx context.Context, raw []byte) (Opened, error) {
	opened, err := g.breakGlass(ctx, raw)
	if err != nil {
		g.logger.Warn("a certificate of break-glass was refused", "certificate", opened.Certificate.ID, "error", err)
		return opened, err
	}
	names := make([]string, 0, len(opened.Signers))
	for _, s := range opened.Signers {
		names = append(names, s.Approver+" ("+s.Key+")")
	}
	g.logger.Warn("BREAK-GLASS: admitting writes without a quorum", "certificate", opened.Certificate.ID, "resources", opened.Resources,
		"until", opened.Certificate.Expires, "signed_by", strings.Join(names, ", "), "reason", opened.Certificate.Reason)
	return opened, nil
}

func (g *Guard) breakGlass(ctx context.Context, raw []byte) (Opened, error) {
	file, c, err := breakglass.ParseFile(raw)
	opened := Opened{Certificate: c}
	if err != nil {
		return opened, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	g.mu.Lock()
	quorum := g.gate.Quorum()
	g.mu.Unlock()
	if opened.Signers, err = judge(file, c, quorum, g); err != nil {
		return opened, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	for _, grant := range c.Grants {
		if g.covers(grant.Resource) {
			opened.Resources = append(opened.Resources, grant.Resource)
		}
	}
	return opened, g.openBy(ctx, c)
}

// judge says who has signed, if it is enough.
func judge(file breakglass.File, c breakglass.Certificate, quorum gate.Quorum, g *Guard) ([]approval.Signer, error) {
	if len(quorum.Approvers) == 0 {
		return nil, errors.New("the quorum has never told this guard who may sign one: it has no approvers, or the guard has not enrolled since it has")
	}
	stored := &writv1.ApproverSet{}
	if err := proto.Unmarshal(quorum.Approvers, stored); err != nil {
		return nil, fmt.Errorf("the approvers that the quorum told cannot be read: %w", err)
	}
	set, err := approval.NewSet(stored)
	if err != nil {
		return nil, fmt.Errorf("the approvers that the quorum told cannot be used: %w", err)
	}
	return file.Judge(c, set, g.clock.Wall())
}

func (g *Guard) covers(resource string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Covers(resource)
}

// openBy has the gate open, and waits until that is durable.
func (g *Guard) openBy(ctx context.Context, c breakglass.Certificate) error {
	core := gate.Certificate{
		ID: c.ID, Cluster: c.Cluster, Incarnation: c.Incarnation, Epoch: fence.Epoch(c.Epoch), Guards: c.Guards,
		Advance: c.Action == breakglass.Advance, Created: c.Created, Expires: c.Expires,
	}
	for _, grant := range c.Grants {
		core.Grants = append(core.Grants, gate.CertificateGrant{
			Group: grant.Group, Resource: grant.Resource, Region: grant.Region, Token: fence.Token(grant.Token), After: fence.Token(grant.After),
		})
	}
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		return fmt.Errorf("%w: the guard is closed", ErrCertificate)
	}
	after := g.look()
	err := g.gate.BreakGlass(g.now, g.clock.Wall(), core)
	inForce := g.inForce(c.ID)
	waiting := make(chan struct{})
	g.opening[c.ID] = append(g.opening[c.ID], waiting)
	after = append(after, g.apply(g.gate.Take())...)
	g.mu.Unlock()
	g.finish(after)
	if err != nil || inForce {
		return err
	}
	select {
	case <-waiting:
		return nil
	case <-g.ctx.Done():
		return fmt.Errorf("%w: the guard is closed", ErrCertificate)
	case <-ctx.Done():
		return fmt.Errorf("%w: that it is open is not durable yet: %w", ErrCertificate, context.Cause(ctx))
	}
}

// inForce tells whether a certificate is in force. The caller holds mu.
func (g *Guard) inForce(id string) bool { return g.gate.InForce(id) }
