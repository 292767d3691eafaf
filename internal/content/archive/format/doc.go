// Package format encodes and decodes what a backup consists of: packs of frames, the pages of a manifest and the table of
// its pages. It is pure: it knows neither files nor stores. The format is specified in docs/format.md, to the byte.
//
// Whatever is decoded may be hostile: it never makes this package panic, and sizes are checked before anything is
// allocated. What breaks a rule wraps [ErrDamaged], what is newer than this code wraps [ErrUnsupported].
package format
