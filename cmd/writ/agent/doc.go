// Package agent assembles a region's agent from its configuration: what "writ agent" runs.
package agent
