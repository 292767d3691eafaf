//go:build vm

package quota

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

func TestDriver(t *testing.T) {
	volumetest.Run(t, func(t *testing.T) volume.Driver {
		t.Helper()
		d, _ := newDriver(t)
		return d
	})
}

// crashes keep the range of ids in the name of the disk.
func crashes() volumetest.Crashes {
	split := func(disk string) (string, Range) {
		root, first, _ := strings.Cut(disk, "@")
		n, _ := strconv.ParseUint(first, 10, 32)
		return root, Range{First: uint32(n), Last: uint32(n) + 999}
	}
	return volumetest.Crashes{
		Disk: func(t *testing.T) string {
			t.Helper()
			ids := nextRange(t)
			return fmt.Sprintf("%s@%d", t.TempDir(), ids.First)
		},
		Open: func(disk string) (volume.Driver, error) {
			root, ids := split(disk)
			return New(root, ids)
		},
		Empty: func(t *testing.T, disk string) {
			t.Helper()
			root, ids := split(disk)
			g := NewWithT(t)
			expectEmpty(g, root)
			expectReleased(t, root, ids)
		},
		Whole: func(t *testing.T, disk string, d volume.Driver) {
			t.Helper()
			root, ids := split(disk)
			g := NewWithT(t)
			g.Expect(d.Get(t.Context(), "a")).To(HaveField("Limited", true))
			dir, err := os.Open(root)
			g.Expect(err).NotTo(HaveOccurred())
			defer dir.Close()
			g.Eventually(func() ([]account, error) { return accounts(dir, ids) }, "60s", "100ms").Should(HaveLen(1))
			info, err := d.Get(t.Context(), "a")
			g.Expect(err).NotTo(HaveOccurred())
			list, err := accounts(dir, ids)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(list[0].limits).To(Equal(exactly(volume.Spec{Size: info.Size})))
			g.Expect(list[0].inodes).To(BeEquivalentTo(3), "volume, content, file")
		},
	}
}

// expectEmpty expects nothing below a root but an empty trash.
func expectEmpty(g *WithT, root string) {
	for _, pattern := range []string{"[^.]*", filepath.Join(".trash", "*")} {
		g.Expect(filepath.Glob(filepath.Join(root, pattern))).To(BeEmpty())
	}
}

// TestS5_PowerCutLeadsToOneRightEnd cuts the power of the disk at a point of each operation: what was begun is whole or gone after the
// next start, project ids included, and the neighbour is as it was.
func TestS5_PowerCutLeadsToOneRightEnd(t *testing.T) {
	disks := map[string]*cutDisk{}
	c := crashes()
	c.Disk = func(t *testing.T) string {
		t.Helper()
		disk := newCutDisk(t)
		ids := nextRange(t)
		name := fmt.Sprintf("%s@%d", disk.root, ids.First)
		disks[name] = disk
		return name
	}
	c.Reboot = func(t *testing.T, name string) { t.Helper(); disks[name].reboot(t) }
	whole, empty := c.Whole, c.Empty
	c.Whole = func(t *testing.T, name string, d volume.Driver) { t.Helper(); whole(t, name, d); disks[name].check(t) }
	c.Empty = func(t *testing.T, name string) { t.Helper(); empty(t, name); disks[name].check(t) }
	c.Run(t)
}

// cutDisk is a file system of the kind that is tested, on a disk whose power can be cut, with two directories of volumes: one for what is
// tried, and one with a neighbour to which nothing may happen.
type cutDisk struct {
	*volumetest.PowerCut

	mount, root string
	beside      *Driver
}

func newCutDisk(t *testing.T) *cutDisk {
	t.Helper()
	g := NewWithT(t)
	d := &cutDisk{PowerCut: volumetest.NewPowerCut(t, 512<<20), mount: t.TempDir()}
	mkfs := []string{"mkfs.xfs", "-q", d.Path()}
	if onExt4(g) {
		mkfs = []string{"mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota", d.Path()}
	}
	volumetest.Program(t, mkfs[0], mkfs[1:]...)
	volumetest.Program(t, "mount", "-o", "prjquota", d.Path(), d.mount)
	t.Cleanup(func() { volumetest.Program(t, "umount", d.mount) })
	d.root = filepath.Join(d.mount, "volumes")
	beside := filepath.Join(d.mount, "beside")
	for _, dir := range []string{d.root, beside} {
		g.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
	}
	ids := nextRange(t)
	var err error
	d.beside, err = New(beside, ids)
	g.Expect(err).NotTo(HaveOccurred())
	published(t, d.beside, volume.Spec{ID: "neighbour", Size: 1 << 20}, owner)
	return d
}

// onExt4 says which kind of file system is tested.
func onExt4(g *WithT) bool {
	var st unix.Statfs_t
	g.Expect(unix.Statfs(os.TempDir(), &st)).To(Succeed())
	return st.Type == unix.EXT4_SUPER_MAGIC
}

// reboot is a power cut and a start: what the kernel has of the disk is forgotten.
func (d *cutDisk) reboot(t *testing.T) {
	t.Helper()
	d.Cut(t)
	volumetest.Program(t, "umount", d.mount)
	d.Restore(t)
	volumetest.Program(t, "mount", "-o", "prjquota", d.Path(), d.mount)
}

// check expects the neighbour to be as it was.
func (d *cutDisk) check(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(d.beside.Get(t.Context(), "neighbour")).To(HaveField("Limited", true))
	g.Expect(d.beside.Position(t.Context(), "neighbour")).To(Equal(volume.Published))
	g.Expect(os.ReadFile(filepath.Join(d.beside.Path("neighbour", volume.Published), "file"))).To(BeEquivalentTo("first"))
}

// A power cut loses what was not written out, and nothing else; otherwise the test above would say little.
func TestPowerCutLosesWhatIsInMemory(t *testing.T) {
	g := NewWithT(t)
	d := newCutDisk(t)
	f, err := os.Create(filepath.Join(d.mount, "synced"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(errors.Join(f.Sync(), f.Close())).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(d.mount, "last"), nil, 0o600)).To(Succeed())
	d.reboot(t)
	g.Expect(filepath.Join(d.mount, "synced")).To(BeARegularFile())
	g.Expect(filepath.Join(d.mount, "last")).NotTo(BeAnExistingFile())
	d.check(t)
}

// TestChild is what TestS5_EveryCrashLeadsToOneRightEnd runs and kills; without its environment it does nothing.
func TestChild(t *testing.T) { crashes().Child(t) }

func TestS5_EveryCrashLeadsToOneRightEnd(t *testing.T) { crashes().Run(t) }

func TestWriterStopsAtItsLimitAndItsNeighbourDoesNotNotice(t *testing.T) {
	for _, user := range []who{anOwner(), namespaceRoot(), containerRoot()} {
		t.Run(user.name, func(t *testing.T) { testLimits(t, user) })
	}
}

func testLimits(t *testing.T, user who) {
	t.Helper()
	g := NewWithT(t)
	d, _ := newDriver(t)
	const size, inodes = 8 << 20, 100
	full := published(t, d, volume.Spec{ID: "full", Size: size, Inodes: inodes}, user.uid)
	neighbour := published(t, d, volume.Spec{ID: "neighbour", Size: size, Inodes: inodes}, user.uid)
	g.Expect(full.Limited).To(BeTrue())

	g.Expect(user.do(t, "fill", filepath.Join(full.Path, "large"))).To(Equal(stopped(t) + ", <nil>"))
	usage, err := d.Usage(t.Context(), "full")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(usage.Bytes).To(And(BeNumerically(">", size-block), BeNumerically("<=", size)))

	g.Expect(os.Remove(filepath.Join(full.Path, "large"))).To(Succeed())
	made := user.do(t, "create", full.Path)
	g.Expect(made).To(Equal(fmt.Sprintf("%d: %s", inodes-3, stopped(t))), "volume, content and a file were there before")
	usage, err = d.Usage(t.Context(), "full")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(usage.Inodes).To(BeEquivalentTo(inodes))

	g.Expect(os.WriteFile(filepath.Join(neighbour.Path, "other"), make([]byte, size/2), 0o600)).To(Succeed())
	usage, err = d.Usage(t.Context(), "neighbour")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(usage.Inodes).To(BeEquivalentTo(4))
	g.Expect(usage.Bytes).To(And(BeNumerically(">=", size/2), BeNumerically("<=", size/2+6*block)))
	for _, id := range []string{"full", "neighbour"} {
		g.Expect(d.Audit(t.Context(), id, nil)).To(Succeed())
	}
}

func TestGrownVolumeTakesMore(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDriver(t)
	const size = 4 << 20
	info := published(t, d, volume.Spec{ID: "a", Size: size}, owner)
	file := filepath.Join(info.Path, "large")
	g.Expect(anOwner().do(t, "fill", file)).To(HavePrefix(stopped(t)))
	g.Expect(d.Resize(t.Context(), volume.Spec{ID: "a", Size: 2 * size})).To(HaveField("Limited", true))
	g.Expect(anOwner().do(t, "fill", file)).To(HavePrefix(stopped(t)))
	g.Expect(os.Stat(file)).To(HaveField("Size()", BeNumerically(">", size+size/2)))
	g.Expect(d.Resize(t.Context(), volume.Spec{ID: "a", Size: size})).Error().To(MatchError(volume.ErrShrink))
	g.Expect(d.Resize(t.Context(), volume.Spec{ID: "a"})).To(HaveField("Limited", false), "there is no limit to enforce")
	g.Expect(anOwner().do(t, "fill", file)).To(Equal("<nil>"))
}

func TestRootWithTheCapabilityIsStoppedOnXFSAndFoundOnExt4(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDriver(t)
	const size = 4 << 20
	info := published(t, d, volume.Spec{ID: "a", Size: size}, 0)
	said := nodeRoot().do(t, "fill", filepath.Join(info.Path, "large"))
	if onXFS(t) {
		g.Expect(said).To(Equal(stopped(t) + ", <nil>"))
		g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
		return
	}
	g.Expect(said).To(Equal("<nil>"))
	var escaped *volume.EscapedError
	g.Expect(d.Audit(t.Context(), "a", nil)).To(And(BeAssignableToTypeOf(fmt.Errorf("%w", escaped)), MatchError(ContainSubstring("SYS_RESOURCE"))))
}

func TestStagedContentCountsFromTheFirstByte(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDriver(t)
	spec := volume.Spec{ID: "a", Size: 16 << 20, Inodes: 1000}
	info, err := d.Ensure(t.Context(), spec)
	g.Expect(err).NotTo(HaveOccurred())
	path, err := d.Stage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(containerRoot().do(t, "fill", filepath.Join(path, "large"))).To(Equal(stopped(t) + ", <nil>"))
	usage, err := d.Usage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	allowed := filling(spec).bytes
	g.Expect(usage.Bytes).To(And(BeNumerically(">", allowed-block), BeNumerically("<=", allowed)))

	// What is full can still be finished, published, marked, withdrawn and removed.
	sealed, err := volume.Seal(t.Context(), path, volume.Content{Source: "Empty", Finished: time.Unix(1, 0).UTC()})
	g.Expect(err).NotTo(HaveOccurred())
	marker := volume.Marker{UID: "a", Claim: 1, Content: &sealed}
	g.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	g.Expect(d.Publish(t.Context(), "a")).To(Succeed())
	g.Expect(containerRoot().do(t, "fill", filepath.Join(info.Path, "more"))).To(ContainSubstring(stopped(t)))
	again, err := d.Usage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again.Bytes).To(Equal(usage.Bytes), "there is no room for a byte more")
	marker.Claim, marker.Node = 2, strings.Repeat("n", 8000)
	g.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	g.Expect(d.Withdraw(t.Context(), "a")).To(Succeed())
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
}

func TestProjectsAreFoundAgainAndReleased(t *testing.T) {
	g := NewWithT(t)
	d, root := newDriver(t)
	projects := map[string]uint32{}
	for _, id := range []string{"a", "b", "c"} {
		published(t, d, volume.Spec{ID: id, Size: 1 << 20}, owner)
		projects[id] = projectIn(g, filepath.Join(root, id))
	}
	g.Expect(projects["a"]).NotTo(Or(Equal(projects["b"]), Equal(projects["c"]), BeZero()))

	// A new process, which also has other ids to give.
	again, err := New(root, nextRange(t))
	g.Expect(err).NotTo(HaveOccurred())
	for id, project := range projects {
		g.Expect(again.Ensure(t.Context(), volume.Spec{ID: id, Size: 1 << 20})).To(HaveField("Limited", true))
		g.Expect(projectIn(g, filepath.Join(root, id))).To(Equal(project))
	}
	g.Expect(again.List(t.Context())).To(HaveEach(HaveField("Limited", true)))
	g.Expect(again.Remove(t.Context(), "a")).To(Succeed())
	g.Expect(again.Remove(t.Context(), "b")).To(Succeed())
	dir := open(t, root)
	g.Eventually(func() ([]account, error) {
		if err := d.Sweep(t.Context()); err != nil { // a file system may go on counting inodes that are gone: then a sweep releases
			return nil, err
		}
		return accounts(dir, d.ids.ids)
	}, "60s", "100ms").Should(HaveExactElements(WithTransform(
		func(a account) uint32 { return a.id }, Equal(projects["c"]))))
}

func projectIn(g *WithT, path string) uint32 {
	f, err := os.Open(path)
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	p, err := projectOf(f)
	g.Expect(err).NotTo(HaveOccurred())
	return p.id
}

// open opens a directory for the time of a test.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestProjectsOfOthersAreNeverTaken(t *testing.T) {
	g := NewWithT(t)
	ids := nextRange(t)
	ids.Last = ids.First + 3
	root, foreign := t.TempDir(), open(t, t.TempDir())
	g.Expect(setProject(foreign, project{id: ids.First})).To(Succeed())
	g.Expect(setLimits(foreign, ids.First+2, limits{bytes: 1 << 20})).To(Succeed())

	d, err := New(root, ids)
	g.Expect(err).NotTo(HaveOccurred())
	for _, test := range []struct {
		id   string
		want uint32
	}{{"a", ids.First + 1}, {"b", ids.First + 3}} {
		g.Expect(d.Ensure(t.Context(), volume.Spec{ID: test.id, Size: 1 << 20})).To(HaveField("Limited", true))
		g.Expect(projectIn(g, filepath.Join(root, test.id))).To(Equal(test.want))
	}
	_, err = d.Ensure(t.Context(), volume.Spec{ID: "c", Size: 1 << 20})
	g.Expect(err).To(MatchError(ContainSubstring(fmt.Sprintf("no project id from %d to %d is free", ids.First, ids.Last))))

	g.Expect(d.Sweep(t.Context())).To(Succeed(), "releases limits that bind nothing")
	g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "c", Size: 1 << 20})).To(HaveField("Limited", true))
	g.Expect(projectIn(g, filepath.Join(root, "c"))).To(Equal(ids.First + 2))
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	g.Expect(projectIn(g, foreign.Name())).To(Equal(ids.First))
}

func TestTwoDaemonsWithTheSameIdsTakeDifferentOnes(t *testing.T) {
	g := NewWithT(t)
	ids := nextRange(t)
	const each = 25
	var work sync.WaitGroup
	roots := make([]string, 4)
	errs := make([]error, len(roots))
	for i := range roots {
		roots[i] = t.TempDir()
		d, err := New(roots[i], ids)
		g.Expect(err).NotTo(HaveOccurred())
		work.Go(func() {
			for n := range each {
				if _, err := d.Ensure(t.Context(), volume.Spec{ID: strconv.Itoa(n), Size: 1 << 20}); err != nil {
					errs[i] = err
				}
			}
		})
	}
	work.Wait()
	g.Expect(errs).To(HaveEach(BeNil()))
	taken := map[uint32]bool{}
	for _, root := range roots {
		for n := range each {
			taken[projectIn(g, filepath.Join(root, strconv.Itoa(n)))] = true
		}
	}
	g.Expect(taken).To(HaveLen(len(roots) * each))
}

// An id that two took at the same time, both of which were killed before they looked, is given up by one.
func TestS5_IdThatWasTakenTwiceIsGivenUp(t *testing.T) {
	g := NewWithT(t)
	d, root := newDriver(t)
	for _, id := range []string{"a", "b"} {
		g.Expect(os.Mkdir(filepath.Join(root, id), 0o755)).To(Succeed())
		g.Expect(setProject(open(t, filepath.Join(root, id)), project{id: d.ids.ids.First})).To(Succeed())
		defer func() { g.Expect(d.Audit(t.Context(), id, nil)).To(Succeed()) }()
	}
	for _, id := range []string{"a", "b"} {
		g.Expect(d.Ensure(t.Context(), volume.Spec{ID: id, Size: 1 << 20})).To(HaveField("Limited", true))
	}
	g.Expect(projectIn(g, filepath.Join(root, "a"))).NotTo(Equal(projectIn(g, filepath.Join(root, "b"))))
}

func TestManyVolumes(t *testing.T) {
	g := NewWithT(t)
	d, root := newDriver(t)
	const many = 200
	start := time.Now()
	for i := range many {
		g.Expect(d.Ensure(t.Context(), volume.Spec{ID: fmt.Sprintf("v%03d", i), Size: 1 << 30})).To(HaveField("Limited", true))
		if i%50 == 49 {
			t.Logf("made %d after %s", i+1, time.Since(start))
		}
	}
	start = time.Now()
	for i := range many {
		g.Expect(d.Usage(t.Context(), fmt.Sprintf("v%03d", i))).To(HaveField("Inodes", BeEquivalentTo(1)))
	}
	t.Logf("measured after %s", time.Since(start))
	start = time.Now()
	for i := range many {
		g.Expect(d.Remove(t.Context(), fmt.Sprintf("v%03d", i))).To(Succeed())
		if i%50 == 49 {
			t.Logf("removed %d after %s", i+1, time.Since(start))
		}
	}
	expectEmpty(g, root)
}

func TestUsersSeeTheirLimitAsTheSizeOfTheDisk(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDriver(t)
	info := published(t, d, volume.Spec{ID: "a", Size: 8 << 20, Inodes: 100}, owner)
	var st unix.Statfs_t
	g.Expect(unix.Statfs(info.Path, &st)).To(Succeed())
	g.Expect(int64(st.Blocks) * st.Bsize).To(BeEquivalentTo(8 << 20))
	g.Expect(st.Files).To(BeEquivalentTo(100))
}
