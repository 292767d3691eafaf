package archive

import (
	"archive/tar"
	"context"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// Create writes the tree below dir to the sink. Problems with single files are in the report; an error means that
// there is no archive.
func Create(ctx context.Context, dir string, sink Sink, p Progress) (Report, []Pack, error) {
	cut := &cutter{put: func(data []byte) (Pack, error) { return sink.PutPack(ctx, data) }}
	z, err := zstd.NewWriter(cut, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(maxWindow))
	if err != nil {
		return Report{}, nil, fmt.Errorf("start compression: %w", err)
	}
	defer func() { _ = z.Close() }()
	tw := tar.NewWriter(z)
	report, err := build(ctx, dir, &tarWriter{tw}, p)
	if err != nil {
		return report, nil, err
	}
	if err := tw.Close(); err != nil {
		return report, nil, fmt.Errorf("finish archive of %s: %w", dir, err)
	}
	if err := z.Close(); err != nil {
		return report, nil, fmt.Errorf("finish archive of %s: %w", dir, err)
	}
	if err := cut.flush(); err != nil {
		return report, nil, fmt.Errorf("finish archive of %s: %w", dir, err)
	}
	return report, cut.packs, nil
}

// tarWriter writes entries; a nil one writes nothing.
type tarWriter struct{ tw *tar.Writer }

func (w *tarWriter) header(m *meta) error {
	if w == nil {
		return nil
	}
	if err := w.tw.WriteHeader(m.header()); err != nil {
		return fmt.Errorf("store %s: %w", display(m.path), err)
	}
	return nil
}

func (w *tarWriter) write(data []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.tw.Write(data); err != nil {
		return fmt.Errorf("store content: %w", err)
	}
	return nil
}

// cutter cuts a stream into packs.
type cutter struct {
	put   func([]byte) (Pack, error)
	buf   []byte
	packs []Pack
	err   error
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.buf == nil {
		c.buf = make([]byte, 0, PackSize)
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), PackSize-len(c.buf))
		c.buf = append(c.buf, rest[:n]...)
		rest = rest[n:]
		if len(c.buf) == PackSize {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// flush stores what there is. After an error nothing is stored any more: the stream would have a gap.
func (c *cutter) flush() error {
	if c.err != nil || len(c.buf) == 0 {
		return c.err
	}
	pack, err := c.put(c.buf)
	if err != nil {
		c.err = fmt.Errorf("store pack %d: %w", len(c.packs)+1, err)
		return c.err
	}
	faults.Point("archive.create.pack")
	c.packs = append(c.packs, pack)
	c.buf = c.buf[:0]
	return nil
}
