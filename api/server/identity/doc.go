// Package identity says who is at the other end of a connection, and proves who this end is.
//
// # What it promises
//
// A [Source] keeps a certificate, its key and the certificates of the authorities that are trusted, and follows the files
// they came from: at a handshake, at most once a second, it reads them again. A new set takes effect for the next
// connection if it is usable as a whole. One that is not (half written, expired, a key that others may read) is logged
// once, and the old one stays.
//
// Servers ask for TLS 1.3 or newer. A client certificate is verified against the authorities of the moment; sessions are
// not resumed, so that an authority which was taken out admits nobody new.
//
// The principal of a certificate is its first SPIFFE ID, or else its first DNS name, see [Principal]. There is no other way
// to become a principal.
//
// # What it does not promise
//
// A certificate is looked at when a connection is made. A connection outlives the certificate that it was made with unless
// the server bounds the age of connections.
//
// # What it assumes of clocks
//
// Validity of certificates is judged by wall time, as X.509 has it. The second between two looks at the files is counted
// on a monotonic clock.
//
// # How it fails
//
// [Open] returns an error that names the file and the remedy. Handshakes that fail are logged with their reason; TLS tells
// the client as much as an alert can hold.
//
// [CA] is for development and tests: it keeps its key in a file and issues whatever it is asked for.
package identity
