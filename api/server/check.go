package server

import (
	"errors"
	"fmt"
	"time"
	"unicode"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// checker validates requests by the rules in the .proto files. For the messages of the hot path the rules are written out
// by hand: protovalidate takes 2 µs and more for each, and walks into every lease of a renewal, where one that is unusable
// must not spoil the others. A test holds that the hand-written rules are at least as strict.
type checker struct {
	validator protovalidate.Validator
}

func newChecker() (*checker, error) {
	v, err := protovalidate.New(protovalidate.WithMessages(
		&writv1.CancelAcquireRequest{}, &writv1.ForceReleaseRequest{}, &writv1.ListRequest{}, &writv1.WatchRequest{},
		&writv1.IssueWritRequest{}, &writv1.KeysRequest{}, &writv1.StatusRequest{}, &writv1.MemberAddRequest{},
		&writv1.MemberRemoveRequest{}, &writv1.MoveCoordinatorRequest{}, &writv1.SnapshotRequest{},
		&writv1.GuardRequest{}, &writv1.ListGuardsRequest{}, &writv1.RemoveGuardRequest{}, &writv1.VerifyGuardsRequest{}, &writv1.GetGuardRequest{},
		&writv1.GetGuardingRequest{}, &writv1.SetGuardingRequest{},
		&writv1.ApplyGroupRequest{}, &writv1.RemoveGroupRequest{}, &writv1.ListGroupsRequest{}, &writv1.GetGroupRequest{},
		&writv1.PlanRequest{}, &writv1.ExecuteRequest{}, &writv1.AbortRequest{}, &writv1.ResumeRequest{},
		&writv1.AcknowledgeRequest{}, &writv1.ReinstateRequest{}, &writv1.AttestGuardRequest{}, &writv1.ListPromotionsRequest{},
		&writv1.GetPromotionRequest{}, &writv1.ExplainRequest{}, &writv1.ConfidenceRequest{}, &writv1.ListOperationsRequest{}, &writv1.RecordDrillRequest{},
		&writv1.GetOperationRequest{}, &writv1.ApproveRequest{}, &writv1.WithdrawRequest{}, &writv1.ExecuteOperationRequest{},
		&writv1.GetApproversRequest{}, &writv1.ChangeApproversRequest{}, &writv1.AgentPollRequest{},
		&writv1.ListAuditRequest{}, &writv1.WhoCouldWriteRequest{}, &writv1.ExportAuditRequest{}, &writv1.PruneAuditRequest{},
	))
	if err != nil {
		return nil, fmt.Errorf("compiling the rules of the API: %w", err)
	}
	return &checker{validator: v}, nil
}

func (c *checker) check(req any) error {
	switch m := req.(type) {
	case *writv1.AcquireRequest:
		return checkAcquire(m)
	case *writv1.RenewRequest:
		if n := len(m.GetLeases()); n > lease.MaxRenewals {
			return lease.Invalid("leases", fmt.Sprintf("names %d leases", n), fmt.Sprintf("send at most %d at a time", lease.MaxRenewals))
		}
		return checkText("instance", m.GetInstance(), lease.MaxInstanceBytes)
	case *writv1.GuardRequest:
		if err := checkGuard(m); err != nil {
			return err
		}
	case *writv1.RenewBatchRequest, *writv1.PipelineRequest, *writv1.GuardCallRequest, *writv1.GuardFloorsRequest:
		return nil // part by part, in the handler
	case *writv1.ReleaseRequest:
		return checkText("instance", m.GetInstance(), lease.MaxInstanceBytes)
	case *writv1.CheckpointRequest:
		if n := len(m.GetData()); n > lease.MaxCheckpointBytes {
			return tooLong("data", n, lease.MaxCheckpointBytes)
		}
		return checkText("instance", m.GetInstance(), lease.MaxInstanceBytes)
	case *writv1.GetRequest:
		return nil // the resource is parsed by the handler
	case *writv1.CancelAcquireRequest:
		if err := checkText("instance", m.GetInstance(), lease.MaxInstanceBytes); err != nil {
			return err
		}
	case *writv1.IssueWritRequest:
		if err := checkText("instance", m.GetInstance(), lease.MaxInstanceBytes); err != nil {
			return err
		}
	case *writv1.AttestGuardRequest:
		if err := checkAttest(m); err != nil {
			return err
		}
	case proto.Message:
	default:
		return lease.Errorf(lease.ReasonInternal, "cannot validate a %T", req)
	}
	return c.byRules(req.(proto.Message))
}

// byRules turns the first violation into an error that names field and remedy.
func (c *checker) byRules(m proto.Message) error {
	err := c.validator.Validate(m)
	var invalid *protovalidate.ValidationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && len(invalid.Violations) > 0:
		v := invalid.Violations[0].Proto
		return lease.Invalid(protovalidate.FieldPathString(v.GetField()), "is out of its range", v.GetMessage())
	}
	return fmt.Errorf("validating %T: %w", m, err)
}

// checkAttest: what is left out must not turn one attestation into another, nor into one of a group that is called "".
func checkAttest(m *writv1.AttestGuardRequest) error {
	switch {
	case m.GetId() == "" && m.GetGroup() == "":
		return lease.Invalid("id", "and group are missing", "name the promotion that awaits the guard, or, outside of promotions, a group whose tenure it covers")
	case m.GetId() != "" && m.GetGroup() != "":
		return lease.Invalid("group", "is given beside id", "leave out one of them: an attestation is for one promotion, or outside of any")
	}
	return nil
}

// checkGuard holds what the rules of the .proto files cannot: patterns, and that names can be shown.
func checkGuard(m *writv1.GuardRequest) error {
	for field, text := range map[string]string{"guard": m.GetGuard(), "session": m.GetSession()} {
		if err := checkText(field, text, maxGuardName); err != nil {
			return err
		}
	}
	covers, stamps := patternsOf(m)
	if err := checkPatterns(askKind(m)+".covers", covers); err != nil {
		return err
	}
	return checkPatterns(askKind(m)+".stamps", stamps)
}

// maxGuardName is as the .proto files have it.
const maxGuardName = 64

func checkAcquire(m *writv1.AcquireRequest) error {
	switch {
	case m.GetTtl() == nil:
		return lease.Invalid("ttl", "is missing", "say how long the lease lives without renewal, such as 10s")
	case m.GetTtl().CheckValid() != nil:
		return lease.Invalid("ttl", "is out of range", "use a duration such as 10s")
	case m.GetWait() != nil && m.GetWait().CheckValid() != nil:
		return lease.Invalid("wait", "is out of range", "use 0 not to wait, or a duration such as 5s")
	case m.GetWait().GetSeconds() < 0 || m.GetWait().GetNanos() < 0:
		return lease.Invalid("wait", fmt.Sprintf("is %v", m.GetWait().AsDuration()), "use 0 not to wait, or a duration such as 5s")
	case m.GetPriority() < -lease.MaxPriority || m.GetPriority() > lease.MaxPriority:
		return lease.Invalid("priority", fmt.Sprintf("is %d", m.GetPriority()), fmt.Sprintf("use -%d to %d", lease.MaxPriority, lease.MaxPriority))
	case len(m.GetMetadata()) > lease.MaxMetadataBytes:
		return tooLong("metadata", len(m.GetMetadata()), lease.MaxMetadataBytes)
	}
	if err := checkText("request_id", m.GetRequestId(), lease.MaxRequestIDBytes); err != nil {
		return err
	}
	if err := checkText("region", m.GetRegion(), lease.MaxRegionBytes); err != nil {
		return err
	}
	return checkText("instance", m.GetInstance(), lease.MaxInstanceBytes)
}

// checkText keeps out what would be too long, or what would not be printable in a writ, a log or a table.
func checkText(field, text string, limit int) error {
	if len(text) > limit {
		return tooLong(field, len(text), limit)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return lease.Invalid(field, fmt.Sprintf("holds the unprintable character %U", r), "use printable text")
		}
	}
	return nil
}

func tooLong(field string, n, limit int) error {
	return lease.Invalid(field, fmt.Sprintf("is %d bytes long", n), fmt.Sprintf("use at most %d", limit))
}

// maxWait bounds waits before any arithmetic; the table cuts them to a third of the TTL.
const maxWait = lease.MaxTTL

// clampWait reads a wait from outside: absurd ones become the longest.
func clampWait(d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return min(max(0, d.AsDuration()), maxWait)
}
