package archive

import (
	"context"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// needBuffer makes the buffers when there is something to read at last. What of them is never used takes no memory.
func (w *readWorker) needBuffer() {
	if w.buf == nil {
		w.buf = w.share.Get(blockBuffer)
	}
}

// keep stores content that lies behind what is in the block, unless it is stored already, and returns its place.
func (w *readWorker) keep(sum *format.Hash, data []byte) uint32 {
	w.places.mu.Lock()
	defer w.places.mu.Unlock()
	if !w.framed {
		w.frame, w.framed = w.places.frames.reserve(), true
	}
	n, known := w.places.add(sum, w.frame, uint32(w.fill))
	if !known && w.packer != nil {
		w.fill += len(data)
	}
	return n
}

// keepPiece is keep for a piece of a file.
func (w *readWorker) keepPiece(sum *format.Hash, data []byte) (frame, off uint32) {
	p := w.places.get(w.keep(sum, data))
	return p.frame, p.off
}

// flush compresses the block and stores it.
func (w *readWorker) flush(ctx context.Context) error {
	if w.fill == 0 {
		return nil
	}
	if w.zstd == nil {
		w.zstd = w.share.Get(blockBuffer)
	}
	w.zstd = w.enc.Compress(w.zstd[:0], w.buf[:w.fill])
	f, _, err := w.packer.put(ctx, format.FrameData, w.fill, w.zstd, false)
	if err != nil {
		return err
	}
	w.places.setFrame(w.frame, f)
	w.fill, w.framed = 0, false
	return nil
}
