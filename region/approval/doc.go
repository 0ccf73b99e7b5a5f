// Package approval judges what people sign: which bytes a signature is over, whose it is, and whether those that are there
// are enough. The quorum asks it before it executes, guards ask it when they are opened without a quorum, and auditors ask it
// offline.
//
// A signature is an armored SSHSIG, as ssh-keygen -Y sign writes it, over the canonical JSON of a [Document]; so any key that
// OpenSSH knows can approve, be it in a file, in an agent or in a piece of hardware.
//
// # What it promises
//
// Signatures are counted by person and never by key ([Set.Missing]): two keys of one person are one signature, and no key
// belongs to two people. A document has one encoding only ([Canonical]), and [CheckCanonical] refuses every other, so that
// what a person was shown is what the signature covers. A refusal says which rule was broken ([Error], [FieldError]).
//
// # What it does not
//
// It keeps nothing and knows no state: that an operation is executed once, that its token is still the present one and that
// it has not expired is for the caller to check.
//
// # What it assumes of clocks
//
// Whether a key has expired is judged at the instant that the caller names, which is the coordinator's wall clock. Nothing
// here asks the time.
package approval
