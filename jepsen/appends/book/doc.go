// Package book keeps what a store and its writers have said, tells those who wait for something of it, and has it judged.
package book
