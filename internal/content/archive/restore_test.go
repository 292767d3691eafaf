package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

func testKey(tb testing.TB, digits string) *format.Key {
	tb.Helper()
	key, err := format.ParseKey([]byte(strings.Repeat(digits, 32)))
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	return key
}

// The first backup after a restore reads nothing, because a restore writes the index that a backup would.
func TestRestoreIndexesWhatItMakes(t *testing.T) {
	for name, script := range matrix {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, s := t.TempDir(), newPackStore()
			sh(t, dir, script)
			made := create(t, dir, archive.CreateOptions{Sink: s, Source: s})
			to, report, index := restore(t, made.Root, s, nil)
			g.Expect(report.Digest).To(Equal(made.Report.Digest))
			g.Expect(counts(report)).To(Equal(counts(made.Report)))
			s.reset()
			again := create(t, to, archive.CreateOptions{Sink: s, Source: s, Parent: &made.Root, Index: index})
			g.Expect(again.Unchanged).To(BeTrue())
			g.Expect(again.BytesRead).To(BeZero())
			g.Expect(s.requests).To(BeZero())
		})
	}
}

func counts(r archive.Report) [5]int64 { return [5]int64{r.Files, r.Dirs, r.Links, r.Others, r.Bytes} }

// small has a bit of everything.
func small(tb testing.TB) *builder {
	tb.Helper()
	xattrs := func(name string) *format.Extra {
		return &format.Extra{Xattrs: []format.Xattr{{Name: name, Value: []byte("v")}}}
	}
	b := build(tb).dir("", format.Meta{Mode: 0o750, Sec: 1_000_000_000, Nsec: 1}).file("a", "hello").file("b", "").symlink("c", "a").linked("a", "d")
	b.entry(format.Entry{Name: "p", Kind: format.KindFIFO, Meta: format.Meta{Sec: -5, Nsec: 7, Extra: xattrs("user.p")}})
	b.contents["p"] = nil
	b.entries()[4].Extra = nil // FIFOs cannot have them
	b.dir("sub", format.Meta{Mode: 0o2500, Sec: 1, Extra: xattrs("user.d")}).file("x", text(10_000)).file("y", text(4<<20+9))
	b.entry(format.Entry{Name: "z", Kind: format.KindWhiteout, Meta: format.Meta{UID: 5, GID: 6}})
	return b.dir("sub/deep", format.Meta{}).file("last", "the end")
}

func TestRestoreWritesEverything(t *testing.T) {
	for _, key := range []*format.Key{nil, testKey(t, "ab")} {
		t.Run(fmt.Sprintf("encrypted=%v", key != nil), func(t *testing.T) {
			g := NewWithT(t)
			b := small(t)
			b.key = key
			root := b.root(format.BlockSize)
			dir, report, index := restore(t, root, b.store, key)
			g.Expect(counts(report)).To(Equal([5]int64{6, 3, 1, 2, 5 + 10_000 + 4<<20 + 9 + 7}))
			g.Expect(report.Digest).To(Equal(root.Digest.String()))
			g.Expect(index).NotTo(BeNil())
			found := independentWalk(t, dir)
			g.Expect(found).To(HaveLen(12))
			g.Expect(found["."]).To(And(HaveField("Mode", "750"), HaveField("Mtime", "1000000000.000000001")))
			g.Expect(found["d"]).To(And(HaveField("Group", "a (2)"), HaveField("Size", int64(5))))
			g.Expect(found["c"]).To(HaveField("Target", "a"))
			g.Expect(found["p"]).To(HaveField("Mtime", "-5.000000007"))
			g.Expect(found["sub"]).To(And(HaveField("Mode", "2500"), HaveField("Xattrs", []string{"user.d=76"})))
			g.Expect(found["sub/z"]).To(And(HaveField("Owner", "5:6"), HaveField("Target", "0")))
			g.Expect(os.ReadFile(filepath.Join(dir, "sub/y"))).To(Equal([]byte(text(4<<20 + 9))))
			read, err := archive.Digest(t.Context(), dir, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read.Digest).To(Equal(report.Digest))
		})
	}
}

func TestRestoreNeedsItsKey(t *testing.T) {
	b := small(t)
	b.key = testKey(t, "ab")
	root := b.root(format.BlockSize)
	for name, key := range map[string]*format.Key{"none": nil, "another": testKey(t, "cd")} {
		t.Run(name, func(t *testing.T) {
			_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, Key: key, Salvage: true})
			NewWithT(t).Expect(err).To(HaveOccurred())
		})
	}
}

func TestRestoreNeedsAnEmptyDirectory(t *testing.T) {
	b := small(t)
	root := b.root(format.BlockSize)
	full, base := t.TempDir(), t.TempDir()
	sh(t, full, `echo x >precious`)
	sh(t, base, `echo x >file; mkdir d; ln -s d link`)
	for dir, message := range map[string]string{
		full:            "the directory is not empty (precious is there)",
		base + "/none":  "no such file or directory",
		base + "/file":  "not a directory",
		base + "/link":  "not a directory",
		base + "/d/a/b": "no such file or directory",
	} {
		_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(message)))
	}
	NewWithT(t).Expect(b.store.requests).To(BeZero())
}

// What is made is as it was, whatever the process and the directory pass on.
func TestRestoreIgnoresInheritance(t *testing.T) {
	g := NewWithT(t)
	from, parent, s := t.TempDir(), t.TempDir(), newPackStore()
	sh(t, from, `mkdir d s; touch f d/g; ln -s x l; mkfifo p; mknod w c 0 0; chmod 755 .; chmod 777 d f; chmod 2775 s; chown 3:4 s; touch s/f; ln s/f s/g; ln -s y s/l`)
	sh(t, parent, `setfacl -d -m u:7:rwx .; chown 0:99 .; chmod 2777 .; mkdir to; setfattr -n user.x -v y to`)
	made := create(t, from, archive.CreateOptions{Sink: s, Source: s})
	defer unix.Umask(unix.Umask(0o77))
	_, index, err := archive.Restore(t.Context(), made.Root, parent+"/to", archive.RestoreOptions{Source: s})
	g.Expect(err).NotTo(HaveOccurred())
	expectEqualTrees(t, independentWalk(t, from), independentWalk(t, parent+"/to"))
	again := create(t, parent+"/to", archive.CreateOptions{Sink: s, Source: s, Parent: &made.Root, Index: index})
	g.Expect(again.Unchanged).To(BeTrue())
}

func TestRestorePaths(t *testing.T) {
	tests := map[string]struct {
		paths []string
		want  []string
		err   string
	}{
		"file":                {paths: []string{"a"}, want: []string{".", "a"}},
		"link to file":        {paths: []string{"d"}, want: []string{".", "d"}},
		"both names":          {paths: []string{"a", "d"}, want: []string{".", "a", "d"}},
		"file in directory":   {paths: []string{"sub/x"}, want: []string{".", "sub", "sub/x"}},
		"large file":          {paths: []string{"sub/y"}, want: []string{".", "sub", "sub/y"}},
		"as a person writes":  {paths: []string{"./sub/deep/"}, want: []string{".", "sub", "sub/deep", "sub/deep/last"}},
		"directory":           {paths: []string{"sub"}, want: []string{".", "sub", "sub/deep", "sub/deep/last", "sub/x", "sub/y", "sub/z"}},
		"no such in chosen":   {paths: []string{"sub", "sub/deep/nope"}, err: "there is no sub/deep/nope in the backup"},
		"overlapping":         {paths: []string{"sub/deep", "sub/deep/last"}, want: []string{".", "sub", "sub/deep", "sub/deep/last"}},
		"no such":             {paths: []string{"a", "nope"}, err: "there is no nope in the backup"},
		"no such in":          {paths: []string{"sub/nope"}, err: "there is no sub/nope in the backup"},
		"file as a directory": {paths: []string{"a/b"}, err: "there is no a/b in the backup"},
		"prefix of a name":    {paths: []string{"su"}, err: "there is no su in the backup"},
		"escape":              {paths: []string{"../a"}, err: "is not one within a backup"},
		"escape inside":       {paths: []string{"sub/../../a"}, err: "is not one within a backup"},
		"zero byte":           {paths: []string{"a\x00"}, err: "is not one within a backup"},
	}
	for _, rows := range []int{1, 2, 3, 200} {
		b := small(t)
		b.pageRows = rows
		root := b.root(format.BlockSize)
		whole, _, _ := restore(t, root, b.store, nil)
		all := independentWalk(t, whole)
		for name, tt := range tests {
			t.Run(fmt.Sprintf("%s/pages of %d", name, rows), func(t *testing.T) {
				g := NewWithT(t)
				dir := t.TempDir()
				report, index, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Paths: tt.paths})
				if tt.err != "" {
					g.Expect(err).To(MatchError(ContainSubstring(tt.err)))
					return
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(index).To(BeNil())
				g.Expect(report.Digest).To(BeEmpty())
				want := map[string]seen{}
				for _, path := range tt.want {
					want[path] = all[path]
				}
				if len(tt.paths) == 1 { // the other name is not there
					delete(want, "d")
					for _, path := range tt.want {
						s := all[path]
						s.Group = ""
						want[path] = s
					}
				}
				expectEqualTrees(t, want, independentWalk(t, dir))
			})
		}
	}
}

// wide is a backup of many files in many packs.
func wide(tb testing.TB, dirs, files int) *builder {
	tb.Helper()
	b := build(tb).dir("", format.Meta{})
	for i := range dirs {
		b.dir(fmt.Sprintf("d%04d", i), format.Meta{})
		for j := range files {
			b.file(fmt.Sprintf("f%04d", j), fmt.Sprintf("%d %d %s", i, j, text(j)))
		}
	}
	return b
}

func TestRestoreRequests(t *testing.T) {
	g := NewWithT(t)
	b := wide(t, 50, 100)
	root := b.root(10_000)
	g.Expect(root.Packs).To(HaveLen(1))
	restore(t, root, b.store, nil)
	g.Expect(b.store.requests).To(Equal(2), "one for all pages, one for all content")

	for _, path := range []string{"d0000/f0000", "d0025/f0050", "d0049/f0099"} {
		b.store.reset()
		_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, Paths: []string{path}})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(b.store.requests).To(Equal(2), path)
	}
}

// A slow store is asked by many connections at once, a fast one by few; never by more than was said.
func TestRestoreConnections(t *testing.T) {
	b := wide(t, 40, 1)
	root := b.rootPacks(10, 1)
	for limit, want := range map[int]int{0: 8, 1: 1, 2: 2, 5: 5, 100: 8} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			g := NewWithT(t)
			var mu sync.Mutex
			running, most := 0, 0
			full := make(chan struct{}) // closed when all connections are in use
			pages := true               // they are one request
			b.store.before = func() error {
				mu.Lock()
				if pages {
					pages = false
					mu.Unlock()
					return nil
				}
				if running++; running > most {
					most = running
					if most == want {
						close(full)
					}
				}
				mu.Unlock()
				defer func() { mu.Lock(); running--; mu.Unlock() }()
				select {
				case <-full:
					return nil
				case <-t.Context().Done():
					return t.Context().Err()
				}
			}
			defer func() { b.store.before = nil }()
			_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, Connections: limit})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(most).To(Equal(want))
		})
	}
}

func TestRestoreTellsProgress(t *testing.T) {
	g := NewWithT(t)
	b := wide(t, 10, 10).dir("z", format.Meta{}).file("large", text(9<<20))
	root := b.root(1000)
	var files, bytes int64
	report, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, Progress: func(f, n int64) {
		g.Expect(f).To(BeNumerically(">=", files))
		g.Expect(n).To(BeNumerically(">=", bytes))
		files, bytes = f, n
	}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]int64{files, bytes}).To(Equal([]int64{report.Files, report.Bytes}))
	g.Expect(files).To(BeEquivalentTo(101))
}

func TestRestoreEndsWithItsContext(t *testing.T) {
	b := wide(t, 20, 20)
	root := b.rootPacks(50, 3)
	for _, after := range []int{0, 1, 2, 5} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var mu sync.Mutex
			n := 0
			b.store.before = func() error {
				mu.Lock()
				defer mu.Unlock()
				if n++; n > after {
					cancel(errors.New("enough"))
				}
				return nil
			}
			defer func() { b.store.before = nil }()
			_, index, err := archive.Restore(ctx, root, t.TempDir(), archive.RestoreOptions{Source: b.store, Salvage: after%2 == 1})
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring("enough")))
			NewWithT(t).Expect(index).To(BeNil())
		})
	}
}

func TestRestoreReportsErrorsOfTheStore(t *testing.T) {
	b := wide(t, 20, 20)
	root := b.rootPacks(50, 3)
	broken := errors.New("connection reset")
	for _, after := range []int{0, 1, 5} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			var mu sync.Mutex
			n := 0
			b.store.before = func() error {
				mu.Lock()
				defer mu.Unlock()
				if n++; n > after {
					return broken
				}
				return nil
			}
			defer func() { b.store.before = nil }()
			_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store})
			NewWithT(t).Expect(err).To(MatchError(broken))
			NewWithT(t).Expect(err).To(MatchError(MatchRegexp(`pack [0-9a-f]{32}`)))
		})
	}
}

// smallDisk mounts a tmpfs.
func smallDisk(tb testing.TB, options string) string {
	tb.Helper()
	dir := tb.TempDir()
	sh(tb, dir, "mount -t tmpfs -o "+options+" none .")
	tb.Cleanup(func() { NewWithT(tb).Expect(unix.Unmount(dir, 0)).To(Succeed()) })
	return dir
}

func TestRestoreWithoutSpace(t *testing.T) {
	b := wide(t, 20, 20).dir("z", format.Meta{}).file("large", text(3<<20))
	root := b.root(100_000)
	for options, want := range map[string]string{
		"size=1m":              "it needs at least 3",
		"size=64m,nr_inodes=9": "it needs at least 3",
		"size=4m":              "write ", // each file takes a page
	} {
		t.Run(options, func(t *testing.T) {
			g := NewWithT(t)
			dir := smallDisk(t, options)
			_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
			g.Expect(err).To(MatchError(unix.ENOSPC))
			g.Expect(err).To(MatchError(ContainSubstring(want)))
		})
	}
	dir := smallDisk(t, "size=16m")
	_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestRestoreOnReadOnlyDisk(t *testing.T) {
	b := small(t)
	root := b.root(format.BlockSize)
	dir := smallDisk(t, "size=1m,ro")
	_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
	NewWithT(t).Expect(err).To(MatchError(unix.EROFS))
}
