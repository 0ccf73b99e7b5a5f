package lease

import (
	"context"
	"iter"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// GetOptions says how to read a resource. The zero value reads linearizably.
type GetOptions struct {
	// Local reads what the asked node has seen: perhaps behind, but without a quorum.
	Local bool
	// WithDeadline asks the coordinator for the time left and the number of waiters too.
	WithDeadline bool
	// WithCheckpoint answers the newest checkpoint too, as of the revision that is answered. Who may read a resource may read it.
	WithCheckpoint bool
}

// Get reads one resource. Errors: NOT_FOUND, INVALID, DENIED; otherwise why no node could answer.
func (c *Client) Get(ctx context.Context, resource string, opts GetOptions) (Info, error) {
	if _, err := ParseResource(resource); err != nil {
		return Info{}, err
	}
	request := &writv1.GetRequest{
		Resource: resource, Consistency: readConsistency(opts.Local), WithDeadline: opts.WithDeadline, WithCheckpoint: opts.WithCheckpoint,
	}
	var info Info
	err := c.call(ctx, "get", 0, func(ctx context.Context, e *dialEndpoint) error {
		response, err := e.lease.Get(ctx, request)
		info = InfoFromProto(response.GetLease())
		return err
	})
	return info, err
}

// ListOptions says what to list. The zero value lists everything, linearizably.
type ListOptions struct {
	// Prefix restricts the list to names that begin with it.
	Prefix string
	// HeldOnly leaves free resources out.
	HeldOnly bool
	// Local reads what the asked node has seen: perhaps behind, but without a quorum.
	Local bool
	// PageSize is how many resources are fetched at once: 1 to 1,000; 0 means 100.
	PageSize int
}

// List yields resources in name order and fetches them page by page, each linearizable by itself. An error ends it:
// INVALID, DENIED, or why no node could answer.
func (c *Client) List(ctx context.Context, opts ListOptions) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		request := &writv1.ListRequest{
			Prefix: opts.Prefix, PageSize: wireCount(opts.PageSize), HeldOnly: opts.HeldOnly,
			Consistency: readConsistency(opts.Local),
		}
		for {
			var page *writv1.ListResponse
			err := c.call(ctx, "list", 0, func(ctx context.Context, e *dialEndpoint) (err error) {
				page, err = e.lease.List(ctx, request)
				return err
			})
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, l := range page.GetLeases() {
				if !yield(InfoFromProto(l), nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

func readConsistency(local bool) writv1.ReadConsistency {
	if local {
		return writv1.ReadConsistency_READ_CONSISTENCY_LOCAL
	}
	return writv1.ReadConsistency_READ_CONSISTENCY_LINEARIZABLE
}

// ForceReleaseOptions says how to take a lease away.
type ForceReleaseOptions struct {
	// Token is the grant to end; 0 ends whichever there is.
	Token fence.Token
	// Reason is written to the audit log: 1 to 1,024 bytes.
	Reason string
	// Now frees the resource at once instead of at the holder's deadline. It needs guards that have proved that they
	// refuse the holder.
	Now bool
}

// ForceRelease takes a lease away from its holder, for operators: renewals are refused from now on, and the resource is
// free at the deadline. It returns the grant that ends. Errors: NOT_FOUND, NOT_GUARDED, STALE_TOKEN, DENIED, INVALID;
// UNKNOWN_OUTCOME if the answer was lost and Token is 0, because asking again might hit another holder.
func (c *Client) ForceRelease(ctx context.Context, resource string, opts ForceReleaseOptions) (Info, error) {
	if _, err := ParseResource(resource); err != nil {
		return Info{}, err
	}
	request := &writv1.ForceReleaseRequest{Resource: resource, Token: uint64(opts.Token), Reason: opts.Reason, Now: opts.Now}
	var info Info
	var unknown error
	err := c.call(ctx, "force release", 0, func(ctx context.Context, e *dialEndpoint) error {
		response, err := e.lease.ForceRelease(ctx, request)
		info = InfoFromProto(response.GetLease())
		reason := ReasonOf(err)
		if err != nil && opts.Token == 0 && clientRetryable(FromError(err)) && (reason == "" || reason == ReasonUnknownOutcome) {
			unknown = FromError(err)
			return nil // not to be repeated
		}
		return err
	})
	if unknown != nil {
		return Info{}, unknown
	}
	return info, err
}
