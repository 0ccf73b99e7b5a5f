package s3fence

import (
	"context"
	"io"
	"iter"
)

// Store is what this package needs of S3-style storage: one bucket of it. Package awss3 is one. [Verify] tells whether a
// storage really does what is said here.
type Store interface {
	// Get reads an object, or answers [ErrNotFound]. The ETag must not be newer than the body: it may be that of an
	// earlier state of the object, which the next conditional Put then refuses, never that of a later one.
	Get(ctx context.Context, key string) (*Object, error)

	// Put writes an object if the condition holds at the instant of writing, and answers its new ETag. It sends exactly
	// one request: a second would find the first's object and be refused. Errors that match [ErrPrecondition] or
	// [ErrRefused] mean that nothing was or will be written; all others, that it is not known.
	Put(ctx context.Context, key string, in Input) (etag string, err error)

	// Delete removes an object, unconditionally. It is only used for objects that nothing refers to or ever will.
	// That there is none is no error.
	Delete(ctx context.Context, key string) error

	// List lists the keys that begin with prefix. An error is the last pair.
	List(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// Object is an object as it was read.
type Object struct {
	// Body must be closed.
	Body io.ReadCloser
	// ETag is as the storage spells it, quotes included.
	ETag string
	// Metadata is what was given to Put. The case of names does not matter.
	Metadata map[string]string
}

// Input is what to write and when.
type Input struct {
	Body     io.ReadSeeker
	Size     int64
	Metadata map[string]string
	If       Condition
}

// Condition is under what condition to write. Exactly one of its fields is set.
type Condition struct {
	// Match: the object exists and has this ETag (If-Match).
	Match string
	// Absent: there is no object (If-None-Match: *).
	Absent bool
}
