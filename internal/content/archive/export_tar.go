package archive

import (
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// Types of tar entries.
const (
	tarFile     = '0'
	tarLink     = '1'
	tarSymlink  = '2'
	tarChar     = '3'
	tarDir      = '5'
	tarFIFO     = '6'
	tarExtended = 'x'
)

// Keys of PAX records. Values that the usual keys cannot carry everywhere go under our own.
const (
	xattrKey    = "SCHILY.xattr."
	ownXattrKey = "WSDAEMON.xattr."
)

const tarBlock = 512

// tarHeader is what stands before the content of an entry. The standard library's cannot say that a file has holes.
type tarHeader struct {
	kind      byte
	name      string
	target    string
	mode      uint16
	uid, gid  uint32
	sec       int64
	nsec      uint32
	size      int64 // of what follows
	realSize  int64 // of a file with holes
	sparseMap []byte
	xattrs    []format.Xattr
}

func dirHeader(path string, m *format.Meta) *tarHeader {
	h := newTarHeader(tarDir, path+"/", m)
	if path == "" {
		h.name = "./"
	}
	return h
}

func newTarHeader(kind byte, name string, m *format.Meta) *tarHeader {
	return &tarHeader{kind: kind, name: name, mode: m.Mode, uid: m.UID, gid: m.GID, sec: m.Sec, nsec: m.Nsec, xattrs: extraOf(m).Xattrs}
}

func entryHeader(path string, e *format.Entry) *tarHeader {
	h := newTarHeader(tarFile, path, &e.Meta)
	switch e.Kind {
	case format.KindFile:
		h.size = e.Size
		h.holes(e)
	case format.KindSymlink:
		h.kind, h.target = tarSymlink, e.Extra.Target
	case format.KindFIFO:
		h.kind = tarFIFO
	case format.KindWhiteout:
		h.kind = tarChar
	}
	return h
}

// link makes it a further name of an earlier entry.
func (h *tarHeader) link(first string) {
	h.kind, h.target, h.size, h.sparseMap = tarLink, first, 0, nil
}

// holes makes the map of a file with holes, in GNU tar's format 1.0: it stands in front of the data.
func (h *tarHeader) holes(e *format.Entry) {
	pieces := piecesOf(e)
	stored := int64(0)
	var ends []int64 // begin and end of each stretch of data
	for i := range pieces {
		p := &pieces[i]
		stored += int64(p.Len)
		if n := len(ends); n > 0 && ends[n-1] == p.At {
			ends[n-1] += int64(p.Len)
			continue
		}
		ends = append(ends, p.At, p.At+int64(p.Len))
	}
	if pieces == nil || stored == e.Size {
		return
	}
	if n := len(ends); n == 0 || ends[n-1] < e.Size {
		ends = append(ends, e.Size, e.Size)
	}
	b := fmt.Appendf(nil, "%d\n", len(ends)/2)
	for i := 0; i < len(ends); i += 2 {
		b = fmt.Appendf(b, "%d\n%d\n", ends[i], ends[i+1]-ends[i])
	}
	h.sparseMap = append(b, make([]byte, padding(int64(len(b))))...)
	h.realSize, h.size = e.Size, int64(len(h.sparseMap))+stored
}

func padding(n int64) int64 { return (tarBlock - n%tarBlock) % tarBlock }

// records returns what does not fit into the header of 1988.
func (h *tarHeader) records() []string {
	var r []string
	add := func(key, value string) { r = append(r, record(key, value)) }
	if !utf8.ValidString(h.name) || !utf8.ValidString(h.target) {
		add("hdrcharset", "BINARY")
	}
	if h.sparseMap != nil {
		add("GNU.sparse.major", "1")
		add("GNU.sparse.minor", "0")
		add("GNU.sparse.name", h.name)
		add("GNU.sparse.realsize", strconv.FormatInt(h.realSize, 10))
	} else if !fitsText(h.name) {
		add("path", h.name)
	}
	if !fitsText(h.target) {
		add("linkpath", h.target)
	}
	if h.nsec != 0 || h.sec < 0 || h.sec >= 1<<33 {
		add("mtime", paxTime(h.sec, h.nsec))
	}
	for key, n := range map[string]int64{"uid": int64(h.uid), "gid": int64(h.gid)} {
		if n >= 1<<21 {
			add(key, strconv.FormatInt(n, 10))
		}
	}
	if h.size >= 1<<33 {
		add("size", strconv.FormatInt(h.size, 10))
	}
	for _, a := range h.xattrs {
		add(encodeXattr(a))
	}
	slices.Sort(r)
	return r
}

// encodeXattr avoids an empty value, which means "delete" in PAX, and a name with "=", which ends the key.
func encodeXattr(a format.Xattr) (key, value string) {
	if len(a.Value) > 0 && !strings.Contains(a.Name, "=") {
		return xattrKey + a.Name, string(a.Value)
	}
	return ownXattrKey + base64.RawURLEncoding.EncodeToString([]byte(a.Name)), "=" + base64.RawURLEncoding.EncodeToString(a.Value)
}

// record returns a PAX record, which begins with its own length.
func record(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	size := len(rest)
	for n := len(rest) + len(strconv.Itoa(size)); n != size; n = len(rest) + len(strconv.Itoa(size)) {
		size = n
	}
	return strconv.Itoa(size) + rest
}

// paxTime returns seconds with a fraction; a negative one counts away from zero.
func paxTime(sec int64, nsec uint32) string {
	sign := ""
	if sec < 0 {
		sign = "-"
		if nsec > 0 {
			sec, nsec = sec+1, 1e9-nsec
		}
		sec = -sec
	}
	if nsec == 0 {
		return fmt.Sprintf("%s%d", sign, sec)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// fitsText reports whether a name can stand in the header itself.
func fitsText(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return len(s) <= 100
}

// block writes the header of 1988 to b. Numbers that it cannot hold are 0, as records say what they are.
func (h *tarHeader) block(b []byte) {
	clear(b)
	name := h.name
	if h.sparseMap != nil { // whoever does not know the records must not take the map for the file
		name = "GNUSparseFile.0/" + h.name
	}
	copy(b[:100], name)
	copy(b[157:257], h.target)
	octal(b[100:108], int64(h.mode))
	octal(b[108:116], int64(h.uid))
	octal(b[116:124], int64(h.gid))
	octal(b[124:136], h.size)
	octal(b[136:148], h.sec)
	b[156] = h.kind
	copy(b[257:265], "ustar\x0000")
	octal(b[329:337], 0)
	octal(b[337:345], 0)
	sumTarBlock(b)
}

// sumTarBlock writes the checksum of a header.
func sumTarBlock(b []byte) {
	copy(b[148:156], "        ")
	sum := int64(0)
	for _, c := range b[:tarBlock] {
		sum += int64(c)
	}
	octal(b[148:155], sum)
}

// octal writes digits that end with a zero byte.
func octal(field []byte, n int64) {
	digits := len(field) - 1
	if n < 0 || n >= 1<<(3*digits) {
		n = 0
	}
	for i := digits - 1; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// tarWriter writes headers and contents.
type tarWriter struct {
	w       io.Writer
	written int64
	block   [tarBlock]byte // scratch
	zeros   [tarBlock]byte
}

func (t *tarWriter) write(b []byte) error {
	n, err := t.w.Write(b)
	t.written += int64(n)
	return err
}

// pad fills the last block.
func (t *tarWriter) pad() error { return t.write(t.zeros[:padding(t.written)]) }

func (t *tarWriter) header(h *tarHeader) error {
	if records := strings.Join(h.records(), ""); records != "" {
		x := tarHeader{kind: tarExtended, name: "PaxHeaders.0/" + strings.Map(ascii, h.name), mode: 0o644, size: int64(len(records))}
		x.block(t.block[:])
		if err := t.write(t.block[:]); err != nil {
			return err
		}
		if err := t.write([]byte(records)); err != nil {
			return err
		}
		if err := t.pad(); err != nil {
			return err
		}
	}
	h.block(t.block[:])
	return t.write(t.block[:])
}

func ascii(r rune) rune {
	if r >= 0x80 || r < 0x20 {
		return '_'
	}
	return r
}

// end marks the end of a tar that is complete.
func (t *tarWriter) end() error { return t.write(make([]byte, 2*tarBlock)) }
