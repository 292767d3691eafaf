package archive

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Keys of PAX records. Values that the usual keys cannot carry everywhere go under our own.
const (
	xattrKey    = "SCHILY.xattr."
	ownXattrKey = "WSDAEMON.xattr."
	ownMtimeKey = "WSDAEMON.mtime"
)

var errDevice = errors.New("is a device")

// meta is everything about a file except its bytes.
type meta struct {
	path      string // "." is the root
	kind      byte   // of tar: TypeReg, TypeDir, TypeSymlink, TypeLink, TypeFifo, TypeChar (a whiteout)
	mode      uint32 // 12 bits
	uid, gid  uint32
	sec, nsec int64 // mtime
	size      int64 // of regular files
	target    string
	xattrs    []xattr
}

func metaOf(path string, st *unix.Stat_t, xattrs []xattr) meta {
	m := meta{path: path, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, sec: st.Mtim.Sec, nsec: st.Mtim.Nsec, xattrs: xattrs}
	switch fileType(st) {
	case unix.S_IFREG:
		m.kind, m.size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		m.kind = tar.TypeDir
	case unix.S_IFLNK:
		m.kind = tar.TypeSymlink
	case unix.S_IFIFO:
		m.kind = tar.TypeFifo
	case unix.S_IFCHR:
		m.kind = tar.TypeChar
	}
	return m
}

// fileType returns the type bits of the mode, 0 for a hard link.
func (m *meta) fileType() uint32 {
	switch m.kind {
	case tar.TypeReg:
		return unix.S_IFREG
	case tar.TypeDir:
		return unix.S_IFDIR
	case tar.TypeSymlink:
		return unix.S_IFLNK
	case tar.TypeFifo:
		return unix.S_IFIFO
	case tar.TypeChar:
		return unix.S_IFCHR
	}
	return 0
}

// header returns the tar header that loses nothing.
func (m *meta) header() *tar.Header {
	mtime := time.Unix(m.sec, m.nsec)
	h := &tar.Header{
		Typeflag: m.kind, Name: m.path, Linkname: m.target, Size: m.size, Mode: int64(m.mode),
		Uid: int(m.uid), Gid: int(m.gid), ModTime: mtime, Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	if m.kind == tar.TypeDir {
		h.Name += "/"
	}
	if mtime.IsZero() { // archive/tar takes the year 1 for "none"
		h.PAXRecords[ownMtimeKey] = fmt.Sprintf("%d.%09d", m.sec, m.nsec)
	}
	if !utf8.ValidString(m.path) || !utf8.ValidString(m.target) {
		h.PAXRecords["hdrcharset"] = "BINARY"
	}
	for _, a := range m.xattrs {
		key, value := encodeXattr(a)
		h.PAXRecords[key] = value
	}
	return h
}

// encodeXattr avoids an empty value, which means "delete" in PAX, and a name with "=", which ends the key.
func encodeXattr(a xattr) (key, value string) {
	if a.value != "" && !strings.Contains(a.name, "=") {
		return xattrKey + a.name, a.value
	}
	return ownXattrKey + base64.RawURLEncoding.EncodeToString([]byte(a.name)), "=" + base64.RawURLEncoding.EncodeToString([]byte(a.value))
}

// decodeXattr returns ok false for records that are no attribute.
func decodeXattr(key, value string) (a xattr, ok bool, err error) {
	if name, found := strings.CutPrefix(key, xattrKey); found {
		return xattr{name, value}, true, nil
	}
	encoded, found := strings.CutPrefix(key, ownXattrKey)
	if !found {
		return xattr{}, false, nil
	}
	name, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return xattr{}, false, fmt.Errorf("decode name of attribute: %w", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(value, "="))
	if err != nil {
		return xattr{}, false, fmt.Errorf("decode attribute %q: %w", name, err)
	}
	return xattr{string(name), string(raw)}, true, nil
}

// parseHeader validates a header from anywhere. Attributes that do not belong to content come back as dropped.
func parseHeader(h *tar.Header) (m meta, dropped []string, err error) {
	m = meta{kind: h.Typeflag, size: h.Size, mode: uint32(h.Mode) & 0o7777, sec: h.ModTime.Unix(), nsec: int64(h.ModTime.Nanosecond())}
	if m.path, err = cleanName(h.Name); err != nil {
		return m, nil, err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 || h.Size < 0 {
		return m, nil, fmt.Errorf("%q: owner or size is out of range", h.Name)
	}
	m.uid, m.gid = uint32(h.Uid), uint32(h.Gid)
	if err := m.parseKind(h); err != nil {
		return m, nil, err
	}
	dropped, err = m.parseRecords(h.PAXRecords)
	return m, dropped, err
}

func (m *meta) parseKind(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // Old archives have TypeRegA.
		m.kind = tar.TypeReg
	case tar.TypeDir, tar.TypeFifo:
		m.size = 0
	case tar.TypeLink:
		target, err := cleanName(h.Linkname)
		m.target, m.size = target, 0
		return err
	case tar.TypeSymlink:
		m.target, m.size = h.Linkname, 0
		if h.Linkname == "" || len(h.Linkname) > 4095 || strings.Contains(h.Linkname, "\x00") {
			return fmt.Errorf("%q: symbolic link has an impossible target", h.Name)
		}
	case tar.TypeChar:
		if h.Devmajor != 0 || h.Devminor != 0 {
			return fmt.Errorf("%q %w", h.Name, errDevice)
		}
		m.size = 0
	default:
		return fmt.Errorf("%q (type %q) %w", h.Name, h.Typeflag, errDevice)
	}
	return nil
}

func (m *meta) parseRecords(records map[string]string) (dropped []string, err error) {
	for key, value := range records {
		if key == ownMtimeKey {
			if err := m.parseMtime(value); err != nil {
				return nil, err
			}
		}
		a, ok, err := decodeXattr(key, value)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if !keptXattr(a.name) || strings.Contains(a.name, "\x00") {
			dropped = append(dropped, a.name)
			continue
		}
		m.xattrs = append(m.xattrs, a)
	}
	slices.SortFunc(m.xattrs, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return dropped, nil
}

func (m *meta) parseMtime(value string) error {
	sec, nsec, _ := strings.Cut(value, ".")
	var err1, err2 error
	m.sec, err1 = strconv.ParseInt(sec, 10, 64)
	m.nsec, err2 = strconv.ParseInt(nsec, 10, 64)
	if err := errors.Join(err1, err2); err != nil || m.nsec < 0 || m.nsec >= 1e9 {
		return fmt.Errorf("record %s=%q is no time", ownMtimeKey, value)
	}
	return nil
}

// cleanName returns a name without "./" in front and "/" at the end, or an error if it could lead anywhere else.
func cleanName(name string) (string, error) {
	clean := strings.TrimSuffix(name, "/")
	if clean == "." {
		return ".", nil
	}
	clean = strings.TrimPrefix(clean, "./")
	if len(clean) > maxPath || strings.Contains(clean, "\x00") {
		return "", fmt.Errorf("name %.100q is too long or contains a zero byte", name)
	}
	for part := range strings.SplitSeq(clean, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return "", fmt.Errorf("name %.300q is not allowed in an archive: every part must be a plain name of at most 255 bytes", name)
		}
	}
	return clean, nil
}
