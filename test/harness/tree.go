package harness

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// WriteTree writes into dir what is hard to keep: odd names, owners, modes, times, links, attributes, a sparse file, and some
// hundred kilobytes. The seed goes into the texts.
func WriteTree(t *testing.T, dir, seed string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("write a tree: %v", err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(at("src/deep/deeper"), 0o755))
	must(os.MkdirAll(at("empty"), 0o700))
	for i := range 40 {
		must(os.WriteFile(at(fmt.Sprintf("src/deep/file-%02d", i)), []byte(strings.Repeat(fmt.Sprintf("%s %d\n", seed, i*i), 100*i)), 0o600))
	}
	must(os.WriteFile(at("src/a name\nwith \xff odd bytes"), []byte(seed), 0o640))
	must(os.WriteFile(at("src/tool"), []byte("#!/bin/sh\n"), 0o600))
	must(os.Chown(at("src/tool"), 1234, 5678))
	must(os.Chmod(at("src/tool"), 0o755|os.ModeSetuid))
	must(os.Chmod(at("empty"), 0o777|os.ModeSticky))
	must(os.Link(at("src/tool"), at("src/deep/tool-again")))
	must(os.Symlink("../../../nowhere", at("src/deep/deeper/dangling")))
	must(os.WriteFile(at("src/sparse"), nil, 0o600))
	must(os.Truncate(at("src/sparse"), 8<<20))
	must(unix.Mkfifo(at("src/pipe"), 0o600))
	must(unix.Setxattr(at("src/tool"), "user.test", []byte(seed), 0))
	when := time.Unix(1_000_000_000, 123_456_789)
	must(os.Chtimes(at("src/tool"), when, when))
	must(os.Chtimes(at("src/deep"), when, when.Add(time.Nanosecond)))
}

// Snapshot describes every entry of a tree by its path: kind, mode, owner, size, time, links, attributes and content. It shares
// no code with the daemon.
func Snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	snapshot := map[string]string{}
	first := map[uint64]string{} // of the names of a file
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		snapshot[rel], err = describe(path, rel, first)
		return err
	})
	if err != nil {
		t.Fatalf("look at %s: %v", dir, err)
	}
	return snapshot
}

func describe(path, rel string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	text := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	attributes, err := attributes(path)
	if err != nil {
		return "", err
	}
	text += attributes
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return text, nil
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return text + fmt.Sprintf(" to %q", target), err
	case unix.S_IFREG:
		sum, err := sumOf(path)
		text += fmt.Sprintf(" size %d sum %s", st.Size, sum)
		if err != nil {
			return "", err
		}
	}
	if st.Nlink > 1 {
		if _, ok := first[st.Ino]; !ok {
			first[st.Ino] = rel
		}
		text += fmt.Sprintf(" %d links, first %q", st.Nlink, first[st.Ino])
	}
	return text, nil
}

func sumOf(path string) (string, error) {
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, file)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// attributes prints the extended attributes of a file that people can set.
func attributes(path string) (string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		found[name] = string(value[:n])
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&text, " %s=%q", name, found[name])
	}
	return text.String(), nil
}
