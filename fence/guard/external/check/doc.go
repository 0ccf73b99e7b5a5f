// Package check lets programs of any language ask a guard whether they may write, over a unix socket: the check API, and a
// client in Go, which is a [fence.Admitter].
//
// The API is HTTP with JSON. To be admitted:
//
//	POST /v1/admit {"resource": "orders", "writ": "eyJ…"}
//	200 {"ticket": "K3…", "token": "1125899906842631", "valid_ms": 10000}
//
// and at the end of the write:
//
//	POST /v1/done/K3… {"outcome": "finished"}
//	204
//
// A refusal has the status and the body that package fence gives a problem: 412 for a stale token, with the floor. Members
// of the request are resource, and writ or token; wait_ms, how long to wait for older writes, 10,000 unless told and at
// most 60,000; and hold.
//
// A ticket is valid for valid_ms, counted from when the answer arrived. Whoever has not finished by then must break the
// write off: the guard counts it as broken from then on.
//
// With "hold": true the answer does not end. The ticket is valid for as long as the connection lasts, and a line tells when
// a newer token wants the write to be broken off:
//
//	200 {"event": "admitted", "ticket": "K3…", "token": "1125899906842631"}
//	    {"event": "cut"}
//
// The write is to be broken off then, and /v1/done called. When the connection ends without it, from either side, the write
// is to be broken off as well, and counts as broken.
//
// In a shell:
//
//	ask()  { curl -sS --fail-with-body --unix-socket /run/writ-guard/check.sock "$@"; }
//	ticket=$(ask -d "{\"resource\":\"orders\",\"writ\":\"$WRIT\"}" http://guard/v1/admit | jq -r .ticket) || exit 2
//	timeout 8 pg_dump … && ask -d '{"outcome":"finished"}' "http://guard/v1/done/$ticket"
//
// # What it promises
//
// A ticket is given only for a write that the gate has admitted. A newer token waits until the write has been called
// finished, or until the ticket has run out or was cut and W has passed. That holds for a guard that is cut off or killed too,
// because tickets are shorter than W: what it admitted last is over before it counts as out of the way. Only peers of the configured users and groups are
// answered, by what the kernel says of them (SO_PEERCRED), and each user has a limited number of tickets and connections.
// A ticket can be ended only by the user that it was given to.
//
// # What it does not promise
//
// The guard checks, and the program acts: one that goes on after its ticket has run out or was cut, or that pauses for
// longer than W, writes with a stale token. So does one whose guard has gone, if its ticket, its pauses and the storage take
// longer than W together. SO_PEERCRED tells the user, and the primary group alone, that a process had
// when it connected; a process can hand its connection on.
//
// # What it assumes of clocks
//
// That the program and the guard count at the same rate. Tickets are timed by a clock that stands still during suspend,
// like the programs' own: a machine that sleeps does not make the guard run ahead of them.
//
// # How it fails
//
// Closed: without an answer there is no ticket. When the guard stops, connections of held tickets end, and everything that
// is still open counts as broken. [Client] answers a [fence.UnavailableError] with the obstacle [Unreachable].
package check
