// Package extauthz answers Envoy's external authorization filter (envoy.service.auth.v3.Authorization over gRPC).
//
// # What it promises
//
// As package external: what Envoy lets through was admitted by the gate. A refusal carries the true status, Retry-After
// where it helps, and the reason as application/problem+json. From what is let through, the credential headers are
// removed.
//
// # What it does not promise
//
// Envoy asks when it has the request's headers, and does not say when the request has ended: the guard checks, and Envoy
// acts. W must bound the upload, Envoy's retries and the storage's work; see package external. Set the route's timeout
// below W, and num_retries to 0. A stream, such as one of gRPC, is checked once, when it opens.
//
// Leave failure_mode_allow off, or requests pass while the guard cannot be reached, and with_request_body too, which hangs
// streams. Set normalize_path and merge_slashes of the connection manager, and encode_raw_headers of the filter if your
// Envoy has it: without it Envoy joins headers of one name with commas, which is refused all the same.
//
// # What it assumes of clocks
//
// Nothing. The deadline of Envoy's call (its default is 200 ms) bounds how long a request waits to be admitted.
//
// # How it fails
//
// Closed: a check that does not say what the request is about is refused with the reason UNSUPPORTED, and every failure of
// the guard's own is a refusal too, not a failed call, so that failure_mode_allow could not turn it into a pass.
package extauthz
