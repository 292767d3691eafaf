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
	// maxZipEntries is how many a zip may have: its list of them lies in memory as a whole, which that of a tar never does.
	maxZipEntries = 1_000_000
)

// size is what an archive may have besides its end, packed or not: what its files may take, and something for each of them.
func (p *place) size() int64 { return min(p.maxBytes, 1<<55) + min(p.maxFiles, maxEntries)*overhead }

// unpack takes an archive apart, whatever it is.
func unpack(p *place, r io.Reader) error {
	all := &bounded{r, p.size() + maxTail}
	err := unpackAny(p, bufio.NewReaderSize(all, 64<<10))
	if err != nil && all.left <= 0 { // whatever became of that on its way
		return errEndless
	}
	return err
}

func unpackAny(p *place, buffered *bufio.Reader) error {
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
	archive := tar.NewReader(&bounded{r, p.size()})
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
	if _, ok := errors.AsType[*Error](err); ok || errors.Is(err, errEndless) {
		return err
	}
	return fmt.Errorf("the archive is damaged: %w", err)
}

// bounded is an archive, or what is packed in one, that is refused where it goes on for longer than what fits into the volume could.
type bounded struct {
	io.Reader
	left int64
}

var errEndless = errors.New("the archive is larger than anything that the volume could take")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errEndless
	}
	n, err := b.Reader.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func entry(p *place, h *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), "./")
	if h.Typeflag == tar.TypeXGlobalHeader || name == "" || name == "." { // a remark, or the directory itself
		return p.count(name, 0)
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
	list := newZipList(p, f)
	archive, err := zip.NewReader(list, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // that is looked at below
		return damaged(err)
	}
	list.read = true
	for _, h := range archive.File {
		if err := zipEntry(p, h); err != nil {
			return err
		}
	}
	return p.finish()
}

// zipList is a zip whose list of entries is read into memory only as far as it may go. How many there are, no zip says reliably.
type zipList struct {
	*os.File
	left    int64
	refusal *Error
	// read says that the whole list was.
	read bool
}

// spareEntries are those that are seen twice while the end of the list is looked for.
const spareEntries = 1 << 12

func newZipList(p *place, f *os.File) *zipList {
	if p.maxFiles < maxZipEntries {
		return &zipList{File: f, left: p.maxFiles + spareEntries, refusal: newError(Full, nil, "the zip has more than the %d files and directories "+
			"that the volume may have: raise spec.volume.inodes or enlarge spec.volume.size", p.maxFiles)}
	}
	return &zipList{File: f, left: maxZipEntries + spareEntries, refusal: newError(Invalid, nil,
		"the zip has more than %d files and directories, as many as a zip may have: make a tar of it", maxZipEntries)}
}

// ReadAt counts what the entries of the list begin with.
func (z *zipList) ReadAt(b []byte, off int64) (int, error) {
	n, err := z.File.ReadAt(b, off)
	if z.read {
		return n, err
	}
	if z.left -= int64(bytes.Count(b[:n], []byte("PK\x01\x02"))); z.left < 0 {
		return 0, z.refusal
	}
	return n, err
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
