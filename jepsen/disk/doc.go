// Package disk is a file system that can be slow, fail, be full, lie, and lose its power. It passes everything on to a
// directory, and remembers what has not been flushed.
//
// # What it promises
//
//   - What was flushed is there after [Disk.Cut], whatever was drawn. What was written and not flushed is there, or is not, or
//     is there in part: sectors of 512 bytes or pages of 4 KiB are kept or lost each by itself, as a disk may write them in any
//     order. A file that has grown has its old length or its new one; what is lost of what it grew by is zeros.
//   - Names are like those of a file system with a journal: what was created, renamed and removed is lost from some point on, and
//     never before the last operation on a file that was flushed since, or on a name in a directory that was.
//   - After a cut nothing is left of what the kernel had cached, and the file system is mounted anew.
//   - The switches can be changed at any time: see [Disk.Slow], [Disk.Fail], [Disk.Fill] and [Disk.Lie].
//   - A program that maps a file that it also writes to, as bbolt does, sees what it wrote.
//   - What a process that is gone has left mounted goes with the next [New] on the machine. Nobody waits for it meanwhile: the
//     kernel answers with errors when the process ends.
//
// # What it does not promise
//
//   - A sector that was written twice without a flush is found as it was flushed or as it was written last, and never as it was
//     in between. Nothing that was flushed decays.
//   - A flush that failed leaves things as they were: the next one that succeeds flushes what the failed one should have.
//     Kernels that forget what they could not write are not imitated.
//   - Owners, modes, times and extended attributes are kept at once.
//   - A flush does not reach the device below: who pulls the machine's own plug has no guarantees.
//
// It needs Linux, root and /dev/fuse. A process must not map a file of a disk that it serves itself, nor start another process
// while it has one open: it would wait for itself.
//
// # Clocks
//
// A slow flush waits by the process's monotonic clock.
package disk
