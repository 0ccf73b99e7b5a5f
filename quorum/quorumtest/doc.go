// Package quorumtest starts real quorums inside a test: services on embedded etcd members in temporary directories, on
// loopback ports of their own. It is for tests only and promises nothing about speed.
package quorumtest
