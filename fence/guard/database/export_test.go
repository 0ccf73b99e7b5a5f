package database

import "context"

// Look is one of Run's.
func (d *Database) Look(ctx context.Context) error { return d.look(ctx) }
