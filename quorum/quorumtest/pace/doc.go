// Package pace sets how fast quorums of tests elect and how long tests wait for them.
//
// A test that waits for elections wants them soon; a busy machine, more so under the race detector, must not take a member
// that gets no processor for one that is dead: a quorum that elects all the time grants nothing. The compromise is made here,
// once for all of them.
package pace

import "time"

// Patience bounds every wait of a test for what must happen. It only decides how soon a test that fails does.
const Patience = 3 * time.Minute
