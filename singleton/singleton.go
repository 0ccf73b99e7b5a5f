package singleton

import (
	"os"

	"github.com/writ-io/writ/lease"
)

// Singleton runs functions under leases of one client. It is safe for concurrent use; one serves a whole process.
type Singleton struct {
	client *lease.Client
	given  Config // as it was given: calls put their options over it before defaults are filled in
	config Config
	exit   func(code int)
	cron   *cronBoard
}

// New makes a Singleton. The client stays the caller's to close, after everything that runs has returned. Errors: what
// [Config.Validate] finds, and INVALID for a client that is nil.
func New(client *lease.Client, cfg Config) (*Singleton, error) {
	if client == nil {
		return nil, lease.Invalid("client", "is nil", "pass what lease.Dial returned")
	}
	if cfg.Region == "" {
		cfg.Region = client.Region()
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Singleton{client: client, given: cfg, config: cfg.withDefaults(), exit: os.Exit}
	s.cron = newCronBoard(s)
	return s, nil
}
