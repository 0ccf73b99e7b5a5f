// Package appends judges what became of a list that writers append to by reading it and writing it back whole, at a storage
// that compares nothing.
//
// # What it promises
//
// [Check] gets every write that the storage applied, in order, and every attempt of the writers, and finds:
//
//   - S2: a write that was applied under a smaller token than one before it;
//   - S3: an append that was acknowledged, or whose writer went on as if it were, and is not in the list at the end;
//   - a write that was computed from another list than the one it replaced, so that it undid something or did not know of
//     it: that is what a grant must not be able to meet if every older write was proved to be over before it;
//   - an append that was applied twice, that was refused to its writer and applied all the same, or that nobody tried.
//
// Only the order counts, never the time. An attempt whose outcome is not known may have been applied once, or not.
//
// # The list
//
// It consists of pages, so that a long one need not be carried back and forth: a writer sends the last page with its element
// appended, or, if that page is full, the next one with its element alone. Writing a page takes the place of it and of all
// behind it. So the pages together are one list under one key, of which the writer sends the end.
//
// # What it assumes
//
// Elements are unique. A writer sends one write at a time under a token, and none after one whose outcome it does not know:
// guards order writes of different tokens, not those of one.
package appends
