package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const (
	// maxTarRecords bounds the records of an entry, in bytes, as the standard library does.
	maxTarRecords = 1 << 20
	// maxTarPieces bounds the memory that the map of a file with holes takes: 16 bytes each.
	maxTarPieces = 1 << 20

	sparseKey = "GNU.sparse."
)

var (
	errHoleMap  = errors.New("its map of holes makes no sense")
	errHoleMany = fmt.Errorf("its map of holes has more than %d pieces: unpack it with `tar` and back that up", maxTarPieces)
)

// tarPiece is a stretch of data of a file with holes.
type tarPiece struct{ at, length int64 }

// tarHoles describes a file with holes: in the tar its pieces lie one after the other.
type tarHoles struct {
	size    int64
	pieces  []tarPiece
	inFront bool // the map stands in front of the data
}

// holeReader hides from the standard library that files have holes: it would give us all their zeros, one after the other, and a
// few bytes may claim any number of them. Headers are rewritten on the way, and what was taken from them is kept for the importer.
// Which bytes are headers the library tells: see data.
type holeReader struct {
	r      io.Reader
	out    []byte    // of headers, perhaps changed
	pass   int64     // bytes after out that are handed over as they are
	within bool      // the header of an entry was handed over: what comes is not known yet
	holes  *tarHoles // of that entry; nil if it has none
	err    error
}

// data tells what follows the header that the library returned: the entry's content, and then another header.
func (s *holeReader) data(h *tar.Header) (holes *tarHoles) {
	size := h.Size
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil // is no header of an entry, and its content is passed
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		size = 0
	}
	holes, s.holes, s.within = s.holes, nil, false
	s.pass = size + padding(size)
	return holes
}

// Read implements io.Reader.
func (s *holeReader) Read(p []byte) (int, error) {
	for len(s.out) == 0 && s.pass == 0 {
		if s.within {
			return 0, errors.New("read more than the header of an entry")
		}
		if s.err == nil {
			s.err = s.header()
		}
		if s.err != nil {
			return 0, s.err
		}
	}
	if len(s.out) > 0 {
		n := copy(p, s.out)
		s.out = s.out[n:]
		return n, nil
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.pass)])
	s.pass -= int64(n)
	return n, err
}

// header reads one block that is a header.
func (s *holeReader) header() error {
	block := make([]byte, tarBlock)
	if _, err := io.ReadFull(s.r, block); err != nil {
		return err
	}
	s.out = block
	size, known := tarNumber(block[124:136])
	switch kind := block[156]; {
	case isZero(block):
		s.pass = math.MaxInt64 // the end
	case !known:
		s.within = true // the library says so, too
	case kind == tarExtended:
		return s.records(block, size)
	case kind == tar.TypeXGlobalHeader || kind == tar.TypeGNULongName || kind == tar.TypeGNULongLink:
		s.pass = size + padding(size)
	case kind == tar.TypeGNUSparse && string(block[257:265]) == "ustar  \x00":
		s.within = true
		return s.oldMap(block)
	default:
		s.within = true
	}
	return nil
}

// tarNumber reads a number of a header as the library does.
func tarNumber(field []byte) (n int64, ok bool) {
	if field[0]&0x80 != 0 { // in binary; all sizes that can be have zeros in front
		for i, c := range field {
			if i == 0 {
				c &= 0x7f
			}
			if n > math.MaxInt64>>8 {
				return 0, false
			}
			n = n<<8 | int64(c)
		}
		return n, n <= math.MaxInt64-tarBlock
	}
	text := strings.Trim(string(field), " \x00")
	if text == "" {
		return 0, true
	}
	text, _, _ = strings.Cut(text, "\x00")
	n, err := strconv.ParseInt(text, 8, 64)
	return n, err == nil && n >= 0
}

// records takes what says that a file has holes out of the records of the entry that follows.
func (s *holeReader) records(block []byte, size int64) error {
	if size > maxTarRecords {
		s.pass = size // the library refuses it
		return nil
	}
	data := make([]byte, size+padding(size))
	if _, err := io.ReadFull(s.r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	s.out = append(s.out, data...)
	s.holes = nil
	if !bytes.Contains(data, []byte(sparseKey)) {
		return nil
	}
	kept, found, err := splitRecords(data[:size])
	if err != nil {
		return err
	}
	if s.holes, err = found.holes(); err != nil {
		return err
	}
	if found.name != "" {
		kept = append(kept, record("path", found.name)...)
	}
	octal(block[124:136], int64(len(kept)))
	sumTarBlock(block)
	s.out = append(append(block, kept...), make([]byte, padding(int64(len(kept))))...)
	return nil
}

// sparseRecords are those of GNU tar's formats 0.0, 0.1 and 1.0.
type sparseRecords struct {
	name, size, pieces, major, minor string
	places                           []string // of 0.0: it repeats its keys
}

// splitRecords separates the records of holes from the others.
func splitRecords(data []byte) (kept []byte, found sparseRecords, err error) {
	for len(data) > 0 {
		digits, _, ok := bytes.Cut(data, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n <= len(digits)+1 || n > len(data) || data[n-1] != '\n' {
			return nil, found, errors.New("its records make no sense")
		}
		key, value, _ := strings.Cut(string(data[len(digits)+1:n-1]), "=")
		if name, sparse := strings.CutPrefix(key, sparseKey); sparse {
			found.add(name, value)
		} else {
			kept = append(kept, data[:n]...)
		}
		data = data[n:]
	}
	return kept, found, nil
}

func (f *sparseRecords) add(key, value string) {
	switch key {
	case "name":
		f.name = value
	case "size", "realsize":
		f.size = value
	case "map":
		f.pieces = value
	case "major":
		f.major = value
	case "minor":
		f.minor = value
	case "offset", "numbytes":
		f.places = append(f.places, value)
	}
}

// holes puts together what the records say.
func (f *sparseRecords) holes() (*tarHoles, error) {
	size, err := strconv.ParseInt(f.size, 10, 64)
	if err != nil || size < 0 {
		return nil, errHoleMap
	}
	switch version := f.major + "." + f.minor; version {
	case "1.0":
		return &tarHoles{size: size, inFront: true}, nil
	case ".", "0.0", "0.1":
	default:
		return nil, fmt.Errorf("its map of holes has version %.20q, which is not known: unpack it with `tar` and back that up", version)
	}
	if f.pieces != "" {
		f.places = strings.Split(f.pieces, ",")
	}
	h := &tarHoles{size: size}
	numbers := make([]int64, len(f.places))
	for i, text := range f.places {
		if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, errHoleMap
		}
	}
	return h, h.take(numbers)
}

// take takes over places and lengths, one after the other.
func (h *tarHoles) take(numbers []int64) error {
	if len(numbers)%2 != 0 {
		return errHoleMap
	}
	end := int64(0)
	for i := 0; i < len(numbers); i += 2 {
		p := tarPiece{numbers[i], numbers[i+1]}
		if p.at < end || p.length < 0 || p.at > h.size-p.length {
			return errHoleMap
		}
		if len(h.pieces) == maxTarPieces {
			return errHoleMany
		}
		end = p.at + p.length
		h.pieces = append(h.pieces, p)
	}
	return nil
}

// oldMap takes the map out of a header of GNU tar's first format, and out of the blocks that continue it.
func (s *holeReader) oldMap(block []byte) error {
	size, known := tarNumber(block[483:495])
	if !known {
		return errHoleMap
	}
	numbers, more, err := oldPieces(nil, block[386:482]), block[482] != 0, error(nil)
	for next := make([]byte, tarBlock); more && err == nil; more = next[504] != 0 {
		if len(numbers) > 2*maxTarPieces {
			return errHoleMany
		}
		if _, err = io.ReadFull(s.r, next); err == nil {
			numbers = oldPieces(numbers, next[:504])
		}
	}
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	s.holes = &tarHoles{size: size}
	block[156] = tarFile
	sumTarBlock(block)
	return s.holes.take(numbers)
}

// oldPieces appends places and lengths up to the first that is empty. What is no number becomes one that no map has.
func oldPieces(numbers []int64, fields []byte) []int64 {
	for ; len(fields) >= 24 && fields[0] != 0; fields = fields[24:] {
		for _, field := range [][]byte{fields[:12], fields[12:24]} {
			n, known := tarNumber(field)
			if !known {
				n = -1
			}
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// placed returns the pieces of a file that has so many bytes in the tar, and leaves the content at the first one.
func (h *tarHoles) placed(stored int64, content io.Reader) ([]tarPiece, error) {
	if h.inFront {
		length, err := h.readMap(content)
		if err != nil {
			return nil, err
		}
		stored -= length
	}
	for _, p := range h.pieces {
		stored -= p.length
	}
	if stored != 0 {
		return nil, errHoleMap
	}
	return h.pieces, nil
}

// readMap reads the map of format 1.0, which stands in front of the data and fills whole blocks: a number of pieces, and for each its
// place and its length, on a line each. It returns how many bytes it has.
func (h *tarHoles) readMap(content io.Reader) (int64, error) {
	lines := tarLines{r: content}
	count := lines.number()
	if count < 0 || count > maxTarPieces {
		return 0, errHoleMany
	}
	var numbers []int64 // grows as they come: the count may be a lie
	for i := int64(0); i < 2*count && lines.err == nil; i++ {
		numbers = append(numbers, lines.number())
	}
	if lines.err != nil {
		return 0, lines.err
	}
	return lines.read, h.take(numbers)
}

// tarLines reads numbers on lines, block by block.
type tarLines struct {
	r    io.Reader
	buf  [tarBlock]byte
	rest []byte
	read int64
	err  error
}

func (l *tarLines) number() int64 {
	n := int64(0)
	for digits := 0; l.err == nil; digits++ {
		c := l.next()
		switch {
		case c == '\n' && digits > 0:
			return n
		case c < '0' || c > '9' || n > (math.MaxInt64-9)/10:
			l.fail(errHoleMap)
		default:
			n = 10*n + int64(c-'0')
		}
	}
	return 0
}

func (l *tarLines) next() byte {
	if len(l.rest) == 0 {
		n, err := io.ReadFull(l.r, l.buf[:])
		if err != nil {
			l.fail(fmt.Errorf("read its map of holes: %w", io.ErrUnexpectedEOF))
			return 0
		}
		l.rest = l.buf[:n]
		l.read += int64(n)
	}
	c := l.rest[0]
	l.rest = l.rest[1:]
	return c
}

func (l *tarLines) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}
