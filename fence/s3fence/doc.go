// Package s3fence lets objects in S3-style storage be written only under the newest fencing token, by conditional writes
// (If-Match, If-None-Match). There is no guard in between: the storage itself compares, at the instant of writing, so that
// a stale holder is refused however long it was paused, and however late its request arrives.
//
// # Which form to take
//
// [Manifest] is the one to prefer. Data objects are written once, under keys that carry the token and that nobody else
// uses; one manifest names those that count, and is replaced on condition that it is unchanged. Taking over is one write,
// after which every older holder is refused for everything, known to the new one or not; several changes happen together.
//
// [Objects] keeps each object under its own key, for when others have to find it there. Each write is on condition that
// the object is as it was read, and it is read first: a higher token in it refuses the write. Who takes over must
// [Objects.Touch] every object it will rely on, before it reads it. What it has not touched, an older holder can still write.
//
// # What it promises
//
// Atomic, by the storage, for one object at a time, on a storage for which [Verify] finds nothing wrong:
//
//   - Once an object has been written under a token, by Touch if by nothing else, every write under an older one is
//     refused with a [*fence.StaleError], those under way included.
//   - Once [OpenManifest] has returned, no older holder changes what the manifest says, nor what it refers to. An update of
//     it is whole.
//   - An update replaces the state that it was computed from, and counts at most once, even if answers are lost. If it
//     cannot be told whether it did, that is an [*UnknownError].
//   - Deleting forgets no token: a tombstone keeps it. Only data objects that no manifest names or ever will are removed.
//
// # How
//
// An ETag is a digest of the body, so writing the same bytes under a newer token does not change it, and the condition of an
// old holder would hold again. Each body therefore begins with a seal, one line with the token and a nonce:
//
//	writ-seal/1 1125899906842631 0f1e2d3c4b5a69788796a5b4c3d2e1f0 live
//
// Readers without this package pass over the first line. Data objects of a manifest have none, as they are never replaced.
// The metadata x-amz-meta-writ-token repeats the token; where both are, they must agree.
//
// # What it needs of the storage
//
// What [Store] says; [Verify] asks a storage for it, sequentially and in races. Tested against versitygw 1.8.0 over a
// directory on ext4, one process and two over the same directory; nothing else has been tested, Amazon S3 included, which
// documents all of it. Everybody who may write has to go through this package: an access policy that demands conditions on
// writes (on Amazon S3, the keys s3:if-match and s3:if-none-match) makes that hold for all but deletions.
//
// # What it does not promise
//
// Each limit has a test that shows it:
//
//   - Conditions cannot tell states with the same bytes apart, whatever the metadata; hence the seal, and hence no form
//     that leaves bodies as they are: TestLimitIdenticalBytesKeepTheirETag.
//   - [Objects]: an older holder writes what has not been touched: TestLimitUntouchedKeysStayWritable.
//   - [Objects.Raise] is check-then-act. It stops those that ask afterwards, for all keys at once; a writer that has asked
//     before goes on, however long it was paused: TestLimitFenceIsCheckThenAct.
//   - [Objects]: several objects are not written together: TestLimitSeveralObjectsAreNotAtomic.
//   - Reads are not fenced. A stale holder reads, and what it does with that elsewhere is not stopped here:
//     TestLimitReadsAreNotFenced.
//   - Writers that do not use this package are not stopped, only noticed, as [ErrForeign]:
//     TestLimitForeignWritersAreNotStopped.
//   - A bare token is believed: who invents a high one shuts out all others, so grant access to the storage only to holders:
//     TestLimitNewestTokenAlwaysWrites.
//   - What is removed without this package, by hand or by a lifecycle rule, is forgotten with its token:
//     TestLimitRemovedObjectsAreForgotten.
//   - What is restored from a copy, with its metadata, is again the state that an old holder may have read. Touch it under a
//     new token at once, with nobody else writing meanwhile: TestLimitRestoredStatesRevive.
//   - An object is one request: at most 5 GiB. Uploads in parts are not offered: TestLimitOneRequestPerObject.
//
// Limits of versitygw over a directory, likewise:
//
//   - Several gateways without a shared lock file (an option), or over a file system without locks, each decide for
//     themselves. Verify with a store for each shows it: TestLimitGatewaysWithoutLockFile.
//   - Files that were put into the directory by other means are not seen by conditions: TestLimitFilesPutIntoTheDirectory.
//   - A conditional deletion is check-then-act there, and succeeds for a missing object. This package asks for none:
//     TestLimitConditionalDelete.
//
// # What it assumes of clocks
//
// Nothing. Only the pauses between attempts use one.
//
// # How it fails
//
// Errors match the sentinels of this package or [fence.ErrStale] and [fence.ErrInvalidToken] with errors.Is. Only
// [ErrUnknown] leaves open whether something was written, and errors of the context or the storage in between, before
// anything was sent, mean that it was not. What cannot be interpreted is never written over.
package s3fence
