//go:build !linux

package cli

import (
	"context"
	"errors"
)

// askSecret has no way to keep a terminal from showing what is typed.
func (a *app) askSecret(context.Context, string) ([]byte, error) {
	return nil, errors.New("passphrases cannot be asked for on this system; add the key to ssh-agent with ssh-add, and name its .pub file")
}
