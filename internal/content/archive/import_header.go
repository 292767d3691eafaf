package archive

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// ownMtimeKey is of tars that an earlier version wrote.
const ownMtimeKey = "WSDAEMON.mtime"

var errDevice = errors.New("is a device")

// tarMeta is everything about an entry of a tar except its content.
type tarMeta struct {
	format.Meta
	path   string    // "" is the root
	kind   byte      // TypeReg, TypeDir, TypeSymlink, TypeLink, TypeFifo, TypeChar (a whiteout)
	size   int64     // of what the tar has of a regular file
	holes  *tarHoles // of a regular file that has some
	target string
}

// parseHeader validates a header from anywhere. Attributes that do not belong to content are left out.
func parseHeader(h *tar.Header) (tarMeta, error) {
	m := tarMeta{kind: h.Typeflag, size: h.Size}
	m.Mode, m.Sec, m.Nsec = uint16(h.Mode)&0o7777, h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	var err error
	if m.path, err = cleanName(h.Name); err != nil {
		return m, err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 || h.Size < 0 {
		return m, fmt.Errorf("%q: owner or size is out of range", h.Name)
	}
	m.UID, m.GID = uint32(h.Uid), uint32(h.Gid)
	if err := m.parseKind(h); err != nil {
		return m, err
	}
	return m, m.parseRecords(h.PAXRecords)
}

func (m *tarMeta) parseKind(h *tar.Header) (err error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // Old archives have TypeRegA.
		m.kind = tar.TypeReg
		return nil
	case tar.TypeDir, tar.TypeFifo:
	case tar.TypeLink:
		m.target, err = cleanName(h.Linkname)
	case tar.TypeSymlink:
		m.target = h.Linkname
		if h.Linkname == "" || len(h.Linkname) > format.MaxTarget || strings.Contains(h.Linkname, "\x00") {
			err = fmt.Errorf("%q: symbolic link has an impossible target", h.Name)
		}
	case tar.TypeChar:
		if h.Devmajor != 0 || h.Devminor != 0 {
			err = fmt.Errorf("%q %w", h.Name, errDevice)
		}
	default:
		err = fmt.Errorf("%q (type %q) %w", h.Name, h.Typeflag, errDevice)
	}
	m.size = 0
	return err
}

func (m *tarMeta) parseRecords(records map[string]string) error {
	var attrs []format.Xattr
	for key, value := range records {
		if key == ownMtimeKey {
			if err := m.parseMtime(value); err != nil {
				return err
			}
		}
		a, ok, err := decodeXattr(key, value)
		if err != nil {
			return err
		}
		if ok && keptXattr(a.Name) && !strings.Contains(a.Name, "\x00") {
			attrs = append(attrs, a)
		}
	}
	if len(attrs) > 0 {
		slices.SortFunc(attrs, func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
		m.Extra = &format.Extra{Xattrs: attrs}
	}
	return nil
}

// decodeXattr returns ok false for records that are no attribute.
func decodeXattr(key, value string) (a format.Xattr, ok bool, err error) {
	if name, found := strings.CutPrefix(key, xattrKey); found {
		return format.Xattr{Name: name, Value: []byte(value)}, true, nil
	}
	encoded, found := strings.CutPrefix(key, ownXattrKey)
	if !found {
		return a, false, nil
	}
	name, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return a, false, fmt.Errorf("decode name of attribute: %w", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(value, "="))
	if err != nil {
		return a, false, fmt.Errorf("decode attribute %q: %w", name, err)
	}
	return format.Xattr{Name: string(name), Value: raw}, true, nil
}

func (m *tarMeta) parseMtime(value string) error {
	sec, nsec, _ := strings.Cut(value, ".")
	s, err1 := strconv.ParseInt(sec, 10, 64)
	n, err2 := strconv.ParseInt(nsec, 10, 64)
	if err := errors.Join(err1, err2); err != nil || n < 0 || n >= 1e9 {
		return fmt.Errorf("record %s=%q is no time", ownMtimeKey, value)
	}
	m.Sec, m.Nsec = s, uint32(n)
	return nil
}

// cleanName returns a name without "./" in front and "/" at the end, or an error if it could lead anywhere else.
func cleanName(name string) (string, error) {
	clean := strings.TrimSuffix(name, "/")
	if clean == "." {
		return "", nil
	}
	clean = strings.TrimPrefix(clean, "./")
	if len(clean) > maxTarPath || strings.Contains(clean, "\x00") {
		return "", fmt.Errorf("name %.100q is too long or contains a zero byte", name)
	}
	for part := range strings.SplitSeq(clean, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return "", fmt.Errorf("name %.300q is not allowed in an archive: every part must be a plain name of at most 255 bytes", name)
		}
	}
	return clean, nil
}
