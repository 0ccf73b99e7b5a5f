// Package choice picks things by their names, as people type them.
package choice
