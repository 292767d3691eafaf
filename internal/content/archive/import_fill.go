package archive

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const (
	// holeSize is the granularity of holes in what is imported: zeros of this size and alignment are not written.
	holeSize = 4 << 10
	// importBuffer is how much is read at once.
	importBuffer = 1 << 20
)

// fillFile writes the content of a file. Its holes cost nothing.
func (x *importer) fillFile(ctx context.Context, fd int, m *tarMeta, content io.Reader) error {
	size, pieces := m.size, []tarPiece{{length: m.size}}
	if m.holes != nil {
		var err error
		if pieces, err = m.holes.placed(m.size, content); err != nil {
			return err
		}
		size = m.holes.size
	}
	for _, p := range pieces {
		if err := x.fill(ctx, fd, p.at, p.at+p.length, content); err != nil {
			return err
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("make it %d bytes long, holes included: %w", size, err)
	}
	return nil
}

// fill writes content from one offset to another, and leaves holes where it is zero.
func (x *importer) fill(ctx context.Context, fd int, off, end int64, content io.Reader) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := x.buf[:min(end-off, importBuffer)]
		if _, err := io.ReadFull(content, part); err != nil {
			return fmt.Errorf("read its content: %w", err)
		}
		if err := writeSparse(fd, part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return nil
}

// writeSparse writes the runs of blocks that are not zero.
func writeSparse(fd int, part []byte, off int64) error {
	start := -1
	for i := 0; i < len(part); i += holeSize {
		if zero := isZero(part[i:min(i+holeSize, len(part))]); !zero && start < 0 {
			start = i
		} else if zero && start >= 0 {
			if err := pwriteFull(fd, part[start:i], off+int64(start)); err != nil {
				return err
			}
			start = -1
		}
	}
	if start < 0 {
		return nil
	}
	return pwriteFull(fd, part[start:], off+int64(start))
}
