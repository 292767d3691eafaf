package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow is the largest zstd window that is written and accepted; it bounds the memory of a restore.
	maxWindow = 8 << 20
	maxMemory = 64 << 20
)

// Export writes a stored archive as a plain tar. After an error the output is not complete.
func Export(ctx context.Context, packs []Pack, src Source, w io.Writer) error {
	r, err := openPacks(ctx, packs, src)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("export archive: %w", err)
	}
	return nil
}

// Import unpacks a tar that may come from anywhere into an empty directory. What it cannot keep is in Skipped; what
// would lead out of the directory is an error. After an error the content of the directory is undefined.
func Import(ctx context.Context, r io.Reader, dir string) (Report, error) {
	x, err := newExtractor(dir, false, nil)
	if err != nil {
		return Report{}, err
	}
	defer x.close()
	if err := x.run(ctx, r); err != nil {
		return x.report, fmt.Errorf("import into %s: %w", dir, err)
	}
	// The order of a foreign archive is not that of a walk, so only a walk gives the digest.
	read, err := Digest(ctx, dir)
	if err != nil {
		return x.report, err
	}
	read.Skipped, read.SkippedCount = x.report.Skipped, x.report.SkippedCount
	return read, nil
}

// openPacks returns the uncompressed stream of an archive.
func openPacks(ctx context.Context, packs []Pack, src Source) (*zstd.Decoder, error) {
	stream := &packReader{packs: packs, get: func(p Pack) ([]byte, error) { return src.GetPack(ctx, p) }}
	r, err := zstd.NewReader(stream, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxMemory))
	if err != nil {
		return nil, fmt.Errorf("start decompression: %w", err)
	}
	return r, nil
}

// packReader reads packs one after the other.
type packReader struct {
	packs []Pack
	get   func(Pack) ([]byte, error)
	cur   bytes.Reader
}

func (r *packReader) Read(p []byte) (int, error) {
	for r.cur.Len() == 0 {
		if len(r.packs) == 0 {
			return 0, io.EOF
		}
		next := r.packs[0]
		data, err := r.get(next)
		if err != nil {
			return 0, fmt.Errorf("read pack %s: %w", next.ID, err)
		}
		if int64(len(data)) != next.Size {
			return 0, fmt.Errorf("read pack %s: it has %d bytes instead of %d", next.ID, len(data), next.Size)
		}
		r.packs = r.packs[1:]
		r.cur.Reset(data)
	}
	return r.cur.Read(p)
}

// endReader remembers whether its reader ended. A tar that is read to its end mark never gets there.
type endReader struct {
	r     io.Reader
	ended bool
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if n > 0 && errors.Is(err, io.EOF) {
		return n, nil // the end is told by the next call, which only a reader that wants more makes
	}
	e.ended = e.ended || errors.Is(err, io.EOF)
	return n, err
}
