package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

const notAll = "not all of its extended attributes could be read when the backup was made"

// Whoever restores is told of attributes that the backup lacks.
func TestS3_RestoreNamesWhatLacksAttributes(t *testing.T) {
	g := NewWithT(t)
	some := format.Meta{Mode: 0o755, Partial: true, Extra: &format.Extra{Xattrs: []format.Xattr{{Name: "user.a", Value: []byte("1")}}}}
	group := format.GroupOf("d/f")
	linked := format.Meta{Mode: 0o644, Partial: true, Extra: &format.Extra{Group: group}}
	b := build(t).dir("", format.Meta{}).dir("d", some)
	b.entry(format.Entry{Name: "f", Meta: linked}).entry(format.Entry{Name: "g", Meta: linked})
	b.entry(format.Entry{Name: "p", Kind: format.KindFIFO, Meta: format.Meta{Mode: 0o600, Partial: true}})
	root := b.root(1 << 20)
	dir, report, _ := restore(t, root, b.store, nil)
	g.Expect(report.Unreadable).To(ConsistOf(archive.Problem{Path: "d", Error: notAll}, archive.Problem{Path: "d/f", Error: notAll}, archive.Problem{Path: "d/p", Error: notAll}))
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(3))
	g.Expect(sh(t, dir, `getfattr --absolute-names -n user.a --only-values d`)).To(Equal("1"))
}

// Attributes beyond what is read of a file are missed, not left out in silence. XFS keeps so many, others refuse them before.
func TestS3_FidelityOfTooManyAttributes(t *testing.T) {
	g := NewWithT(t)
	b := &backups{t: t, dir: diskDir(t), store: newPackStore()}
	sh(t, b.dir, `mkdir d; echo f >f; echo g >g; head -c 9M /dev/zero | tr '\0' x >large`)
	kept := 0
	for _, name := range []string{"f", "d", "large"} {
		size := 0
		for i := range 20 {
			err := unix.Setxattr(b.dir+"/"+name, fmt.Sprintf("user.%02d", i), bytes.Repeat([]byte{byte(i)}, 64<<10), 0)
			if err == nil {
				size += 64 << 10
			}
		}
		if size > 1<<20 {
			kept++
		}
	}
	b.calm()
	r := create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store})
	g.Expect(r.UnreadableCount).To(BeEquivalentTo(kept))
	_, report, index := restore(t, r.Root, b.store, nil)
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(kept))
	g.Expect(report.Digest).To(Equal(r.Report.Digest))
	again := create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &r.Root, Index: r.Index})
	g.Expect(again.Unreadable).To(Equal(r.Unreadable), "as long as it is so")
	g.Expect(index).NotTo(BeNil())
}

// A file in whose place a directory comes after the scan is not in the backup, and neither is what is in that directory.
func TestS3_FileThatBecomesADirectoryIsNamed(t *testing.T) {
	g := NewWithT(t)
	dir, s := t.TempDir(), newPackStore()
	sh(t, dir, `echo a >a; echo f >f; head -c 5000000 /dev/zero | tr '\0' x >large`)
	done := false
	r := create(t, dir, archive.CreateOptions{Sink: s, Source: s, Progress: func(int64, int64) {
		for _, name := range []string{"/f", "/large"} {
			if !done {
				g.Expect(errors.Join(os.Remove(dir+name), os.Mkdir(dir+name, 0o755), os.WriteFile(dir+name+"/in", nil, 0o600))).To(Succeed())
			}
		}
		done = true
	}})
	const became = "became a directory while the tree was read"
	g.Expect(r.Unreadable).To(Equal([]archive.Problem{{Path: "f", Error: became}, {Path: "large", Error: became}}))
	g.Expect(r.Changed).To(BeEmpty())
	again := create(t, dir, archive.CreateOptions{Sink: s, Source: s, Parent: &r.Root, Index: r.Index})
	g.Expect(again.UnreadableCount).To(BeZero())
	g.Expect(again.Files).To(BeEquivalentTo(3))
}

// A filesystem puts the nearest time in the place of one that it cannot hold, and says nothing. We do.
func TestFidelityOfTimesThatTheFilesystemCannotHold(t *testing.T) {
	g := NewWithT(t)
	far := format.Meta{Mode: 0o755, Sec: math.MaxInt64 / 4, Nsec: 5}
	b := build(t).dir("", format.Meta{}).entry(format.Entry{Name: "empty", Meta: far}).file("f", "content").symlink("s", "t").dir("d", far)
	for i := range b.dirs[0].Entries {
		e := &b.dirs[0].Entries[i]
		e.Sec, e.Nsec = far.Sec, far.Nsec
	}
	dir, report, _ := restore(t, b.root(1<<20), b.store, nil)
	var want []archive.Problem
	for _, name := range []string{"d", "empty", "f", "s"} {
		var st unix.Stat_t
		g.Expect(unix.Lstat(dir+"/"+name, &st)).To(Succeed())
		if st.Mtim.Sec != far.Sec {
			message := fmt.Sprintf("the filesystem cannot hold its time: @%d.000000005 has become @%d.%09d", far.Sec, st.Mtim.Sec, st.Mtim.Nsec)
			want = append(want, archive.Problem{Path: name, Error: message})
		}
	}
	g.Expect(report.Altered).To(ConsistOf(want))
	g.Expect(report.AlteredCount).To(BeEquivalentTo(len(want)))
	g.Expect(report.UnreadableCount).To(BeZero())
	ordinary := build(t).dir("", format.Meta{Sec: time.Now().Unix()}).file("f", "content")
	_, report, _ = restore(t, ordinary.root(1<<20), ordinary.store, nil)
	g.Expect(report.Altered).To(BeEmpty())
}

// The largest attribute that the filesystem takes comes back: 64 KiB on XFS, most of a block on ext4.
func TestFidelityOfTheLargestAttribute(t *testing.T) {
	g := NewWithT(t)
	dir := diskDir(t)
	sh(t, dir, `echo f >f; mkdir d`)
	for _, name := range []string{"f", "d"} {
		size := 64 << 10
		for ; size > 0; size -= 512 {
			if unix.Setxattr(dir+"/"+name, "user.large", bytes.Repeat([]byte{0xa5}, size), 0) == nil {
				break
			}
		}
		g.Expect(size).To(BeNumerically(">=", 3<<10))
	}
	roundTrip(t, dir)
}
