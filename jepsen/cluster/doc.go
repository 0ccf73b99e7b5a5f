// Package cluster runs quorums of three real server processes on this machine, and kills, pauses and restarts them.
//
// Each node has an address of its own within 127.0.0.0/8, so that several clusters, and whatever else runs on the machine,
// do not get in each other's way. Data and logs lie in a directory that the caller provides.
//
// It signals only processes that it has started, by handle and not by number. [Cluster.Close] ends them all and waits for
// them; should the program that started them die without calling it, the kernel kills them. It runs on Linux only.
package cluster
