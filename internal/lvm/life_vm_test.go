//go:build vm

package lvm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// sizeOf returns the size of the file system at a path.
func sizeOf(g *WithT, path string) int64 {
	var st unix.Statfs_t
	g.Expect(unix.Statfs(path, &st)).To(Succeed())
	return int64(st.Blocks) * st.Bsize
}

// as runs a shell command as a user who owns the content.
func as(t *testing.T, uid uint32, dir, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWritersStopAtTheirLimits(t *testing.T) {
	for _, fs := range Filesystems() {
		t.Run(fs, func(t *testing.T) {
			g := NewWithT(t)
			d := newDriver(t, newClass(t, fs))
			a := published(t, d, volume.Spec{ID: "a", Size: 304 * mebibyte, Inodes: 100})
			b := published(t, d, volume.Spec{ID: "b", Size: 304 * mebibyte})
			for _, info := range []volume.Info{a, b} {
				g.Expect(os.Chown(info.Path, 33333, 33333)).To(Succeed())
			}
			marker, err := volume.ReadMarker(a)
			g.Expect(err).NotTo(HaveOccurred())
			for _, uid := range []uint32{33333, 0} {
				out, err := as(t, uid, a.Path, "head -c 400M /dev/zero > large")
				g.Expect(err).To(HaveOccurred())
				g.Expect(out).To(Or(ContainSubstring("No space left"), ContainSubstring("quota exceeded")))
				if uid != 0 { // who may ignore quota takes the reserve, but no more than the device
					g.Expect(volume.WriteMarker(a, marker)).To(Succeed(), "the daemon has room for its own")
				}
				g.Expect(os.Remove(filepath.Join(a.Path, "large"))).To(Succeed())
			}
			out, err := as(t, 33333, a.Path, "i=0; while : > f$i; do i=$((i+1)); done; echo $i")
			g.Expect(err).To(HaveOccurred())
			g.Expect(out).To(Or(ContainSubstring("No space left"), ContainSubstring("quota exceeded")))
			g.Expect(volume.WriteMarker(a, marker)).To(Succeed())
			usage, err := d.Usage(t.Context(), "a")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(usage.Inodes).To(BeEquivalentTo(100))
			_, err = as(t, 33333, b.Path, "head -c 1M /dev/zero > neighbour")
			g.Expect(err).NotTo(HaveOccurred())

			before := sizeOf(g, a.Dir)
			g.Expect(d.Resize(t.Context(), volume.Spec{ID: "a", Size: 404 * mebibyte, Inodes: 200})).To(HaveField("Size", BeEquivalentTo(404*mebibyte)))
			g.Expect(sizeOf(g, a.Dir)-before).To(BeNumerically("~", 100*mebibyte, 8*mebibyte), "it grows while it is used")
			_, err = as(t, 33333, a.Path, ": > one-more")
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

// What is being restored may take some blocks more than what users can, and is finished all the same.
func TestStagedContentHasSomeRoomMore(t *testing.T) {
	for _, fs := range Filesystems() {
		t.Run(fs, func(t *testing.T) {
			g := NewWithT(t)
			d := newDriver(t, newClass(t, fs))
			info, err := d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 304 * mebibyte, Inodes: 100})
			g.Expect(err).NotTo(HaveOccurred())
			path, err := d.Stage(t.Context(), "a")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(os.Chown(path, 33333, 33333)).To(Succeed())
			taken := func() int64 {
				usage, err := d.Usage(t.Context(), "a")
				g.Expect(err).NotTo(HaveOccurred())
				return usage.Bytes
			}
			stopped := Or(ContainSubstring("No space left"), ContainSubstring("quota exceeded"))
			out, err := as(t, 33333, path, "head -c 400M /dev/zero > large")
			g.Expect([]any{out, err}).To(HaveExactElements(stopped, HaveOccurred()))
			most := taken()

			sealed, err := volume.Seal(t.Context(), path, volume.Content{Source: "Backup"})
			g.Expect(err).NotTo(HaveOccurred())
			marker := volume.Marker{UID: "a", Content: &sealed}
			g.Expect(volume.WriteMarker(info, marker)).To(Succeed())
			g.Expect(d.Publish(t.Context(), "a")).To(Succeed())
			out, err = as(t, 33333, info.Path, "head -c 4k /dev/zero >> large")
			g.Expect([]any{out, err}).To(HaveExactElements(stopped, HaveOccurred()))
			g.Expect(taken()).To(BeNumerically("~", most, mebibyte/16))
			g.Expect(volume.WriteMarker(info, marker)).To(Succeed())

			out, err = as(t, 33333, info.Path, "rm large && sync -f . && head -c 400M /dev/zero > large")
			g.Expect([]any{out, err}).To(HaveExactElements(stopped, HaveOccurred()))
			g.Expect(most-taken()).To(BeNumerically("~", 4*mebibyte, mebibyte), "users have less")
		})
	}
}

// A file with another project id does not count as an inode, and is found. What a backup has seen spares a look at the tree, but only
// as long as it is no more than what is counted.
func TestS9_EscapedFileIsFound(t *testing.T) {
	for _, fs := range Filesystems() {
		t.Run(fs, func(t *testing.T) {
			g := NewWithT(t)
			d := newDriver(t, newClass(t, fs))
			info := published(t, d, volume.Spec{ID: "a", Size: 304 * mebibyte, Inodes: 100})
			g.Expect(os.Chown(info.Path, 33333, 33333)).To(Succeed())
			g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
			seen, err := d.Usage(t.Context(), "a")
			g.Expect(err).NotTo(HaveOccurred())

			out, err := as(t, 33333, info.Path, "head -c 1M /dev/zero > elsewhere; chattr -p 77 elsewhere; sync elsewhere")
			g.Expect(err).NotTo(HaveOccurred(), out)
			g.Expect(d.Audit(t.Context(), "a", &seen)).To(Succeed(), "nobody has seen more than is counted")
			seen.Inodes++
			for _, seen := range []*volume.Usage{nil, &seen} {
				g.Expect(d.Audit(t.Context(), "a", seen)).To(MatchError(And(
					ContainSubstring("content of volume a has escaped from its limit"), ContainSubstring(`elsewhere" has project id 77`))))
			}
			g.Expect(os.Remove(filepath.Join(info.Path, "elsewhere"))).To(Succeed())
			g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
		})
	}
}

// Whoever has a volume, in whatever namespace, keeps it from being taken away, and is named.
func TestS1_HeldVolumeStaysWithItsUsers(t *testing.T) {
	g := NewWithT(t)
	d := newDriver(t, newClass(t, "xfs"))
	info := published(t, d, volume.Spec{ID: "a", Size: 304 * mebibyte})
	file := filepath.Join(info.Path, "file")
	for name, hold := range map[string]func() (release func()){
		"an open file": func() func() {
			f, err := os.Open(file)
			g.Expect(err).NotTo(HaveOccurred())
			return func() { _ = f.Close() }
		},
		"another namespace": func() func() {
			cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sleep", "1000")
			g.Expect(cmd.Start()).To(Succeed())
			g.Eventually(func() (string, error) {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
				return string(text), err
			}).Should(Equal("sleep\n"))
			return func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		},
	} {
		release := hold()
		withdraw, remove := d.Withdraw(t.Context(), "a"), d.Remove(t.Context(), "a")
		for _, err := range []error{withdraw, remove} {
			g.Expect(err).To(MatchError(volume.ErrInUse), name)
		}
		if name == "another namespace" {
			g.Expect(withdraw).To(MatchError(ContainSubstring("(sleep)")))
		}
		g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Published))
		g.Expect(os.ReadFile(file)).To(BeEquivalentTo("first"))
		release()
	}
	g.Expect(d.Withdraw(t.Context(), "a")).To(Succeed())
	g.Expect(file).NotTo(BeAnExistingFile())
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
}

// After a start of the node nothing is mounted, or even active. Tags are enough to bring everything back; until then, nothing looks
// like an empty volume.
func TestS5_VolumesAreFoundAgainWithoutAnybody(t *testing.T) {
	g := NewWithT(t)
	class := newClass(t, "xfs")
	d := newDriver(t, class)
	info := published(t, d, volume.Spec{ID: "a", Size: 304 * mebibyte})
	view, err := d.Snapshot(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unix.Unmount(filepath.Dir(view.Path), 0)).To(Succeed())
	g.Expect(unix.Unmount(info.Dir, 0)).To(Succeed())
	lvm(t, "lvchange", "--activate", "n", d.full("ws.a"))

	d = newDriver(t, class) // the daemon's next life
	_, err = d.Get(t.Context(), "a")
	g.Expect(err).To(And(MatchError(volume.ErrReplaced), Not(MatchError(volume.ErrNotFound))))
	_, err = volume.ReadMarker(info)
	g.Expect(err).To(MatchError(unix.ENOTDIR))
	g.Expect(os.Mkdir(info.Path, 0o755)).To(MatchError(os.ErrPermission), "nothing can be written below")
	g.Expect(d.Remove(t.Context(), "a")).To(MatchError(volume.ErrReplaced), "who has not looked into it cannot know what is in it")
	g.Expect(d.List(t.Context())).To(HaveLen(1))

	g.Expect(d.Sweep(t.Context())).To(Succeed())
	g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Published))
	g.Expect(os.ReadFile(filepath.Join(info.Path, "file"))).To(BeEquivalentTo("first"))
	r, err := d.report(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.views).To(BeEmpty())
	g.Expect(mountsIn(g, class)).To(Equal([]string{info.Dir}))
	g.Expect(pointsIn(g, class)).To(BeEmpty())

	d.tools = tools{} // looking at volumes runs no program
	g.Expect(d.Get(t.Context(), "a")).To(Equal(info))
	g.Expect(d.Usage(t.Context(), "a")).To(HaveField("Inodes", BeEquivalentTo(2)))
	g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Published))
}

func TestCloneIsAVolumeOfItsOwn(t *testing.T) {
	for _, fs := range Filesystems() {
		t.Run(fs, func(t *testing.T) {
			g := NewWithT(t)
			d := newDriver(t, newClass(t, fs))
			origin := published(t, d, volume.Spec{ID: "a", Size: 304 * mebibyte})
			clone, err := d.Clone(t.Context(), "a", volume.Spec{ID: "b", Size: 404 * mebibyte, Inodes: 50})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(clone).To(Equal(volume.Info{
				ID: "b", Dir: d.Dir("b"), Path: filepath.Join(d.Dir("b"), "content"), Size: 404 * mebibyte, Inodes: 50, Limited: true,
			}))
			g.Expect(d.Clone(t.Context(), "a", volume.Spec{ID: "b", Size: 404 * mebibyte, Inodes: 50})).To(Equal(clone))
			g.Expect(d.Position(t.Context(), "b")).To(Equal(volume.Staged))
			_, err = volume.ReadMarker(clone)
			g.Expect(err).To(MatchError(volume.ErrNotFound))
			g.Expect(sizeOf(g, clone.Dir) - sizeOf(g, origin.Dir)).To(BeNumerically("~", 100*mebibyte, 8*mebibyte))

			staged := d.Path("b", volume.Staged)
			g.Expect(os.ReadFile(filepath.Join(staged, "file"))).To(BeEquivalentTo("first"))
			g.Expect(os.WriteFile(filepath.Join(staged, "file"), []byte("second"), 0o600)).To(Succeed())
			g.Expect(os.ReadFile(filepath.Join(origin.Path, "file"))).To(BeEquivalentTo("first"))
			content, err := volume.Seal(t.Context(), staged, volume.Content{Source: "Snapshot"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(volume.WriteMarker(clone, volume.Marker{UID: "b", Content: &content})).To(Succeed())
			g.Expect(d.Publish(t.Context(), "b")).To(Succeed())
			g.Expect(os.ReadFile(filepath.Join(clone.Path, "file"))).To(BeEquivalentTo("second"))

			_, small := d.Clone(t.Context(), "a", volume.Spec{ID: "c", Size: 300 * mebibyte})
			g.Expect(small).To(MatchError(volume.ErrShrink))
			_, absent := d.Clone(t.Context(), "x", volume.Spec{ID: "c", Size: 404 * mebibyte})
			g.Expect(absent).To(MatchError(volume.ErrNotFound))
			_, err = d.Ensure(t.Context(), volume.Spec{ID: "x", Size: 304 * mebibyte})
			g.Expect(err).NotTo(HaveOccurred())
			_, bare := d.Clone(t.Context(), "x", volume.Spec{ID: "c", Size: 404 * mebibyte})
			g.Expect(bare).To(MatchError(volume.ErrUnfinished))
			g.Expect(d.Sweep(t.Context())).To(Succeed())
			g.Expect(d.List(t.Context())).To(HaveLen(3), "nothing is left of clones that failed")
		})
	}
}

// A pool that fills up takes nothing new before it is full, and what is removed is given back to it.
func TestPoolThatFillsUp(t *testing.T) {
	g := NewWithT(t)
	d := newDriver(t, newClass(t, "xfs"))
	info := published(t, d, volume.Spec{ID: "a", Size: 2 * gibibyte})
	write(g, filepath.Join(info.Path, "large"), 900*mebibyte)
	fillTo(t, d, info, maxViewData)
	_, err := d.Snapshot(t.Context(), "a")
	g.Expect(err).To(MatchError(volume.ErrCapacity))
	fillTo(t, d, info, maxData)
	for _, err := range []error{second(d.Ensure(t.Context(), volume.Spec{ID: "b", Size: 304 * mebibyte})),
		second(d.Resize(t.Context(), volume.Spec{ID: "a", Size: 3 * gibibyte}))} {
		g.Expect(err).To(MatchError(volume.ErrCapacity))
		g.Expect(err).To(MatchError(ContainSubstring("% full")))
	}
	g.Expect(d.List(t.Context())).To(HaveLen(1))
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	g.Expect(d.Capacity(t.Context())).To(And(HaveField("Thin.Data", BeNumerically("<", 1)), HaveField("Thin.Metadata", BeNumerically(">", 0))))
}

// fillTo writes until the pool is full to a percentage.
func fillTo(t *testing.T, d *Driver, info volume.Info, percent float64) {
	t.Helper()
	g := NewWithT(t)
	for i := 0; ; i++ {
		capacity, err := d.Capacity(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		if capacity.Thin.Data >= percent {
			return
		}
		write(g, filepath.Join(info.Path, fmt.Sprintf("%.0f-%d", percent, i)), 32*mebibyte)
	}
}

func second[T any](_ T, err error) error { return err }

// write writes a file of zeros through to the disk.
func write(g *WithT, path string, size int) {
	f, err := os.Create(path)
	g.Expect(err).NotTo(HaveOccurred())
	for range size / mebibyte {
		_, err := f.Write(make([]byte, mebibyte))
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(errors.Join(f.Sync(), f.Close())).To(Succeed())
}

// A device that is busy with something else is left alone, and said to be so.
func TestMountsOfOthersAreLeftAlone(t *testing.T) {
	g := NewWithT(t)
	class := newClass(t, "xfs")
	d := newDriver(t, class)
	g.Expect(os.Mkdir(d.Dir("a"), 0o755)).To(Succeed())
	g.Expect(unix.Mount("none", d.Dir("a"), "tmpfs", 0, "size=1m")).To(Succeed())
	_, err := d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 304 * mebibyte})
	g.Expect(err).To(MatchError(ContainSubstring("another file system is mounted there")))
	g.Expect(unix.Unmount(d.Dir("a"), 0)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(d.Dir("a"), strconv.Itoa(1)), nil, 0o600)).To(Succeed())
	_, err = d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 304 * mebibyte})
	g.Expect(err).To(MatchError(ContainSubstring("it lies where a volume has to be mounted")))
	g.Expect(os.RemoveAll(d.Dir("a"))).To(Succeed())
	g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 304 * mebibyte})).Error().NotTo(HaveOccurred())
}
