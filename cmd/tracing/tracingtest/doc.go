// Package tracingtest is an OpenTelemetry collector within a test's process.
package tracingtest
