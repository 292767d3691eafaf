package archive

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// DamageError says what of a backup cannot be restored, or is not as it was stored.
type DamageError struct {
	Problems []Problem // at most 100; a Path may also be "pack" and an id
	Count    int64
	Packs    []format.PackID // those that are damaged, each once
}

func (e *DamageError) Error() string {
	first := e.Problems[0]
	if e.Count == 1 {
		return fmt.Sprintf("%s: %s", first.Path, first.Error)
	}
	return fmt.Sprintf("%s: %s; and %d more", first.Path, first.Error, e.Count-1)
}

// Is makes errors.Is(err, format.ErrDamaged) true.
func (e *DamageError) Is(target error) bool { return target == format.ErrDamaged }

// Verify checks a backup: every page, that the rows fit together and have the digest of the root, and the frame tables of all
// packs. With readData it reads all packs as a whole and checks every byte, every frame and the content of every file. What
// is damaged is named by a [DamageError]; other errors say why there is no answer. Buffers come from a budget, which may be nil.
func Verify(ctx context.Context, root Root, source Source, key *format.Key, readData bool, from *memory.Budget) error {
	share, err := from.Join(ctx, verifyMemory(readData))
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer share.Close()
	v := &verifier{root: root, source: source, share: share, key: key, readData: readData}
	err = v.run(ctx)
	if err == nil && v.damage.Count > 0 {
		err = &v.damage
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

type verifier struct {
	root     Root
	source   Source
	share    *memory.Share
	key      *format.Key
	readData bool

	plan   *plan
	frames map[format.PackID][]verifyFrame // that the backup needs
	mu     sync.Mutex
	damage DamageError
}

// verifyFrame is a frame as pages or the table describe it. number is that of the plan, or -1 of a page.
type verifyFrame struct {
	format.Frame
	number int
}

func (v *verifier) run(ctx context.Context) error {
	refs, err := openTable(v.root, v.key)
	if err != nil {
		return err
	}
	if err := v.readPages(ctx, refs); err != nil {
		return err
	}
	v.frames = map[format.PackID][]verifyFrame{}
	for i := range refs {
		f := verifyFrame{refs[i].Frame, -1}
		v.frames[f.Pack] = append(v.frames[f.Pack], f)
	}
	for n := range v.plan.frames {
		if f := (verifyFrame{v.plan.frames[n], n}); v.plan.refStart[n] < v.plan.refStart[n+1] {
			v.frames[f.Pack] = append(v.frames[f.Pack], f)
		}
	}
	if err := v.readPacks(ctx); err != nil {
		return err
	}
	if v.readData && v.damage.Count == 0 {
		return v.readLarge(ctx)
	}
	return nil
}

// readPages checks the structure.
func (v *verifier) readPages(ctx context.Context, refs []format.PageRef) error {
	b := newPlanner(v.root, nil)
	b.mended = func(string) {}
	lost := false
	pr := pageReader{source: v.source, key: v.key, share: v.share, refs: refs, gap: rangeGap, salvage: true}
	pr.each = func(p readPage) error {
		if p.err == nil {
			return b.add(p.page)
		}
		if fatal(p.err) {
			return p.err
		}
		b.mend, lost = true, true
		v.damaged(display(refs[p.number].First), p.err)
		return nil
	}
	if err := pr.run(ctx); err != nil {
		return err
	}
	plan, err := b.finish()
	if err != nil {
		return err
	}
	v.plan = plan
	if lost {
		return nil
	}
	sum, err := plan.digest(ctx)
	if err == nil && sum != v.root.Digest {
		v.damaged(".", damagedf("the digest of the pages is %v instead of %v", sum, v.root.Digest))
	}
	return err
}

// fatal reports errors that say nothing about the backup. What a key of the right generation does not open may be damaged as well.
func fatal(err error) bool {
	key := errors.Is(err, format.ErrKey) && !errors.Is(err, format.ErrDamaged)
	return key || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, format.ErrUnsupported)
}

func (v *verifier) damaged(path string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.damage.Count++
	if of, ok := errors.AsType[*PackError](err); ok && !slices.Contains(v.damage.Packs, of.Pack) {
		v.damage.Packs = append(v.damage.Packs, of.Pack)
	}
	if len(v.damage.Problems) < maxNamed {
		v.damage.Problems = append(v.damage.Problems, Problem{Path: path, Error: err.Error()})
	}
}

// readPacks checks the packs, several at once.
func (v *verifier) readPacks(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	packs := make(chan *Pack)
	var wg sync.WaitGroup
	for i := range min(runtime.GOMAXPROCS(0), maxConnections/2) {
		if i > 0 && v.readData { // without, they take nothing
			if _, ok := v.share.Grow(packVerifierMemory); !ok {
				break
			}
		}
		wg.Go(func() {
			if err := v.work(ctx, packs); err != nil {
				cancel(err)
			}
		})
	}
	for i := range v.root.Packs {
		select {
		case packs <- &v.root.Packs[i]:
		case <-ctx.Done():
		}
	}
	close(packs)
	wg.Wait()
	return context.Cause(ctx)
}

func (v *verifier) work(ctx context.Context, packs <-chan *Pack) error {
	d, err := format.NewDecoder()
	if err != nil {
		return fmt.Errorf("start decoder: %w", err)
	}
	w := &packVerifier{verifier: v, decoder: d}
	defer d.Close()
	for p := range packs {
		if err := w.pack(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// packVerifier is one of the workers.
type packVerifier struct {
	*verifier
	decoder *format.Decoder
	buf     []byte // a pack
	raw     []byte // a frame
}

// pack checks one pack. Damage is noted; an error ends it all.
func (w *packVerifier) pack(ctx context.Context, p *Pack) error {
	var err error
	switch {
	case p.Size < format.FooterSize || p.Size > format.MaxPack:
		err = damagedf("%d bytes are no size of a pack", p.Size)
	case w.readData:
		err = w.whole(ctx, p)
	default:
		err = w.table(p, func(offset int64, buf []byte) error { return w.source.ReadPack(ctx, p.ID, offset, buf) })
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && fatal(err) {
		return err
	}
	if err != nil {
		w.damaged("pack "+p.ID.String(), &PackError{p.ID, err})
	}
	return nil
}

// table compares the frame table of a pack with what the backup says about its frames.
func (w *packVerifier) table(p *Pack, read func(offset int64, buf []byte) error) error {
	var tail [format.FooterSize]byte
	if err := read(p.Size-format.FooterSize, tail[:]); err != nil {
		return fmt.Errorf("read footer: %w", err)
	}
	footer, err := format.ReadFooter(p.ID, p.Size, tail[:])
	if err != nil {
		return err
	}
	trailer := make([]byte, footer.Length)
	if err := read(int64(footer.Offset), trailer); err != nil {
		return fmt.Errorf("read trailer: %w", err)
	}
	rows, err := format.ReadTrailer(w.key, footer, trailer)
	if err != nil {
		return err
	}
	for _, f := range w.frames[p.ID] {
		want := format.PackFrame{Frame: f.Frame, Type: f.kind()}
		if int(f.Index) >= len(rows) || rows[f.Index] != want {
			return damagedf("frame %d is not in its frame table as the backup has it", f.Index)
		}
	}
	return nil
}

func (f *verifyFrame) kind() format.FrameType {
	if f.number < 0 {
		return format.FramePage
	}
	return format.FrameData
}

// whole reads all of a pack. If it is not what was stored, its frames tell which files that concerns.
func (w *packVerifier) whole(ctx context.Context, p *Pack) error {
	if int64(cap(w.buf)) < p.Size {
		w.buf = make([]byte, max(p.Size, min(4*p.Size, format.PackTarget+format.BlockSize)))
	}
	data := w.buf[:p.Size]
	if err := w.readAll(ctx, p.ID, data); err != nil {
		w.buf = nil // it may still be written to
		w.lost(p.ID, err)
		return err
	}
	for _, f := range w.frames[p.ID] {
		if err := w.frame(&f, data[f.Offset:f.Offset+f.Stored]); err != nil {
			return err
		}
	}
	if sum := crc32.Checksum(data, castagnoli); sum != p.CRC32C {
		return damagedf("its checksum is %08x instead of %08x", sum, p.CRC32C)
	}
	return w.table(p, func(offset int64, buf []byte) error {
		copy(buf, data[offset:])
		return nil
	})
}

// readAll reads a pack by several requests at once.
func (w *packVerifier) readAll(ctx context.Context, id format.PackID, data []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for at := 0; at < len(data); at += rangeSize {
		wg.Go(func() {
			if err := w.source.ReadPack(ctx, id, int64(at), data[at:min(at+rangeSize, len(data))]); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// lost names all files of a pack that cannot be read.
func (w *packVerifier) lost(id format.PackID, err error) {
	for _, f := range w.frames[id] {
		w.lostFrame(&f, err)
	}
}

func (w *packVerifier) lostFrame(f *verifyFrame, err error) {
	if f.number < 0 {
		return // was found when the pages were read
	}
	err = ofFrame(&f.Frame, err)
	for _, ref := range w.plan.refs[w.plan.refStart[f.number]:w.plan.refStart[f.number+1]] {
		w.damaged(display(w.plan.path(ref.entry)), err)
	}
}

// frame checks a frame and the content that is in it.
func (w *packVerifier) frame(f *verifyFrame, stored []byte) error {
	raw, err := w.decoder.OpenFrame(w.raw, w.key, f.Frame, f.kind(), stored)
	if err != nil {
		if fatal(err) {
			return err
		}
		w.lostFrame(f, err)
		return nil
	}
	if cap(raw) > cap(w.raw) {
		w.raw = raw[:0]
	}
	if f.number < 0 {
		return nil
	}
	for _, ref := range w.plan.refs[w.plan.refStart[f.number]:w.plan.refStart[f.number+1]] {
		if err := w.content(ref, raw); err != nil {
			w.damaged(display(w.plan.path(ref.entry)), ofFrame(&f.Frame, err))
		}
	}
	return nil
}

func (w *packVerifier) content(ref ref, raw []byte) error {
	e, _ := w.plan.entry(ref.entry)
	piece := format.Piece{Off: e.Off, Len: uint32(e.Size), Hash: e.Hash}
	if ref.piece != wholeFile {
		piece = e.Extra.Pieces[ref.piece]
	}
	_, err := verifiedPiece(&piece, raw)
	return err
}

// readLarge checks the hashes of files whose pieces do not tell them.
func (v *verifier) readLarge(ctx context.Context) error {
	for _, entry := range v.plan.large {
		e, _ := v.plan.entry(entry)
		if sum, ok := hashOfPieces(e); ok && sum == e.Hash {
			continue
		}
		sum, err := v.contentHash(ctx, e)
		if err != nil {
			return fmt.Errorf("%s: %w", display(v.plan.path(entry)), err)
		}
		if sum != e.Hash {
			v.damaged(display(v.plan.path(entry)), errContent)
		}
	}
	return nil
}

func (v *verifier) contentHash(ctx context.Context, e *format.Entry) (format.Hash, error) {
	var h format.FileHasher
	at := int64(0)
	err := eachPiece(ctx, v.source, v.key, e, v.plan.frames, func(p *format.Piece, data []byte) error {
		h.Zeros(p.At - at)
		_, _ = h.Write(data)
		at = p.At + int64(p.Len)
		return nil
	})
	h.Zeros(e.Size - at)
	return h.Sum(), err
}
