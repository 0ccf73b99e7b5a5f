package awss3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/writ-io/writ/fence/s3fence"
)

var _ s3fence.Store = (*Store)(nil)

// Store is one bucket. It is safe for concurrent use.
type Store struct {
	client *s3.Client
	bucket string
}

// New returns the bucket of that name as a [s3fence.Store]. The client's retries apply to all but writes.
func New(client *s3.Client, bucket string) (*Store, error) {
	if client == nil {
		return nil, fmt.Errorf("%w: client: nil: use s3.New or s3.NewFromConfig", s3fence.ErrInvalid)
	}
	if bucket == "" {
		return nil, fmt.Errorf("%w: bucket: empty: name one", s3fence.ErrInvalid)
	}
	return &Store{client: client, bucket: bucket}, nil
}

// Get implements [s3fence.Store].
func (s *Store) Get(ctx context.Context, key string) (*s3fence.Object, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
	if missing := (*types.NoSuchKey)(nil); errors.As(err, &missing) {
		return nil, fmt.Errorf("%w: %w", s3fence.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return &s3fence.Object{Body: out.Body, ETag: aws.ToString(out.ETag), Metadata: out.Metadata}, nil
}

// Put implements [s3fence.Store].
func (s *Store) Put(ctx context.Context, key string, in s3fence.Input) (string, error) {
	request := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &key,
		Body: in.Body, ContentLength: &in.Size, Metadata: in.Metadata,
	}
	switch {
	case in.If.Absent == (in.If.Match != ""):
		return "", fmt.Errorf("%w: %w: condition: set either Match or Absent", s3fence.ErrRefused, s3fence.ErrInvalid)
	case in.If.Absent:
		request.IfNoneMatch = aws.String("*")
	default:
		request.IfMatch = &in.If.Match
	}
	out, err := s.client.PutObject(ctx, request, once)
	if err != nil {
		return "", classify(err)
	}
	return aws.ToString(out.ETag), nil
}

// once keeps the client from sending a write twice: of two, the second finds the first's object and is refused, and the
// write that has happened would be taken for one that has not.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

// classify tells certain refusals from answers, or their absence, after which the write may still happen.
func classify(err error) error {
	answer := (*awshttp.ResponseError)(nil)
	if !errors.As(err, &answer) {
		return err
	}
	switch status := answer.HTTPStatusCode(); {
	case status == http.StatusPreconditionFailed, status == http.StatusConflict:
		return fmt.Errorf("%w: %w", s3fence.ErrPrecondition, err)
	case status == http.StatusNotFound:
		// With If-Match, the object is gone. That the bucket is gone has the same status.
		if missing := (*types.NoSuchBucket)(nil); errors.As(err, &missing) || errorCode(err) != "NoSuchKey" {
			return fmt.Errorf("%w: %w", s3fence.ErrRefused, err)
		}
		return fmt.Errorf("%w: %w", s3fence.ErrPrecondition, err)
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
		return err // proxies say so too, of requests that they may have passed on
	case status >= 400 && status < 500:
		return fmt.Errorf("%w: %w", s3fence.ErrRefused, err)
	default:
		return err
	}
}

func errorCode(err error) string {
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		return coded.ErrorCode()
	}
	return ""
}

// Delete implements [s3fence.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key})
	return err
}

// List implements [s3fence.Store].
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield("", err)
				return
			}
			for _, object := range page.Contents {
				if !yield(aws.ToString(object.Key), nil) {
					return
				}
			}
		}
	}
}
