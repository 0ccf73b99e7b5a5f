// Package breakglass is what people sign when the quorum is lost: a certificate that lets named guards go on without it.
//
// # What it promises
//
// A certificate has one encoding ([Certificate.Encode]), and [Parse] takes no other, so that what a person was shown is what
// the signature covers. The namespace of its signatures is its own: what was signed to approve a promotion opens no guard, and
// the other way round. [File.Judge] counts people, not keys, by the rule of the approvers as whoever asks knows them.
//
// # What it does not
//
// It knows no state. Whether the certificate is of this quorum's history, whether a guard is named, without contact, and has
// seen nothing newer, and whether the certificate has expired, is for the guard to check, which does so whenever it counts.
// That the regions which a certificate gives up are really off is what the people who sign answer for: nothing here can know.
//
// # What it assumes of clocks
//
// Created and expires are wall clock times of the machine on which the certificate was planned. Nothing here asks the time.
package breakglass
