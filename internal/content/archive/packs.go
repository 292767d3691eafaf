package archive

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	// maxUploads is how many packs are on their way to the store at most, while another one is filled.
	maxUploads = 2
	// smallTarget is the size of packs where one connection is enough: requests are cheap there, and memory is not.
	smallTarget = format.PackTarget / 2
	// packSlack is more than a pack has besides a frame that is larger than all others.
	packSlack = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packer puts frames into packs and packs into the store.
type packer struct {
	sink   Sink
	key    *format.Key
	share  *memory.Share
	target int                     // size of a pack
	fail   context.CancelCauseFunc // ends everything

	mu   sync.Mutex // held while a frame gets its place
	cur  *openPack
	made int // packs begun
	free chan packBuffer
	bufs atomic.Int32 // buffers
	last atomic.Bool  // no pack will be begun any more

	uploads sync.WaitGroup
	doneMu  sync.Mutex
	done    []putPack
}

// packBuffer is what a pack is put together in. Only the first one is certain: others are given back when memory gets scarce.
type packBuffer struct {
	data   []byte
	shrink func() // nil: the first one
}

// openPack is a pack that is being filled.
type openPack struct {
	number int
	id     format.PackID
	w      *format.PackWriter
	buf    packBuffer
	users  atomic.Int64 // slots that are being filled, and one as long as it is open
}

type putPack struct {
	number int
	pack   Pack
}

func newPacker(o *CreateOptions, share *memory.Share, fail context.CancelCauseFunc) *packer {
	return &packer{sink: o.Sink, key: o.Key, share: share, target: o.packTarget(), fail: fail, free: make(chan packBuffer, o.uploads()+1)}
}

// uploads is how many packs are sent at once.
func (o *CreateOptions) uploads() int {
	if o.Connections <= 0 || o.Connections > maxUploads {
		return maxUploads
	}
	return o.Connections
}

func (o *CreateOptions) packTarget() int {
	if o.uploads() == 1 {
		return smallTarget
	}
	return format.PackTarget
}

// put stores a zstd frame of raw bytes. With keep, the bytes as they are stored come back, too.
func (p *packer) put(ctx context.Context, t format.FrameType, raw int, zstd []byte, keep bool) (format.Frame, []byte, error) {
	pack, slot, err := p.reserve(ctx, t, raw, len(zstd))
	if err != nil {
		return format.Frame{}, nil, err
	}
	f := slot.Fill(zstd)
	var stored []byte
	if keep {
		stored = slices.Clone(pack.buf.data[f.Offset : f.Offset+f.Stored])
	}
	p.release(ctx, pack)
	return f, stored, nil
}

func (p *packer) reserve(ctx context.Context, t format.FrameType, raw, size int) (*openPack, format.Slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.cur == nil {
			if err := p.begin(ctx, size); err != nil {
				return nil, format.Slot{}, err
			}
		}
		if slot, ok := p.cur.w.Reserve(t, raw, size); ok {
			p.cur.users.Add(1)
			return p.cur, slot, nil
		}
		full := p.cur
		p.cur = nil
		p.release(ctx, full)
	}
}

// begin opens a pack that a frame of that size fits into.
func (p *packer) begin(ctx context.Context, size int) error {
	buf, err := p.buffer(ctx)
	if err != nil {
		return err
	}
	if size+packSlack > len(buf.data) { // a frame that others made
		p.share.Put(buf.data)
		buf.data = make([]byte, size+packSlack)
	}
	pack := &openPack{number: p.made, id: format.NewPackID(), buf: buf}
	if pack.w, err = format.NewPackWriter(pack.id, p.key, buf.data); err != nil {
		return err
	}
	p.made++
	pack.users.Store(1)
	p.cur = pack
	return nil
}

// buffer waits for a free one only if there may be no more.
func (p *packer) buffer(ctx context.Context) (packBuffer, error) {
	select {
	case buf := <-p.free:
		return buf, nil
	default:
	}
	if buf, ok := p.another(); ok {
		return buf, nil
	}
	select {
	case buf := <-p.free:
		return buf, nil
	case <-ctx.Done():
		return packBuffer{}, context.Cause(ctx)
	}
}

// another makes a buffer: the first one in any case, more only while nobody needs the memory.
func (p *packer) another() (packBuffer, bool) {
	n := int(p.bufs.Load())
	if n == cap(p.free) {
		return packBuffer{}, false
	}
	var buf packBuffer
	if n > 0 {
		var ok bool
		if buf.shrink, ok = p.share.Grow(int64(p.target)); !ok {
			return packBuffer{}, false
		}
	}
	p.bufs.Add(1)
	buf.data = p.share.Get(p.target)
	return buf, true
}

// recycle takes back a buffer that was sent. If others wait for memory, it is their turn: extra buffers go, and the first one comes
// back when they have had it. So a job whose packs crawl keeps others waiting for one pack, not for all of them.
func (p *packer) recycle(ctx context.Context, buf packBuffer) error {
	if !p.share.Crowded() || p.last.Load() {
		p.free <- buf
		return nil
	}
	p.share.Put(buf.data)
	if buf.shrink != nil {
		buf.shrink()
		p.bufs.Add(-1)
		return nil
	}
	if err := p.share.Yield(ctx, int64(p.target)); err != nil {
		return err
	}
	buf.data = p.share.Get(p.target)
	p.free <- buf
	return nil
}

// release puts the pack into the store when the last of its users has gone.
func (p *packer) release(ctx context.Context, pack *openPack) {
	if pack.users.Add(-1) > 0 {
		return
	}
	p.uploads.Go(func() {
		err := p.upload(ctx, pack)
		if err == nil {
			err = p.recycle(ctx, pack.buf)
		}
		if err != nil {
			p.fail(err) // and a request that was given up may still read the buffer
		}
	})
}

func (p *packer) upload(ctx context.Context, pack *openPack) error {
	data, err := pack.w.Finish()
	if err != nil {
		return err
	}
	done := putPack{pack.number, Pack{ID: pack.id, Size: int64(len(data)), CRC32C: crc32.Checksum(data, castagnoli)}}
	faults.Point("archive.create.pack")
	if err := p.sink.PutPack(ctx, pack.id, data); err != nil {
		return fmt.Errorf("store pack %s: %w", pack.id, err)
	}
	faults.Point("archive.create.stored")
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.done = append(p.done, done)
	return nil
}

// discard drops the pack that is open.
func (p *packer) discard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cur != nil {
		p.free <- p.cur.buf
		p.cur = nil
	}
}

// finish stores what is left and returns all packs, in the order in which they were begun.
func (p *packer) finish(ctx context.Context) ([]Pack, error) {
	p.mu.Lock()
	if p.cur != nil {
		p.release(ctx, p.cur)
		p.cur = nil
	}
	p.last.Store(true)
	p.mu.Unlock()
	p.uploads.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	slices.SortFunc(p.done, func(a, b putPack) int { return cmp.Compare(a.number, b.number) })
	packs := make([]Pack, len(p.done))
	for i := range p.done {
		packs[i] = p.done[i].pack
	}
	return packs, nil
}
