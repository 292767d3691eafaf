package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/syncfs"
)

// createFlags make a file that was not there, and follow nothing.
const createFlags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC

// flushEvery is how much is written between two times that the filesystem is told to write it out, in bytes. What a file takes
// beside its content is counted as fileCost.
const (
	flushEvery = 256 << 20
	fileCost   = 4 << 10
)

// decodeSlack is what makes decoding into a buffer faster.
const decodeSlack = 64

var errContent = fmt.Errorf("the content is not what its checksum says: %w", format.ErrDamaged)

// writeContent reads the frames and writes what is in them, once ready is closed.
func (r *restorer) writeContent(ctx context.Context, ready <-chan struct{}) error {
	frames, numbers := r.plan.fetchOrder()
	fr := frameReader{source: r.o.Source, share: r.share, frames: frames, limit: r.o.Connections, gap: rangeGap, oneByOne: r.o.Salvage}
	return fr.run(ctx, len(r.hands), func(ctx context.Context, worker, i int, stored []byte, err error) error {
		h := r.hands[worker]
		if err == nil {
			err = h.decode(&frames[i], r.o.Key, stored)
		}
		select {
		case <-ready:
			return r.writeFrame(h, numbers[i], err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// writeFrame writes all that is in a frame that was decoded, or could not be.
func (r *restorer) writeFrame(h *hand, number uint32, err error) error {
	p := r.plan
	refs := p.refs[p.refStart[number]:p.refStart[number+1]]
	if err != nil {
		return r.damagedFrame(refs, number, err)
	}
	for len(refs) > 0 {
		n := 1
		if refs[0].piece == wholeFile {
			err = r.writeFile(h, refs[0].entry)
		} else {
			n = oneFile(refs)
			err = r.writePieces(h, refs[:n])
		}
		if err != nil {
			if err := r.damagedFile(refs[0].entry, number, err); err != nil {
				return err
			}
		}
		refs = refs[n:]
	}
	faults.Point("archive.restore.frame")
	r.tell(h)
	return nil
}

// oneFile counts the pieces of one file at the beginning.
func oneFile(refs []ref) int {
	n := 1
	for n < len(refs) && refs[n].entry == refs[0].entry {
		n++
	}
	return n
}

func (h *hand) decode(f *format.Frame, key *format.Key, stored []byte) error {
	if want := int(f.Raw) + decodeSlack; cap(h.buf) < want || cap(h.buf) > 2*(format.BlockSize+decodeSlack) {
		h.share.Put(h.buf)
		h.buf = h.share.Get(max(want, min(4*want, format.BlockSize+decodeSlack)))[:0]
	}
	raw, err := h.decoder.ConsumeFrame(h.buf, key, *f, format.FrameData, stored)
	h.raw = raw
	return err
}

// piece returns a stretch of the decoded frame.
func (h *hand) piece(off uint32, length int64) ([]byte, error) {
	if int64(off)+length > int64(len(h.raw)) {
		return nil, damagedf("the content lies outside of its frame")
	}
	return h.raw[off : int64(off)+length], nil
}

// writeFile writes a file that is one piece.
func (r *restorer) writeFile(h *hand, entry uint32) error {
	e, _ := h.look(entry)
	data, err := h.piece(e.Off, e.Size)
	if err != nil {
		return err
	}
	if r.o.HashContent && format.Hash(sha256.Sum256(data)) != e.Hash {
		return errContent
	}
	fd, err := r.create(h, entry, 0)
	if err != nil {
		return err
	}
	if err = writeFull(fd, data); err == nil {
		err = r.finishFile(h, fd, entry)
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	h.files++
	h.bytes += e.Size
	return err
}

// create makes the file of an entry with its final mode, and what else is needed until it is complete.
func (r *restorer) create(h *hand, entry uint32, mode uint32) (int, error) {
	dir, e, err := h.enter(entry)
	if err != nil {
		return -1, err
	}
	return openName(dir, h.named(e.Name), &unix.OpenHow{Flags: createFlags, Mode: uint64(e.Mode)&0o777 | uint64(mode)})
}

// finishFile sets the attributes of a file that is complete. In the ordinary case there is only the time to set.
func (r *restorer) finishFile(h *hand, fd int, entry uint32) error {
	e, dir := h.look(entry)
	m := &e.Meta
	var st unix.Stat_t
	plain := m.Mode&0o7000 == 0 && (r.o.SkipOwner || m.UID == r.uid && m.GID == r.gid) && (m.Extra == nil || len(m.Extra.Xattrs) == 0)
	if plain {
		if err := setTime(fd, m); err != nil {
			return fmt.Errorf("set time: %w", err)
		}
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
	}
	if !plain || !r.isSet(&st, m) { // a umask, or a directory that passes on its group
		if err := r.setAll(fd, m, &st); err != nil {
			return err
		}
	}
	r.checkTime(&st, m, func() string { return r.plan.path(entry) })
	r.stamp(dir, entry, &st)
	return nil
}

func writeFull(fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Write(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

func times(m *format.Meta) []unix.Timespec {
	t := unix.Timespec{Sec: m.Sec, Nsec: int64(m.Nsec)}
	return []unix.Timespec{t, t}
}

// setTime sets the times of an open file; unix has no futimens. The access time is set too, as nothing better is known.
func setTime(fd int, m *format.Meta) error {
	t := unix.Timespec{Sec: m.Sec, Nsec: int64(m.Nsec)}
	ts := [2]unix.Timespec{t, t}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0) //nolint:gosec // The kernel reads it during the call only.
	if errno != 0 {
		return errno
	}
	return nil
}

// makeLarge makes the files that are written in pieces, with their sizes and without content.
func (r *restorer) makeLarge(ctx context.Context) error {
	return r.each(ctx, len(r.plan.large), func(h *hand, i int) error {
		entry := r.plan.large[i]
		err := r.makeSparse(h, entry, i)
		if err != nil {
			return r.damagedEntry(entry, err)
		}
		return nil
	})
}

func (r *restorer) makeSparse(h *hand, entry uint32, i int) error {
	e, _ := h.look(entry)
	r.left[i].Store(int32(len(e.Extra.Pieces)))
	fd, err := r.create(h, entry, 0o600)
	if err != nil {
		return err
	}
	if err = unix.Ftruncate(fd, e.Size); err != nil {
		err = fmt.Errorf("set size %d: %w", e.Size, err)
	}
	if err == nil && len(e.Extra.Pieces) == 0 {
		err = r.finishLarge(h, fd, entry)
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	return err
}

// writePieces writes what a frame has of a large file; whoever writes the last piece finishes the file.
func (r *restorer) writePieces(h *hand, refs []ref) error {
	e, _ := h.look(refs[0].entry)
	fd, err := r.reopen(h, refs[0].entry)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err = r.writePiece(h, fd, &e.Extra.Pieces[ref.piece]); err != nil {
			break
		}
	}
	if err == nil {
		i, _ := slices.BinarySearch(r.plan.large, refs[0].entry)
		if r.left[i].Add(-int32(len(refs))) == 0 {
			err = r.finishLarge(h, fd, refs[0].entry)
			h.files++
		}
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	return err
}

func (r *restorer) writePiece(h *hand, fd int, piece *format.Piece) error {
	data, err := h.piece(piece.Off, int64(piece.Len))
	if err != nil {
		return err
	}
	if r.o.HashContent && format.Hash(sha256.Sum256(data)) != piece.Hash {
		return errContent
	}
	h.bytes += int64(len(data))
	return pwriteFull(fd, data, piece.At)
}

// reopen opens a file that was made without content. It is not kept open: there may be many of them.
func (r *restorer) reopen(h *hand, entry uint32) (int, error) {
	dir, e, err := h.enter(entry)
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: beneath}
	return openName(dir, h.named(e.Name), &how)
}

// finishLarge checks the content as a whole and sets the attributes.
func (r *restorer) finishLarge(h *hand, fd int, entry uint32) error {
	if e, _ := h.look(entry); r.o.HashContent {
		if err := checkLarge(fd, e); err != nil {
			return err
		}
	}
	return r.finishFile(h, fd, entry)
}

func checkLarge(fd int, e *format.Entry) error {
	sum, err := contentHash(fd, e)
	if err != nil {
		return err
	}
	if sum != e.Hash {
		return errContent
	}
	return nil
}

// contentHash computes the hash of a file whose pieces were all verified. Whole blocks need not be read again.
func contentHash(fd int, e *format.Entry) (format.Hash, error) {
	if e.Size == 0 {
		return format.Hash{}, nil
	}
	if sum, ok := hashOfPieces(e); ok && sum == e.Hash { // else there may be blocks of zeros, which have no leaf
		return sum, nil
	}
	var h format.FileHasher
	buf := make([]byte, 256<<10)
	at := int64(0)
	for i := range e.Extra.Pieces {
		p := &e.Extra.Pieces[i]
		h.Zeros(p.At - at)
		for at = p.At; at < p.At+int64(p.Len); {
			part := buf[:min(int64(len(buf)), p.At+int64(p.Len)-at)]
			if n, err := preadFull(fd, part, at); err != nil || n < len(part) {
				return format.Hash{}, fmt.Errorf("read it back: %w", errors.Join(err, unix.EIO))
			}
			_, _ = h.Write(part)
			at += int64(len(part))
		}
	}
	h.Zeros(e.Size - at)
	return h.Sum(), nil
}

// hashOfPieces combines the hashes of the pieces, if they are whole blocks.
func hashOfPieces(e *format.Entry) (format.Hash, bool) {
	if e.Size <= format.BlockSize {
		return format.Hash{}, false
	}
	var h format.ContentHasher
	for i := range e.Extra.Pieces {
		p := &e.Extra.Pieces[i]
		if p.At%format.BlockSize != 0 || int64(p.Len) != min(format.BlockSize, e.Size-p.At) {
			return format.Hash{}, false
		}
		h.Add(p.At/format.BlockSize, p.Hash)
	}
	return h.Sum(e.Size), true
}

// tell adds up what a worker did and tells about it.
func (r *restorer) tell(h *hand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Files += h.files
	r.report.Bytes += h.bytes
	if r.dirty += h.bytes + h.files*fileCost; r.dirty >= flushEvery {
		select {
		case r.full <- struct{}{}:
			r.dirty = 0
		default: // it is at it
		}
	}
	h.files, h.bytes = 0, 0
	if r.o.Progress != nil {
		r.o.Progress(r.report.Files, r.report.Bytes)
	}
}

// writeOut has the filesystem write out what is there while more is still to come: whoever flushes it at the end then waits for
// little. A filesystem tells of an error once, so what it says here is an error of the restore.
func (r *restorer) writeOut(ctx context.Context) error {
	for range r.full {
		if err := r.inRoot(func(fd int) error { return syncfs.Sync(ctx, fd) }); err != nil {
			return fmt.Errorf("write out: %w", err)
		}
	}
	return nil
}
