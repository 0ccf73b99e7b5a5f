// Package sidecar is the program writ-guard: its configuration, and the wiring of a guard with its forms.
//
// # What it promises
//
// A configuration that is wrong in any way is refused before anything is started, with the field and the fix of everything
// that is wrong. A guard is ready when it admits: until the quorum has told its floors it listens, and refuses. When it is
// told to stop, it refuses new writes, lets those under way finish for stop_timeout, says goodbye to the quorum, and ends; a
// second signal ends it at once, which costs the others the wait for its guard lease and W.
//
// # What it does not promise
//
// It reads its configuration once; only certificates are read anew. Whoever reaches the listeners for Envoy and nginx is
// believed to be Envoy or nginx.
//
// # What it assumes of clocks
//
// Nothing beyond package guard.
//
// # How it fails
//
// A listener that ends by itself ends the process: a program that supervises it should start it again. A quorum that cannot
// be reached is no failure of the process: /readyz says so.
package sidecar
