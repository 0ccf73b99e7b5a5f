// Package authrequest answers nginx's auth_request: a subrequest that asks whether a request may go on. Any program that
// asks in the same way can use it.
//
// The subrequest describes the original request in three headers, X-Original-Method, X-Original-URI and X-Original-Host,
// and passes its other headers on as they came. The answer is 204, or 403 with
//
//   - Writ-Status: the status that the caller should get, such as 412;
//   - Writ-Problem: the body that the caller should get, a line of JSON;
//   - Retry-After, where trying again helps.
//
// nginx takes 2xx, 401 and 403 and makes everything else a 500, so the true status needs an error_page; example.conf in this
// package is a configuration that does it, and a test runs it in a real nginx. When the request was admitted,
// Writ-Admitted names the token.
//
// # What it promises
//
// As package external: what nginx lets through was admitted by the gate. When the guard cannot be reached, nginx refuses.
//
// # What it does not promise
//
// nginx asks before it reads the request's body, and the guard does not see the end of the request: it checks, and nginx
// acts. W must bound the upload and the storage's work; see package external. Nor does it protect from a client that
// reaches the storage, or the listener of this package, without nginx: the three headers are believed.
//
// # What it assumes of clocks
//
// Nothing.
//
// # How it fails
//
// Closed. A subrequest that lacks one of the headers, or has one twice, is refused with the reason UNSUPPORTED, so a
// configuration that forgets one lets nothing through.
package authrequest
