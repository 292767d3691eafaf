// Package reader tests the stand-alone reader of backups, which knows nothing but docs/format.md.
package reader

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

const commitKey = "7ffffffffffffff8.7ffffffffffffffd" // of backup 7.2

// storeWriter writes a backup to a directory as a store keeps it.
type storeWriter struct {
	t      *testing.T
	dir    string
	key    *format.Key
	enc    *format.Encoder
	digest *format.Digester
	packs  []map[string]any
	refs   []format.PageRef
	frames []format.Frame // of contents
}

func newStore(t *testing.T, key *format.Key) *storeWriter {
	t.Helper()
	enc, err := format.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	return &storeWriter{t: t, dir: t.TempDir(), key: key, enc: enc, digest: format.NewDigester()}
}

// pack stores frames of one type and returns them.
func (s *storeWriter) pack(kind format.FrameType, raws []int, zstdFrames [][]byte) []format.Frame {
	s.t.Helper()
	g := NewWithT(s.t)
	id := format.NewPackID()
	w, err := format.NewPackWriter(id, s.key, make([]byte, 0, 16<<20))
	g.Expect(err).NotTo(HaveOccurred())
	frames := make([]format.Frame, len(raws))
	for i, z := range zstdFrames {
		slot, ok := w.Reserve(kind, raws[i], len(z))
		g.Expect(ok).To(BeTrue())
		frames[i] = slot.Fill(z)
	}
	data, err := w.Finish()
	g.Expect(err).NotTo(HaveOccurred())
	s.put(data, "p", id.String()[:2], id.String())
	crc := fmt.Sprintf("%08x", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	s.packs = append(s.packs, map[string]any{"id": id.String(), "size": len(data), "crc32c": crc, "live": len(data)})
	return frames
}

func (s *storeWriter) put(data []byte, key ...string) {
	s.t.Helper()
	path := filepath.Join(append([]string{s.dir, "d", "team-a"}, key...)...)
	g := NewWithT(s.t)
	g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(path, data, 0o600)).To(Succeed())
}

// contents stores blocks, one frame each.
func (s *storeWriter) contents(blocks ...[]byte) {
	s.t.Helper()
	raws, z := make([]int, len(blocks)), make([][]byte, len(blocks))
	for i, b := range blocks {
		raws[i], z[i] = len(b), s.enc.Compress(nil, b)
	}
	s.frames = append(s.frames, s.pack(format.FrameData, raws, z)...)
}

func (s *storeWriter) pages(pages ...*format.Page) {
	s.t.Helper()
	raws, z := make([]int, len(pages)), make([][]byte, len(pages))
	for i, p := range pages {
		p.Frames = s.frames
		var err error
		z[i], raws[i], err = s.enc.Page(nil, p)
		NewWithT(s.t).Expect(err).NotTo(HaveOccurred())
		for j := range p.Dirs {
			s.digest.Dir(&p.Dirs[j])
			for k := range p.Dirs[j].Entries {
				s.digest.Entry(&p.Dirs[j].Entries[k])
			}
		}
	}
	for i, f := range s.pack(format.FramePage, raws, z) {
		s.refs = append(s.refs, pages[i].Ref(f))
	}
}

// commit writes the commit as docs/format.md describes it.
func (s *storeWriter) commit() {
	s.t.Helper()
	g := NewWithT(s.t)
	table, err := s.enc.Table(s.key, s.refs)
	g.Expect(err).NotTo(HaveOccurred())
	data, err := json.Marshal(map[string]any{"format": 1, "id": "x", "domain": "team-a", "workspace": "web", "name": "7.2",
		"tree": map[string]any{"digest": s.digest.Sum().String()}, "packs": s.packs, "table": table})
	g.Expect(err).NotTo(HaveOccurred())
	s.put(withSum(data[:len(data)-1]), "w", "web", commitKey)
}

// withSum ends a record that lacks its end.
func withSum(record []byte) []byte {
	return fmt.Appendf(record, `,"sha256":"%x"}`+"\n", sha256.Sum256(record))
}

// restore runs the reader.
func restore(ctx context.Context, store, backup, target string) (int, string) {
	cmd := exec.CommandContext(ctx, "python3", "restore.py", store, "team-a", "web", backup, target)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return -1, err.Error()
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// sample is a tree with everything that the format knows but unreadable entries, in two pages.
func sample(s *storeWriter) []*format.Page {
	noise := make([]byte, format.BlockSize)
	for i := range noise {
		noise[i] = byte(i*i>>7 | 1)
	}
	small := []byte("hello\nworld\n")
	s.contents(append(bytes.Clone(small), "linked"...), noise, []byte("the end of it"))
	meta := func(mode uint16, sec int64, nsec uint32) format.Meta {
		return format.Meta{Mode: mode, UID: owner(), GID: owner(), Sec: sec, Nsec: nsec}
	}
	with := func(m format.Meta, x format.Extra) format.Meta {
		m.Extra = &x
		return m
	}
	xattrs := []format.Xattr{{Name: "user.empty", Value: []byte{}}, {Name: "user.mime", Value: []byte("text/plain\x00\xff")}}
	var large format.ContentHasher
	large.Add(0, sha256.Sum256(noise))
	last := make([]byte, format.BlockSize)
	copy(last[100:], "the end of it")
	large.Add(1<<30/format.BlockSize, sha256.Sum256(last))
	pieces := []format.Piece{
		{At: 0, Len: format.BlockSize, Frame: 1, Hash: sha256.Sum256(noise)},
		{At: 1<<30 + 100, Len: 13, Frame: 2, Hash: sha256.Sum256([]byte("the end of it"))},
	}
	linked := with(meta(0o640, 1_600_000_000, 1), format.Extra{Group: format.GroupOf("a.txt")})
	hole := sha256.Sum256(make([]byte, 70_000))
	return []*format.Page{
		{Dirs: []format.Dir{{Meta: with(meta(0o1755, 1_700_000_000, 5), format.Extra{Xattrs: xattrs}), Entries: []format.Entry{
			{Name: "-empty", Kind: format.KindFile, Meta: meta(0o600, -1, 999_999_999)},
			{Name: "a.txt", Kind: format.KindFile, Meta: linked, Size: 6, Off: 12, Hash: sha256.Sum256([]byte("linked"))},
			{Name: "bad\xffname\n", Kind: format.KindFile, Meta: with(meta(0o4755, 4_000_000_000, 0), format.Extra{Xattrs: xattrs}), Size: 12,
				Hash: sha256.Sum256(small)},
		}}}},
		{Dirs: []format.Dir{
			{Continued: true, Entries: []format.Entry{
				{Name: "fifo", Kind: format.KindFIFO, Meta: meta(0o620, 1_600_000_000, 2)},
				{Name: "hole", Kind: format.KindFile, Meta: with(meta(0o444, 1_600_000_000, 3), format.Extra{Pieces: []format.Piece{}}), Size: 70_000, Hash: hole},
				{Name: "link", Kind: format.KindSymlink, Meta: with(meta(0o777, 1_600_000_000, 4), format.Extra{Target: "/nowhere/\xfe"})},
				{Name: "sparse", Kind: format.KindFile, Meta: with(meta(0o644, 1_600_000_000, 5), format.Extra{Pieces: pieces}), Size: 1<<40 + 5,
					Hash: large.Sum(1<<40 + 5)},
				{Name: "whiteout", Kind: format.KindWhiteout, Meta: meta(0, 1_600_000_000, 6)},
			}},
			{Path: "d", Meta: meta(0o2555, 1_600_000_000, 7)},
			{Path: "d/e", Meta: meta(0o700, 1_600_000_000, 8), Entries: []format.Entry{
				{Name: "b.txt", Kind: format.KindFile, Meta: linked, Size: 6, Off: 12, Hash: sha256.Sum256([]byte("linked"))},
			}},
			{Path: "d.d", Meta: meta(0o755, 1_600_000_000, 9)},
		}},
	}
}

// owner is whom the reader can give files to.
func owner() uint32 {
	if os.Geteuid() == 0 {
		return 33333
	}
	return uint32(os.Geteuid())
}

func TestReaderRestoresEverything(t *testing.T) {
	g := NewWithT(t)
	s := newStore(t, nil)
	pages := sample(s)
	s.pages(pages...)
	s.commit()
	target := filepath.Join(t.TempDir(), "web")
	code, out := restore(t.Context(), s.dir, "7.2", target)
	g.Expect(code).To(BeZero(), out)

	want := map[string]format.Entry{}
	for _, p := range pages {
		for _, d := range p.Dirs {
			if !d.Continued {
				want[filepath.Join(target, d.Path)] = format.Entry{Meta: d.Meta}
			}
			for _, e := range d.Entries {
				want[filepath.Join(target, d.Path, e.Name)] = e
			}
		}
	}
	got := 0
	g.Expect(filepath.WalkDir(target, func(path string, _ os.DirEntry, err error) error {
		got++
		e, ok := want[path]
		g.Expect(ok).To(BeTrue(), "%q was not expected", path)
		expectEntry(t, path, e)
		return err
	})).To(Succeed())
	g.Expect(got).To(Equal(len(want)))
	expectContents(t, target)
}

func expectEntry(t *testing.T, path string, e format.Entry) {
	t.Helper()
	g := NewWithT(t)
	var st unix.Stat_t
	g.Expect(unix.Lstat(path, &st)).To(Succeed())
	kinds := map[format.Kind]uint32{0: unix.S_IFDIR, format.KindFile: unix.S_IFREG, format.KindSymlink: unix.S_IFLNK,
		format.KindFIFO: unix.S_IFIFO, format.KindWhiteout: unix.S_IFCHR}
	g.Expect(st.Mode).To(Equal(kinds[e.Kind]|uint32(e.Mode)), path)
	g.Expect([]any{st.Uid, st.Gid, st.Rdev}).To(Equal([]any{e.UID, e.GID, uint64(0)}), path)
	g.Expect(time.Unix(st.Mtim.Unix())).To(Equal(time.Unix(e.Sec, int64(e.Nsec))), path)
	if e.Kind == format.KindFile {
		g.Expect(st.Size).To(Equal(e.Size), path)
	}
	if e.Extra == nil {
		return
	}
	for _, a := range e.Extra.Xattrs {
		value := make([]byte, 100)
		n, err := unix.Lgetxattr(path, a.Name, value)
		g.Expect(err).NotTo(HaveOccurred(), "%s of %q", a.Name, path)
		g.Expect(value[:n]).To(Equal(a.Value))
	}
}

func expectContents(t *testing.T, target string) {
	t.Helper()
	g := NewWithT(t)
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(target, name))
		g.Expect(err).NotTo(HaveOccurred())
		return string(data)
	}
	g.Expect(read("-empty")).To(BeEmpty())
	g.Expect(read("a.txt")).To(Equal("linked"))
	g.Expect(read("bad\xffname\n")).To(Equal("hello\nworld\n"))
	g.Expect(read("hole")).To(Equal(strings.Repeat("\x00", 70_000)))
	g.Expect(os.Readlink(filepath.Join(target, "link"))).To(Equal("/nowhere/\xfe"))
	var a, b, sparse syscall.Stat_t
	g.Expect(syscall.Lstat(filepath.Join(target, "a.txt"), &a)).To(Succeed())
	g.Expect(syscall.Lstat(filepath.Join(target, "d/e/b.txt"), &b)).To(Succeed())
	g.Expect(a.Ino).To(Equal(b.Ino), "hard links are one file")
	g.Expect(syscall.Lstat(filepath.Join(target, "sparse"), &sparse)).To(Succeed())
	g.Expect(sparse.Blocks*512).To(BeNumerically("<", 5<<20), "holes stay holes")
	f, err := os.Open(filepath.Join(target, "sparse"))
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	end := make([]byte, 15)
	_, err = f.ReadAt(end, 1<<30+99)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(end)).To(Equal("\x00the end of it\x00"))
}

func TestReaderTellsWhatTheBackupLacks(t *testing.T) {
	g := NewWithT(t)
	s := newStore(t, nil)
	s.pages(&format.Page{Dirs: []format.Dir{{Meta: format.Meta{Mode: 0o755, UID: owner(), GID: owner()}, Entries: []format.Entry{
		{Name: "secret", Kind: format.KindFile, Flags: format.FlagUnreadable}}}}})
	s.commit()
	code, out := restore(t.Context(), s.dir, "7.2", filepath.Join(t.TempDir(), "web"))
	g.Expect(code).To(Equal(3))
	g.Expect(out).To(ContainSubstring("not in the backup: b'secret'"))
}

func TestReaderNoticesDamage(t *testing.T) {
	packs := func(t *testing.T, s *storeWriter) []string {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(s.dir, "d/team-a/p/*/*"))
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		return list
	}
	for name, c := range map[string]struct {
		damage  func(t *testing.T, s *storeWriter) error
		backup  string
		message string
	}{
		"a flipped byte in a pack": {func(t *testing.T, s *storeWriter) error {
			t.Helper()
			for _, p := range packs(t, s) {
				if err := flip(p, 100); err != nil {
					return err
				}
			}
			return nil
		}, "7.2", "is damaged at"},
		"packs are gone": {func(_ *testing.T, s *storeWriter) error { return os.RemoveAll(filepath.Join(s.dir, "d/team-a/p")) },
			"7.2", "No such file"},
		"an empty pack":     {func(t *testing.T, s *storeWriter) error { t.Helper(); return os.Truncate(packs(t, s)[0], 0) }, "7.2", "is damaged at"},
		"a damaged table":   {func(_ *testing.T, s *storeWriter) error { return s.edit(`"table":"`, 70) }, "7.2", "the page table is damaged"},
		"another digest":    {func(_ *testing.T, s *storeWriter) error { return s.edit(`"digest":"`, 5) }, "7.2", "another digest"},
		"a damaged commit":  {func(_ *testing.T, s *storeWriter) error { return flip(s.commitPath(), 20) }, "7.2", "its commit is damaged"},
		"no such backup":    {func(*testing.T, *storeWriter) error { return nil }, "7.3", "No such file"},
		"a commit's copy":   {func(_ *testing.T, s *storeWriter) error { return s.copyCommit() }, "7.1", "its commit is another one"},
		"no name of backup": {func(*testing.T, *storeWriter) error { return nil }, "latest", "usage:"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newStore(t, nil)
			s.pages(sample(s)...)
			s.commit()
			g.Expect(c.damage(t, s)).To(Succeed())
			code, out := restore(t.Context(), s.dir, c.backup, filepath.Join(t.TempDir(), "web"))
			g.Expect(code).To(Equal(1), out)
			g.Expect(out).To(ContainSubstring(c.message))
			g.Expect(out).NotTo(ContainSubstring("Traceback"))
		})
	}
}

func (s *storeWriter) commitPath() string { return filepath.Join(s.dir, "d/team-a/w/web", commitKey) }

func (s *storeWriter) copyCommit() error {
	data, err := os.ReadFile(s.commitPath())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "d/team-a/w/web", "7ffffffffffffff8.7ffffffffffffffe"), data, 0o600)
}

// edit changes a digit of a field of the commit to another one, as if it had been written so.
func (s *storeWriter) edit(field string, digit int) error {
	data, err := os.ReadFile(s.commitPath())
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte(field)) + len(field) + digit
	data[at] = map[bool]byte{true: '2', false: '3'}[data[at] == '3']
	return os.WriteFile(s.commitPath(), withSum(data[:bytes.LastIndex(data, []byte(`,"sha256"`))]), 0o600)
}

// flip changes a byte of a file.
func flip(path string, at int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 1
	return os.WriteFile(path, data, 0o600)
}

func TestReaderSaysThatItDoesNotDecrypt(t *testing.T) {
	g := NewWithT(t)
	key, err := format.ParseKey([]byte(strings.Repeat("5a", 32)))
	g.Expect(err).NotTo(HaveOccurred())
	s := newStore(t, key)
	s.pages(sample(s)...)
	s.commit()
	code, out := restore(t.Context(), s.dir, "7.2", filepath.Join(t.TempDir(), "web"))
	g.Expect(code).To(Equal(1))
	g.Expect(out).To(ContainSubstring("encrypted"))
}

func TestReaderRestoresPathsLongerThanASystemCallTakes(t *testing.T) {
	g := NewWithT(t)
	s := newStore(t, nil)
	m := format.Meta{Mode: 0o755, UID: owner(), GID: owner(), Sec: 1_600_000_000}
	dirs := []format.Dir{{Meta: m}}
	component := strings.Repeat("d", 200)
	for i := range 50 {
		dirs = append(dirs, format.Dir{Path: strings.TrimPrefix(dirs[i].Path+"/"+component, "/"), Meta: m})
	}
	s.contents([]byte("deep"))
	dirs[50].Entries = []format.Entry{{Name: "f", Kind: format.KindFile, Meta: m, Size: 4, Hash: sha256.Sum256([]byte("deep"))}}
	s.pages(&format.Page{Dirs: dirs})
	s.commit()
	target := filepath.Join(t.TempDir(), "web")
	code, out := restore(t.Context(), s.dir, "7.2", target)
	g.Expect(code).To(BeZero(), out)
	root, err := os.OpenRoot(target)
	g.Expect(err).NotTo(HaveOccurred())
	defer root.Close()
	g.Expect(root.ReadFile(dirs[50].Path + "/f")).To(Equal([]byte("deep")))
}

func TestReaderIsShort(t *testing.T) {
	g := NewWithT(t)
	data, err := os.ReadFile("restore.py")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(bytes.Count(data, []byte("\n"))).To(BeNumerically("<", 200))
}

func TestKeyOfTheCommit(t *testing.T) {
	g := NewWithT(t)
	g.Expect(fmt.Sprintf("%016x.%016x", math.MaxInt64-7, math.MaxInt64-2)).To(Equal(commitKey))
}
