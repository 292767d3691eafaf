package archive

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// Row is a file, a directory or anything else in a backup.
type Row struct {
	Path  string // from the root, "" is the root itself; any bytes but NUL
	Dir   bool   // and then Kind, Size and Hash are zero
	Kind  format.Kind
	Flags format.Flags
	format.Meta
	Size int64
	Hash format.Hash
}

// List calls each for the row of a path and, if that is a directory, for what is in it: all of it with recursive, else only
// what is directly in it. Rows come in tree order: a directory, its entries by name, then its subdirectories. An error of
// each ends the list and is returned. A [PathError] says that there is no such path.
func List(ctx context.Context, root Root, source Source, key *format.Key, path string, recursive bool, each func(Row) error) error {
	want, err := newSelection([]string{path})
	if err != nil {
		return err
	}
	refs, err := openTable(root, key)
	if err != nil {
		return err
	}
	if want != nil {
		refs = pick(refs, want.rows(refs))
	}
	l := &lister{want: want, recursive: recursive, each: each}
	pr := pageReader{source: source, key: key, refs: refs, gap: rangeGap, each: l.page}
	if err := pr.run(ctx); err != nil {
		return fmt.Errorf("list %s: %w", display(path), err)
	}
	return want.missing()
}

func pick(refs []format.PageRef, numbers []int) []format.PageRef {
	some := make([]format.PageRef, len(numbers))
	for i, n := range numbers {
		some[i] = refs[n]
	}
	return some
}

// lister picks rows from pages.
type lister struct {
	want      *selection
	recursive bool
	each      func(Row) error
}

func (l *lister) page(p readPage) error {
	for i := range p.page.Dirs {
		if err := l.dir(&p.page.Dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) dir(d *format.Dir) error {
	keep, all := l.want.dir(d.Path)
	if !keep {
		return nil
	}
	if all && !d.Continued && l.shows(d.Path, 1) {
		if err := l.each(Row{Path: d.Path, Dir: true, Meta: d.Meta}); err != nil {
			return err
		}
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		if all && !l.shows(d.Path, 0) || !all && !l.want.entry(d.Path, e.Name) {
			continue
		}
		row := Row{Path: join(d.Path, e.Name), Kind: e.Kind, Flags: e.Flags, Meta: e.Meta, Size: e.Size, Hash: e.Hash}
		if err := l.each(row); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether a directory is at most so many levels below the one that is listed.
func (l *lister) shows(dir string, levels int) bool {
	if l.recursive {
		return true
	}
	top := ""
	if l.want != nil {
		top = l.want.paths[0]
	}
	for ; levels > 0 && dir != top; levels-- {
		dir = dirOf(dir)
	}
	return dir == top
}

// Cat writes the content of a file. Nothing is written that was not verified. A [PathError] says that there is no such path.
func Cat(ctx context.Context, root Root, source Source, key *format.Key, path string, w io.Writer) error {
	e, frames, err := find(ctx, root, source, key, path)
	if err != nil {
		return err
	}
	if err := writeEntry(ctx, source, key, e, frames, w); err != nil {
		return fmt.Errorf("read %s: %w", display(path), err)
	}
	return nil
}

// find returns the entry of a file, with the frames that it names.
func find(ctx context.Context, root Root, source Source, key *format.Key, path string) (*format.Entry, []format.Frame, error) {
	want, err := newSelection([]string{path})
	if err != nil {
		return nil, nil, err
	}
	if want == nil {
		return nil, nil, fmt.Errorf("%s is a directory: give the path of a file", display(path))
	}
	refs, err := openTable(root, key)
	if err != nil {
		return nil, nil, err
	}
	f := &finder{path: want.paths[0]}
	pr := pageReader{source: source, key: key, refs: pick(refs, []int{filePage(refs, f.path)}), gap: rangeSize, each: f.page}
	if err := pr.run(ctx); err != nil {
		return nil, nil, fmt.Errorf("find %s: %w", display(path), err)
	}
	if f.entry == nil {
		return nil, nil, notFile(ctx, root, source, key, f.path)
	}
	return f.entry, f.frames, f.check(root)
}

// notFile says why there is no file of that path.
func notFile(ctx context.Context, root Root, source Source, key *format.Key, path string) error {
	err := List(ctx, root, source, key, path, false, func(Row) error { return nil })
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is a directory: give the path of a file", display(path))
}

// finder picks one entry from pages.
type finder struct {
	path   string
	entry  *format.Entry
	frames []format.Frame
}

func (f *finder) page(p readPage) error {
	f.entry, f.frames = entryOf(p.page, f.path), p.page.Frames
	return nil
}

// check refuses what has no content, and frames that cannot be.
func (f *finder) check(root Root) error {
	switch {
	case f.entry.Flags&format.FlagUnreadable != 0:
		return fmt.Errorf("%s has no content in the backup: %w", display(f.path), errNeverRead)
	case f.entry.Kind == format.KindSymlink:
		return fmt.Errorf("%s is a symbolic link to %s: give the path of a file", display(f.path), display(f.entry.Extra.Target))
	case f.entry.Kind != format.KindFile:
		return fmt.Errorf("%s is not a file: it has no content", display(f.path))
	}
	p := newPlanner(root, nil).plan
	for i := range f.frames {
		if err := p.checkFrame(&f.frames[i]); err != nil {
			return err
		}
	}
	return nil
}

// writeEntry writes the content of a file, holes as zeros. The frames are those that the entry's numbers mean.
func writeEntry(ctx context.Context, source Source, key *format.Key, e *format.Entry, frames []format.Frame, w io.Writer) error {
	at := int64(0)
	err := eachPiece(ctx, source, key, e, frames, func(p *format.Piece, data []byte) error {
		if err := writeZeros(ctx, w, p.At-at); err != nil {
			return err
		}
		at = p.At + int64(p.Len)
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return writeZeros(ctx, w, e.Size-at)
}

// eachPiece calls do for the verified pieces of a file in order.
func eachPiece(ctx context.Context, source Source, key *format.Key, e *format.Entry, frames []format.Frame, do func(*format.Piece, []byte) error) error {
	pieces := contentOf(e)
	var order []format.Frame
	for i := range pieces {
		if i == 0 || pieces[i].Frame != pieces[i-1].Frame {
			order = append(order, frames[pieces[i].Frame])
		}
	}
	r, err := newOrderedReader(ctx, unbounded(), source, key, order)
	if err != nil {
		return err
	}
	defer r.close()
	var raw []byte
	for i := range pieces {
		if i == 0 || pieces[i].Frame != pieces[i-1].Frame {
			if raw, err = r.read(ctx, raw); err != nil {
				return err
			}
		}
		data, err := verifiedPiece(&pieces[i], raw)
		if err != nil {
			return err
		}
		if err := do(&pieces[i], data); err != nil {
			return err
		}
	}
	return nil
}

// contentOf returns the pieces of any file; one that is whole is one piece.
func contentOf(e *format.Entry) []format.Piece {
	if hasContent(e) {
		return []format.Piece{{Len: uint32(e.Size), Frame: e.Frame, Off: e.Off, Hash: e.Hash}}
	}
	return piecesOf(e)
}

// verifiedPiece returns a piece of a frame if its hash is right.
func verifiedPiece(p *format.Piece, raw []byte) ([]byte, error) {
	if int64(p.Off)+int64(p.Len) > int64(len(raw)) {
		return nil, damagedf("the content lies outside of its frame")
	}
	part := raw[p.Off : p.Off+p.Len]
	if format.Hash(sha256.Sum256(part)) != p.Hash {
		return nil, errContent
	}
	return part, nil
}

func writeZeros(ctx context.Context, w io.Writer, n int64) error {
	if n <= 0 {
		return nil
	}
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := zeros[:min(n, int64(len(zeros)))]
		if _, err := w.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}
