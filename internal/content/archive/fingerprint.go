package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"time"

	"golang.org/x/sys/unix"
)

// Fingerprint tells cheaply whether a tree on this node may have changed: equal sums mean that no inode was touched.
// It opens no files. Sums of different nodes, or before and after a restore, have nothing to do with each other.
//
// A filesystem's clock has ticks: a change in the same tick as the last look leaves no trace. So an equal sum means
// "unchanged" only if newest, the newest ctime, is clearly older than the start of the earlier look. An mtime says nothing:
// anybody can set it, into the future, too.
func Fingerprint(ctx context.Context, dir string) (sum string, newest time.Time, err error) {
	root, err := openRoot(dir)
	if err != nil {
		return "", time.Time{}, err
	}
	defer func() { _ = unix.Close(root) }()
	f := &fingerprint{hash: sha256.New()}
	if err := walk(ctx, root, f); err != nil {
		return "", time.Time{}, fmt.Errorf("fingerprint %s: %w", dir, err)
	}
	return hex.EncodeToString(f.hash.Sum(nil)), f.report.Newest, nil
}

type fingerprint struct {
	hash   hash.Hash
	report Report
	buf    []byte
}

// dir leaves out the size, which depends on history, and the root's ctime, which changes when the root is renamed.
// A changed attribute shows in the ctime; for the root the attributes themselves are taken.
func (f *fingerprint) dir(fd int, path string, st *unix.Stat_t) error {
	masked := *st
	masked.Size, masked.Nlink = 0, 0
	if path != "." {
		f.add(path, &masked)
		return nil
	}
	masked.Ctim = unix.Timespec{}
	f.add(path, &masked)
	attrs, err := readXattrs(fd)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		f.hash.Write(appendString(appendString(nil, a.name), a.value))
	}
	return nil
}

func (f *fingerprint) leaf(_ int, _, path string, st *unix.Stat_t) error {
	f.add(path, st)
	return nil
}

func (f *fingerprint) problem(path string, err error) error {
	return fmt.Errorf("look at %s: %w", display(path), err)
}

func (f *fingerprint) add(path string, st *unix.Stat_t) {
	if st.Ctim != (unix.Timespec{}) {
		f.report.newest(timeOf(st.Ctim))
	}
	b := appendString(f.buf[:0], path)
	for _, n := range []uint64{
		uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Size), st.Ino, st.Nlink, st.Rdev,
		uint64(st.Mtim.Sec), uint64(st.Mtim.Nsec), uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec),
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	f.hash.Write(b)
	f.buf = b
}

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Sec, t.Nsec) }
