// Package people are those who sign operations in the fault harness, each with a key of their own.
package people
