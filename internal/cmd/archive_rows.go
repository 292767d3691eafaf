package cmd

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// text is a name of any bytes in JSON, which has only Unicode: what is none is base64.
type text struct {
	Text  string `json:"path"`
	Bytes string `json:"pathBase64,omitempty"` // the path, where "path" cannot hold it
}

func textOf(path string) text {
	if utf8.ValidString(path) {
		return text{Text: path}
	}
	return text{Text: strings.ToValidUTF8(path, "\uFFFD"), Bytes: base64.StdEncoding.EncodeToString([]byte(path))}
}

// listedRow is a line of `ls --json`.
type listedRow struct {
	text
	Type       string    `json:"type"` // "directory", "file", "symlink", "fifo" or "whiteout"
	Mode       string    `json:"mode"` // twelve bits in octal
	UID        uint32    `json:"uid"`
	GID        uint32    `json:"gid"`
	Size       int64     `json:"size"`
	Time       time.Time `json:"time"`
	Target     string    `json:"target,omitempty"`
	SHA256     string    `json:"sha256,omitempty"` // of a file's content; in a sealed backup it is keyed
	Unreadable bool      `json:"unreadable,omitempty"`
}

// changedRow is a line of `diff --json`.
type changedRow struct {
	text
	Change    archive.ChangeKind `json:"change"`
	Directory bool               `json:"directory,omitempty"`
	What      []string           `json:"what,omitempty"`
}

// rowPrinter returns what prints the rows of a listing: for people, or an object on each line.
func rowPrinter(out io.Writer, asJSON bool) func(archive.Row) error {
	if !asJSON {
		return func(r archive.Row) error {
			_, err := fmt.Fprintln(out, line(r))
			return err
		}
	}
	encoder := json.NewEncoder(out)
	return func(r archive.Row) error { return encoder.Encode(listedRowOf(r)) }
}

func listedRowOf(r archive.Row) listedRow {
	l := listedRow{
		text: textOf(r.Path), Type: typeOf(r), Mode: fmt.Sprintf("%04o", r.Mode), UID: r.UID, GID: r.GID, Size: r.Size,
		Time: time.Unix(r.Sec, int64(r.Nsec)).UTC(), Unreadable: r.Flags&format.FlagUnreadable != 0,
	}
	if r.Extra != nil {
		l.Target = r.Extra.Target
	}
	if r.Hash != (format.Hash{}) {
		l.SHA256 = fmt.Sprintf("%x", r.Hash[:])
	}
	return l
}

func typeOf(r archive.Row) string {
	if r.Dir {
		return "directory"
	}
	return map[format.Kind]string{
		format.KindFile: "file", format.KindSymlink: "symlink", format.KindFIFO: "fifo", format.KindWhiteout: "whiteout",
	}[r.Kind]
}

// changePrinter returns what prints differences: for people, or an object on each line.
func changePrinter(out io.Writer, asJSON bool) func(archive.Change) error {
	if !asJSON {
		return func(c archive.Change) error {
			_, err := fmt.Fprintln(out, c)
			return err
		}
	}
	encoder := json.NewEncoder(out)
	return func(c archive.Change) error {
		return encoder.Encode(changedRow{text: textOf(c.Path), Change: c.Kind, Directory: c.Dir, What: c.What})
	}
}

// line shows a row like `ls -l`.
func line(r archive.Row) string {
	mode := fs.FileMode(r.Mode & 0o777)
	switch {
	case r.Dir:
		mode |= fs.ModeDir
	case r.Kind == format.KindSymlink:
		mode |= fs.ModeSymlink
	case r.Kind == format.KindFIFO:
		mode |= fs.ModeNamedPipe
	case r.Kind == format.KindWhiteout:
		mode |= fs.ModeCharDevice | fs.ModeDevice
	}
	path := r.Path
	if path == "" {
		path = "."
	}
	if !printable(path) {
		path = strconv.Quote(path)
	}
	if r.Flags&format.FlagUnreadable != 0 {
		return "?---------  could not be read when the backup was made: " + path
	}
	if r.Extra != nil && r.Extra.Target != "" {
		path += " -> " + strconv.Quote(r.Extra.Target)
	}
	return fmt.Sprintf("%s %d %d %10d %s %s", mode, r.UID, r.GID, r.Size, time.Unix(r.Sec, int64(r.Nsec)).UTC().Format(time.DateTime), path)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c == '\uFFFD' || !strconv.IsPrint(c) })
}
