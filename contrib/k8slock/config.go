package k8slock

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/lease"
)

// Config says what is elected on.
type Config struct {
	// Resource is the lease that the leader holds, such as "controllers/dns": the same in all clusters.
	Resource string
	// Identity names this candidate in the records that client-go shows. Empty stands for the client's instance, which is
	// another one in each process.
	Identity string
	// TTL is how long others wait for a leader that died. 0 stands for LeaseDuration of the loop, in whole seconds, or for
	// [DefaultTTL] if that is below one second.
	TTL time.Duration
	// OnEvent hears what the loop records: "became leader" and "stopped leading". It may be nil.
	OnEvent func(event string)
}

// DefaultTTL is client-go's usual LeaseDuration.
const DefaultTTL = 15 * time.Second

// maxIdentityBytes leaves room for the rest of the record in the lease's metadata.
const maxIdentityBytes = 1024

// Validate reports the first field that cannot be used as an INVALID *lease.Error that names it.
func (c Config) Validate() error {
	if _, err := lease.ParseResource(c.Resource); err != nil {
		return err
	}
	switch {
	case len(c.Identity) > maxIdentityBytes:
		return lease.Invalid("identity", fmt.Sprintf("is %d bytes long", len(c.Identity)), fmt.Sprintf("use at most %d", maxIdentityBytes))
	case c.TTL < 0:
		return lease.Invalid("ttl", "is negative", "leave it out for the loop's LeaseDuration")
	}
	return nil
}
