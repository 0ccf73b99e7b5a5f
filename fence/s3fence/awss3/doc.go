// Package awss3 lets s3fence write through the AWS SDK for Go, to Amazon S3 and to whatever else speaks its protocol.
//
// # What it promises
//
// A write is sent once, whatever retries the client is configured with, and its answer is one of three: written; certainly
// not written ([s3fence.ErrPrecondition], [s3fence.ErrRefused]); or unknown, which is every other error.
//
// # What it does not promise
//
// That the storage enforces conditions: ask [s3fence.Verify]. One object is one request, so that 5 GiB is the most, and
// memory for none of it is needed beyond the SDK's buffers.
//
// # What it assumes of clocks
//
// That the local one is within minutes of the storage's, which signatures need.
//
// # How it fails
//
// Errors are the SDK's, wrapped in those of s3fence where the contract of [s3fence.Store] asks for one.
package awss3
