// Package storetest is the suite that every implementation of quorum.Store must pass.
//
// It promises that a store which passes does what the documentation of quorum.Store says, sentence by sentence: each test
// is named after one. With fault hooks it also shows that this holds while members stop or are cut off. It does not
// measure, and a pass under one schedule does not show that every schedule passes: run it repeatedly, and with -race.
//
// It asks nobody the time: every wait ends on an event or on the deadline of a context, which may be one of a synctest
// bubble. A failure names the store, counted from 0, and the revision.
package storetest
