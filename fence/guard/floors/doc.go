// Package floors keeps a guard's floors in a file, so that a guard that crashed goes on refusing what it refused before.
//
// # What it promises
//
//   - What [Store.Write] has returned nil for is on the disk: one transaction, all of it or nothing. Floors, base, witnessed
//     token and version in the file never go back.
//   - [Open] either returns exactly what was written last or an error that says what is wrong with the file and what to do.
//     It walks the whole file before the database may touch it, and a digest covers all floors together, so that a bit that
//     flipped, a page that was lost or a file that was cut short is found. It does not panic, and it changes nothing in a
//     file that it refuses.
//   - Only one process has a store open.
//   - A write that finds the disk full fails, and the store works again when there is space.
//
// # What it does not promise
//
//   - A file that somebody put back in an older but sound version looks sound. The version tells: the quorum remembers it.
//   - A disk that says that it has written and has not loses what it lost.
//
// # How it fails
//
// An error of Write means that nothing of it may be counted on; it may be there after all. When the operating system could not
// flush what it had taken, nobody knows what is on the disk: the store is then broken ([ErrBroken]) until it is opened anew.
// Losing the file is safe: a guard without one admits nothing before the quorum has told it the floors.
//
// A store that has just been made is therefore not clean: writes of a process whose store got lost may still be under way.
//
// The package has no clock, except for how long Open waits for another process to let go of the file.
package floors
