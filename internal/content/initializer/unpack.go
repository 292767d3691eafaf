package initializer

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

const (
	maxWindow = 128 << 20 // of zstd: what `zstd --ultra` needs
	tarMagic  = 257
	// overhead is what an entry may take in an archive besides its content.
	overhead = 4 << 10
	// maxTail is what may follow the end of a tar: it is filled up to a whole record.
	maxTail = 16 << 20
)

// unpack takes an archive apart, whatever it is.
func unpack(p *place, r io.Reader) error {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(tarMagic + 5)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return unpackZip(p, buffered)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return fmt.Errorf("the archive is damaged: %w", err)
		}
		return errors.Join(unpackTar(p, plain), plain.Close())
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		plain, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(2*maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("the archive is damaged: %w", err)
		}
		defer plain.Close()
		return unpackTar(p, plain)
	case len(head) == tarMagic+5 && string(head[tarMagic:]) == "ustar":
		return unpackTar(p, buffered)
	}
	return errors.New("it is no archive that can be unpacked: tar, tar.gz, tar.zst and zip can")
}

// unpackTar makes what a tar has, entry by entry. What is not ours to judge is refused: half an archive is no archive.
func unpackTar(p *place, r io.Reader) error {
	limit := min(p.maxBytes, 1<<55) + min(p.maxFiles, maxEntries)*overhead
	archive := tar.NewReader(&io.LimitedReader{R: r, N: limit})
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := entry(p, h, archive); err != nil {
			return err
		}
	}
	// What follows the last entry is read as well, because of the digest and the checksum; but not for ever.
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxTail+1))
	if err != nil {
		return damaged(err)
	}
	if n > maxTail {
		return fmt.Errorf("the archive goes on after its end, for more than %d MiB", maxTail>>20)
	}
	return p.finish()
}

// damaged names what is wrong with an archive, unless it is the way it comes.
func damaged(err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return fmt.Errorf("the archive is damaged: %w", err)
}

func entry(p *place, h *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), "./")
	if name == "" || name == "." {
		return nil // the directory itself
	}
	if err := badName(name); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode).Perm() // neither set-user-ID nor any other special bit
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA: //nolint:staticcheck // old archives have it
		if err := p.count(name, h.Size); err != nil {
			return err
		}
		p.entries--
		return p.file(name, mode, h.ModTime, damagedReader{content})
	case tar.TypeDir:
		return p.directory(name, mode, h.ModTime)
	case tar.TypeSymlink:
		return p.symlink(name, h.Linkname)
	case tar.TypeLink:
		return p.hardLink(name, strings.TrimPrefix(h.Linkname, "./"))
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("entry %q is of type %q: only files, directories and links can be unpacked", name, h.Typeflag)
}

// damagedReader tells errors of reading the archive from those of writing what is in it.
type damagedReader struct{ io.Reader }

func (d damagedReader) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = damaged(err)
	}
	return n, err
}

// unpackZip needs the end first: the archive is put down, without a name, before it is read.
func unpackZip(p *place, r io.Reader) error {
	fd, err := unix.Openat(int(p.dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), "archive")
	defer func() { _ = f.Close() }()
	size, err := io.Copy(f, io.LimitReader(r, p.maxBytes+1))
	if err != nil {
		return err
	}
	if size > p.maxBytes {
		return newError(Full, nil, "the archive is larger than the %d MiB that the volume may have: enlarge spec.volume.size", p.maxBytes>>20)
	}
	archive, err := zip.NewReader(f, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // that is looked at below
		return damaged(err)
	}
	for _, h := range archive.File {
		if err := zipEntry(p, h); err != nil {
			return err
		}
	}
	return p.finish()
}

func zipEntry(p *place, h *zip.File) error {
	name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), "./")
	if err := badName(name); err != nil {
		return err
	}
	mode := h.Mode()
	switch {
	case strings.HasSuffix(h.Name, "/") || mode.IsDir():
		return p.directory(name, mode.Perm()|0o700, h.Modified)
	case mode.Type() != 0 && mode.Type() != fs.ModeSymlink:
		return fmt.Errorf("entry %q is of type %s: only files, directories and links can be unpacked", name, mode.Type())
	}
	if err := p.count(name, int64(min(h.UncompressedSize64, 1<<62))); err != nil {
		return err
	}
	p.entries--
	content, err := h.Open()
	if err != nil {
		return fmt.Errorf("entry %q: %w", name, damaged(err))
	}
	defer func() { _ = content.Close() }()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(content, maxPath+1))
		if err != nil {
			return fmt.Errorf("entry %q: %w", name, damaged(err))
		}
		return p.symlink(name, string(target))
	}
	return p.file(name, orReadable(mode.Perm()), zipTime(h), damagedReader{content})
}

// orReadable is for archives made where files have no modes.
func orReadable(mode fs.FileMode) fs.FileMode {
	if mode == 0 {
		return 0o644
	}
	return mode
}

// zipTime is the zero time where the archive has none that can be.
func zipTime(h *zip.File) time.Time {
	if h.Modified.Year() < 1980 {
		return time.Time{}
	}
	return h.Modified
}
